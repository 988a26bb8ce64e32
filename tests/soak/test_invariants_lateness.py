"""not-early, fair, poison: logs that keep them, and logs that break each of them in one way."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.soak.handwritten import CORRUPT, LEASE, ONCE, PLAIN, Log, micros
from tests.soak.invariants.lateness import p99
from tests.soak.log import Kind

KEY = "corrupt:broken"
REPORT = (
    "2026 ERROR anyscheduler.holding: corrupt:broken: set aside for a minute, the stored row cannot be executed: no\n"
)


@pytest.mark.parametrize(("count", "expected"), [(1, 1), (20, 20), (100, 99), (200, 198), (201, 199)])
def test_p99_is_the_least_value_that_99_percent_do_not_exceed(count: int, expected: int) -> None:
    assert p99(list(range(count, 0, -1))) == expected


@pytest.mark.parametrize(("at", "broken"), [(0.995, []), (0.98, ["not-early"])])
def test_not_early_a_start_before_its_time_is_found(at: float, broken: list[str]) -> None:
    log = Log(PLAIN)
    log.executed(at - 0.01, "0.0", "plain", 1, "a", then=2)
    assert log.broken == broken


def test_not_early_whoever_goes_by_a_clock_of_its_own_is_found() -> None:
    log = Log(PLAIN)
    log.add(Kind.GRANT, 1, "0.0", "plain", 21, token="a", store=21, until=24)
    log.add(Kind.START, 1.1, "0.0", "plain", 21, token="a", store=21.1)
    assert log.broken == ["not-early"]


def runs(log: Log, key: str, late: float, *, count: int = 20) -> None:
    """So many executions of a task, each so many seconds late."""
    for number in range(1, count + 1):
        log.executed(number + late - 0.01, "0.0", key, number, f"{number:03}", then=number + 1)


def tasks(*names: str) -> Log:
    return Log(*(replace(PLAIN, name=name) for name in names))


@pytest.mark.parametrize(
    ("usual", "slowest", "broken"), [(5.0, 15.0, []), (5.0, 15.1, ["fair"]), (0.2, 12.0, []), (0.2, 12.1, ["fair"])]
)
def test_fair_a_task_that_is_three_times_as_late_as_others_is_found_and_one_that_a_fault_held_up_is_not(
    usual: float, slowest: float, broken: list[str]
) -> None:
    log = tasks("a", "b", "c")
    runs(log, "a", 0.1)
    runs(log, "b", usual)
    runs(log, "c", slowest)
    assert log.broken == broken


def test_fair_tasks_of_another_kind_are_no_measure() -> None:
    log = Log(*(replace(PLAIN, name=name, group="cron" if name == "c" else "plain") for name in "abc"))
    runs(log, "a", 0.1)
    runs(log, "b", 0.1)
    for number in range(1, 21):
        log.executed(number + 20.79, "0.0", "c", number, f"{number:03}", then=number + 1)
    assert log.broken == []


def test_fair_a_few_occurrences_say_nothing() -> None:
    log = tasks("a", "b", "c")
    runs(log, "a", 0.1)
    runs(log, "b", 0.1)
    runs(log, "c", 20.9, count=19)
    assert log.broken == []


def poisoned(at: float = 1, *, reported: bool = True, is_there: bool = True, bystanders: bool = False) -> Log:
    """A process meets the corrupt row, says so, and sets it aside."""
    log = Log(CORRUPT, PLAIN, ONCE) if bystanders else Log(CORRUPT)
    log.granted(at, "0.0", KEY, 0, "a")
    log.released(at + 0.01, "0.0", KEY, 0, "a", until=at + 60)
    log.outputs["0.0"] = REPORT if reported else "all is well\n"
    if is_there:
        log.row(KEY, 0, until=at + 60)
    return log


def test_a_corrupt_row_is_reported_and_set_aside() -> None:
    assert poisoned().broken == []


def test_poison_a_corrupt_row_of_which_nobody_speaks_is_found() -> None:
    assert poisoned(reported=False).broken == ["poison"]


def test_poison_a_corrupt_row_that_is_gone_is_found() -> None:
    assert poisoned(is_there=False).broken == ["poison"]


def test_poison_a_corrupt_row_that_nobody_met_is_found() -> None:
    log = Log(CORRUPT)
    log.row(KEY, 0)
    assert log.broken == ["poison"]


def test_poison_a_corrupt_row_that_is_started_is_found() -> None:
    log = poisoned()
    log.started(1.01, "0.0", KEY, 0, "a")
    assert log.broken == ["poison"]


def test_a_process_that_is_killed_before_it_has_set_the_row_aside_need_not_have_reported_it() -> None:
    log = poisoned()
    log.granted(61, "1.0", KEY, 0, "b")
    log.driver(Kind.SIGNAL, 61.1, "SIGKILL", "1.0")
    log.driver(Kind.EXIT, 61.1, "-9", "1.0")
    assert log.broken == []


@pytest.mark.parametrize(("last", "broken"), [(5.0, ["poison"]), (3.0, [])])
def test_poison_what_was_claimed_with_it_and_left_lying_is_found(last: float, broken: list[str]) -> None:
    log = poisoned(bystanders=True)
    log.granted(1, "0.0", "plain", 1, "a")
    log.sample(last, "0.0")
    assert log.broken == broken


def test_poison_what_was_claimed_with_it_by_a_process_that_is_then_stopped_is_excused() -> None:
    log = poisoned(bystanders=True)
    log.granted(1, "0.0", "plain", 1, "a")
    log.driver(Kind.FAULT, 1.1, "stop 0.0")
    log.driver(Kind.HEALED, 5.1, "stop 0.0")
    log.sample(5.2, "0.0")
    assert log.broken == []


@pytest.mark.parametrize(("late", "broken"), [(0.14, []), (0.2, ["poison"])])
def test_poison_lateness_near_the_corrupt_row_is_found(late: float, broken: list[str]) -> None:
    log = poisoned(at=50, bystanders=True)
    for number in range(1, 101):
        is_near = 50 <= number <= 50 + LEASE - 1
        log.executed(
            number + (late if is_near else 0.1) - 0.01, "0.0", "plain", number, f"{number:03}", then=number + 1
        )
    assert log.broken == broken


@pytest.mark.parametrize(("slow", "broken"), [((80,), []), ((80, 84), []), ((80, 144), ["poison"])])
def test_poison_lateness_near_the_corrupt_row_at_one_of_three_times_is_a_coincidence(
    slow: tuple[int, ...], broken: list[str]
) -> None:
    log = poisoned(at=10, bystanders=True)
    for at, again in ((80, 84), (84, 144), (144, 204)):
        log.granted(at, "0.0", KEY, 0, f"b{at:03}")
        log.released(at + 0.01, "0.0", KEY, 0, f"b{at:03}", until=again)
    for number in range(1, 181):
        late = 0.6 if any(at <= number <= at + LEASE - 1 for at in slow) else 0.1
        log.executed(number + late - 0.01, "0.0", "plain", number, f"{number:03}", then=number + 1)
    assert log.broken == broken


def test_microseconds_are_exact() -> None:
    assert micros(1.000001) == 1_000_001
