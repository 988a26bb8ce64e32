"""Whose time it is: what is learnt from the readings of a store's clock, and what is said about the difference."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from anyscheduler import clock, timekeeper
from anyscheduler.clock import from_micros, system_clock, to_micros
from anyscheduler.errors import ConfigurationError
from anyscheduler.timekeeper import Timekeeper

SECOND = 1_000_000
START = to_micros(datetime(2026, 1, 1, tzinfo=UTC))


class Machine:
    """The clocks of a machine, which go on only when they are told to."""

    def __init__(self) -> None:
        self.monotonic = 5_000 * SECOND
        self.wall = START

    def time_ns(self) -> int:
        return self.wall * 1_000

    CLOCK_BOOTTIME = 7

    def clock_gettime_ns(self, clock_id: int) -> int:
        assert clock_id == self.CLOCK_BOOTTIME
        return self.monotonic_ns()

    def monotonic_ns(self) -> int:
        return self.monotonic * 1_000

    def passes(self, micros: int) -> None:
        self.monotonic += micros
        self.wall += micros

    def asks(self, keeper: Timekeeper, shown: int, *, within: int = 0) -> None:
        """Lets `keeper` learn what a store's clock showed in a round trip of so many microseconds."""
        asked = self.monotonic
        self.passes(within)
        keeper.learn(shown, asked)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr(timekeeper, "time", made)
    monkeypatch.setattr(clock, "time", made)
    return made


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records]


# --- the interval -----------------------------------------------------------------------------------------------------

# Each reading: by how much the store's clock was ahead of the monotonic one when its reply arrived, and how long the
# round trip took. So the truth lies between the first and the sum of both; behind it, the estimate afterwards.
READINGS: dict[str, list[tuple[int, int, int]]] = {
    "at first, the middle of what is possible": [(900, 200, 1_000)],
    "an answer that takes no time is exact": [(900, 0, 900)],
    "what agrees changes nothing": [(900, 200, 1_000), (800, 400, 1_000), (1_000, 500, 1_000), (500, 500, 1_000)],
    "too small, it moves up just as far as it must": [(900, 200, 1_000), (1_100, 50, 1_100)],
    "too large, it moves down just as far as it must": [(900, 200, 1_000), (700, 250, 950)],
    "a slow answer teaches nothing": [(1_000, 0, 1_000), (-5_000_000, 10_000_000, 1_000)],
    "a quick one corrects a slow one": [(0, 10_000_000, 5_000_000), (100, 10, 110), (90, 50, 110)],
    "a clock that drifts is followed": [(1_000, 20, 1_010), (1_011, 20, 1_011), (1_021, 20, 1_021), (990, 20, 1_010)],
    "a clock that is set is followed at once": [(1_000, 20, 1_010), (3_600_000_000, 20, 3_600_000_000), (0, 20, 20)],
    "it may be behind as well": [(-900, 200, -800), (-1_000, 100, -900)],
}


@pytest.mark.parametrize("readings", READINGS.values(), ids=READINGS)
def test_the_estimate_moves_just_as_far_as_a_reading_makes_it(
    machine: Machine, readings: list[tuple[int, int, int]]
) -> None:
    keeper = Timekeeper(system_clock)

    for ahead, round_trip, expected in readings:
        machine.asks(keeper, machine.monotonic + round_trip + ahead, within=round_trip)
        assert keeper() - machine.monotonic == expected
        machine.passes(7 * SECOND)
        assert keeper() - machine.monotonic == expected


# The same readings once more; behind each, what is sure at that moment: the truth is not less.
SURE: dict[str, list[tuple[int, int, int]]] = {
    "at first, the least that is possible": [(900, 200, 900)],
    "what says more is better": [(900, 200, 900), (1_000, 50, 1_000)],
    "what says less changes little": [(900, 200, 900), (300, 900, 900 - 81)],
    "what contradicts is believed": [(900, 200, 900), (400, 50, 450)],
    "a clock that is set is followed at once": [(1_000, 20, 1_000), (3_600_000_000, 20, 3_600_000_000), (0, 20, 20)],
}


@pytest.mark.parametrize("readings", SURE.values(), ids=SURE)
def test_what_is_sure_moves_with_each_reading(machine: Machine, readings: list[tuple[int, int, int]]) -> None:
    keeper = Timekeeper(system_clock)

    for ahead, round_trip, expected in readings:
        machine.passes(80_000 - round_trip)
        machine.asks(keeper, machine.monotonic + round_trip + ahead, within=round_trip)
        assert keeper.surely() - machine.monotonic == expected - 1
        assert keeper.surely() <= keeper()


def test_what_is_sure_falls_behind_by_as_much_as_two_clocks_may_come_apart(machine: Machine) -> None:
    keeper = Timekeeper(system_clock)
    machine.asks(keeper, machine.monotonic)

    machine.passes(SECOND)

    assert machine.monotonic - keeper.surely() == 1_001


def test_without_a_store_s_clock_what_is_shown_is_sure(machine: Machine) -> None:
    keeper = Timekeeper(system_clock)

    assert keeper.surely() == keeper() == START


# --- whose clock ------------------------------------------------------------------------------------------------------


def test_the_clock_of_the_system_counts_until_a_store_has_shown_its_own(machine: Machine) -> None:
    keeper = Timekeeper(system_clock)

    assert keeper.may_follow
    assert keeper() == keeper.to_claim_at == START
    machine.passes(SECOND)
    assert keeper() == keeper.to_claim_at == START + SECOND


def test_from_then_on_the_store_decides_and_this_is_the_best_guess_of_its_time(machine: Machine) -> None:
    keeper = Timekeeper(system_clock)

    machine.asks(keeper, START + 20 * SECOND)

    assert keeper.to_claim_at is None
    assert keeper() == START + 20 * SECOND
    machine.passes(SECOND)
    assert keeper() == START + 21 * SECOND


def test_a_wall_clock_that_is_set_changes_nothing_once_a_store_is_followed(machine: Machine) -> None:
    keeper = Timekeeper(system_clock)
    machine.asks(keeper, START)

    machine.wall += 3_600 * SECOND
    machine.passes(SECOND)

    assert keeper() == START + SECOND


def test_a_clock_of_the_user_s_own_is_taken_as_it_is(machine: Machine) -> None:
    shown = [START + 77]
    keeper = Timekeeper(lambda: from_micros(shown[0]))

    assert not keeper.may_follow
    assert keeper() == keeper.to_claim_at == START + 77
    machine.passes(SECOND)
    shown[0] -= 3_600 * SECOND
    assert keeper() == keeper.to_claim_at == START + 77 - 3_600 * SECOND


def test_a_clock_that_only_calls_that_of_the_system_is_the_user_s_own() -> None:
    assert not Timekeeper(lambda: system_clock()).may_follow  # noqa: PLW0108  # that it is another function is the point


@pytest.mark.parametrize("shown", [None, 5, 1.5, "now", datetime(2026, 1, 1), START])
def test_a_clock_that_shows_no_aware_datetime_is_refused(shown: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^clock="):
        Timekeeper(lambda: shown)


@pytest.mark.parametrize("given", [None, 5, datetime(2026, 1, 1, tzinfo=UTC)])
def test_what_is_no_clock_at_all_is_refused(given: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^clock="):
        Timekeeper(given)


# --- what is said -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ahead", "where"), [(-20, "20.0 s ahead of"), (20, "20.0 s behind"), (1.5, "1.5 s behind")])
def test_a_difference_of_more_than_a_second_is_said_once(
    machine: Machine, caplog: pytest.LogCaptureFixture, ahead: float, where: str
) -> None:
    keeper = Timekeeper(system_clock)

    for _ in range(5):
        machine.asks(keeper, machine.wall + int(ahead * SECOND))
        machine.passes(60 * SECOND)

    assert lines(caplog) == [f"the clock of this machine is {where} the store's; schedules go by the store's"]


@pytest.mark.parametrize("ahead", [0, 0.9, -0.9, 1, -1])
def test_a_difference_of_up_to_a_second_is_not_worth_a_line(
    machine: Machine, caplog: pytest.LogCaptureFixture, ahead: float
) -> None:
    keeper = Timekeeper(system_clock)

    machine.asks(keeper, machine.wall + int(ahead * SECOND))

    assert lines(caplog) == []


def test_a_slow_answer_is_no_difference(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    keeper = Timekeeper(system_clock)
    machine.asks(keeper, machine.wall)

    machine.asks(keeper, machine.wall + 1, within=9 * SECOND)

    assert lines(caplog) == []


def test_it_is_said_again_when_it_has_changed_by_more_than_a_second_and_when_it_is_over(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    keeper = Timekeeper(system_clock)

    for ahead in (5.0, 5.9, 4.1, 6.1, 6.5, 5.2, -3, -2.5, 0.5, 0.2, -0.4, -1.5):
        machine.asks(keeper, machine.wall + int(ahead * SECOND))

    assert [line.removeprefix("the clock of this machine ").partition(";")[0] for line in lines(caplog)] == [
        "is 5.0 s behind the store's",
        "is 6.1 s behind the store's",
        "is 3.0 s ahead of the store's",
        "agrees with the store's again",
        "is 1.5 s ahead of the store's",
    ]


def test_the_wall_clock_of_this_machine_that_is_set_is_such_a_change(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    keeper = Timekeeper(system_clock)
    machine.asks(keeper, START)

    machine.wall += 20 * SECOND
    machine.asks(keeper, START)
    machine.wall -= 20 * SECOND
    machine.asks(keeper, START)

    assert [line.partition(";")[0] for line in lines(caplog)] == [
        "the clock of this machine is 20.0 s ahead of the store's",
        "the clock of this machine agrees with the store's again",
    ]
