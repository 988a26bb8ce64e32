"""bound, stop, heal: logs that keep them, and logs that break each of them in one way."""

from __future__ import annotations

import pytest

from tests.soak.handwritten import MOST, ONCE, PLAIN, Log
from tests.soak.log import Kind


def test_no_more_bodies_are_open_than_the_limit_lets() -> None:
    log = Log(ONCE)
    bodies(log, 2)
    log.sample(3, "0.0", bodies=2)
    assert log.broken == []


def bodies(log: Log, count: int) -> None:
    """So many bodies at a time, one after the other closed and opened again."""
    for number in range(count):
        key = f"once:{number}"
        log.scheduled(0, "0.0", key, "once", due=1)
        log.granted(1, "0.0", key, 1, "a")
        log.started(1.1 + number / 100, "0.0", key, 1, "a")


def test_bound_one_body_too_many_is_found() -> None:
    log = Log(ONCE)
    bodies(log, 3)
    assert log.broken == ["bound"]


def test_bound_bodies_that_have_ended_do_not_count() -> None:
    log = Log(ONCE)
    bodies(log, 2)
    log.ended(1.105, "0.0", "once:0", 1, "a", outcome="failed")
    log.scheduled(0, "0.0", "once:2", "once", due=1)
    log.granted(1.5, "0.0", "once:2", 1, "c")
    log.started(1.5, "0.0", "once:2", 1, "c")
    assert log.broken == []


def test_bound_one_that_the_process_counts_itself_is_found() -> None:
    log = Log()
    log.sample(3, "0.0", bodies=3)
    assert log.broken == ["bound"]


def test_bound_a_start_under_a_burning_lease_is_found() -> None:
    log = Log(PLAIN)
    log.granted(1, "0.0", "plain", 1, "a")
    log.started(1.7, "0.0", "plain", 1, "a")
    assert log.broken == ["bound"]


def test_a_lease_that_was_made_whole_is_fresh_again() -> None:
    log = Log(PLAIN)
    log.granted(1, "0.0", "plain", 1, "a")
    log.extended(2, "0.0", "plain", 1, "a")
    log.started(2.1, "0.0", "plain", 1, "a")
    assert log.broken == []


def test_bound_an_extension_that_comes_later_does_not_count() -> None:
    log = Log(PLAIN)
    log.granted(1, "0.0", "plain", 1, "a")
    log.started(2.1, "0.0", "plain", 1, "a")
    log.extended(2.2, "0.0", "plain", 1, "a")
    assert log.broken == ["bound"]


def test_what_the_store_takes_to_make_a_lease_whole_is_not_held_against_the_process() -> None:
    log = Log(PLAIN)
    log.granted(1, "0.0", "plain", 1, "a")
    log.extended(4, "0.0", "plain", 1, "a", sent=2)
    log.started(4.1, "0.0", "plain", 1, "a")
    assert log.broken == []


@pytest.mark.parametrize(("stopped", "broken"), [((1.5, 6.0), []), ((6.5, 9.0), ["bound"])])
def test_bound_a_process_that_is_stopped_before_it_starts_is_excused(
    stopped: tuple[float, float], broken: list[str]
) -> None:
    log = Log(PLAIN)
    log.granted(1, "0.0", "plain", 1, "a")
    pause(log, *stopped)
    log.started(6.1 if stopped[0] < 6 else 3.0, "0.0", "plain", 1, "a")
    assert log.broken == broken


def pause(log: Log, begin: float, end: float, process: str = "0.0") -> None:
    log.driver(Kind.FAULT, begin, f"stop {process}")
    log.driver(Kind.HEALED, end, f"stop {process}")


@pytest.mark.parametrize(("until", "broken"), [(4.5, []), (4.3, ["bound"])])
def test_bound_an_extension_that_is_counted_from_an_old_reading_of_the_clock_is_found(
    until: float, broken: list[str]
) -> None:
    log = Log(PLAIN)
    log.granted(1, "0.0", "plain", 1, "a")
    log.started(1, "0.0", "plain", 1, "a")
    log.sent(2, "0.0", "plain", 1, "a", kind="extended")
    log.add(Kind.EXTEND_ACK, 2, "0.0", "plain", 1, token="a", until=until)
    assert log.broken == broken


def test_a_process_that_learned_the_time_while_the_store_hardly_answered_may_extend_by_less() -> None:
    log = Log(PLAIN)
    log.driver(Kind.FAULT, 0.2, "hold")
    log.driver(Kind.HEALED, 0.9, "hold")
    log.granted(1, "0.0", "plain", 1, "a")
    log.started(1, "0.0", "plain", 1, "a")
    log.sent(2, "0.0", "plain", 1, "a", kind="extended")
    log.add(Kind.EXTEND_ACK, 2, "0.0", "plain", 1, token="a", until=4)
    assert log.broken == []


def test_bound_a_slow_machine_is_given_a_tenth_of_what_a_process_takes_to_begin() -> None:
    log = Log(PLAIN, end=-100)
    log.driver(Kind.BEGIN, 0.1, "slot=0", "0.0")
    log.sample(2.1, "0.0")
    log.granted(3, "0.0", "plain", 1, "a")
    log.started(3.75, "0.0", "plain", 1, "a")
    assert log.broken == []


def others_begin(log: Log, at: float, slow: float) -> None:
    """Processes that take 0.2 seconds to begin, and one of them, from `at` on, so many."""
    for number, begun in enumerate((30, 40, at)):
        log.driver(Kind.BEGIN, begun, "slot=1", f"1.{number}")
        first = begun + (slow if begun == at else 0.2)
        log.sample(first, f"1.{number}")
        log.driver(Kind.SIGNAL, first, "SIGKILL", f"1.{number}")
        log.driver(Kind.EXIT, first, "-9", f"1.{number}")


@pytest.mark.parametrize(("at", "broken"), [(2.0, []), (3.5, []), (5.0, ["bound"]), (0.1, ["bound"])])
def test_bound_the_machine_is_as_slow_as_others_find_it_at_that_moment(at: float, broken: list[str]) -> None:
    log = Log(PLAIN, end=-100)
    others_begin(log, at, slow=2)
    log.granted(3.4, "0.0", "plain", 1, "a")
    log.started(4.15, "0.0", "plain", 1, "a")
    assert log.broken == broken


@pytest.mark.parametrize(("at", "broken"), [(2.0, []), (3.5, ["stop"])])
def test_stop_the_machine_is_as_slow_as_others_find_it_at_that_moment(at: float, broken: list[str]) -> None:
    log = Log(PLAIN, end=-100)
    others_begin(log, at, slow=2)
    told(log, 1.9, 2, ended=3.2, code=143)
    assert log.broken == broken


def test_at_most_once_has_no_lease_at_its_start() -> None:
    log = Log(MOST)
    log.granted(1, "0.0", "most", 1, "a")
    log.committed(3, "0.0", "most", 1, "a", then=2)
    log.started(3.1, "0.0", "most", 1, "a")
    assert log.broken == []


def told(log: Log, *at: float, ended: float, code: int = 0, process: str = "0.0") -> None:
    """A process that is told to end so often, and ends then."""
    for moment in at:
        log.driver(Kind.SIGNAL, moment, "SIGTERM", process)
    log.driver(Kind.EXIT, ended, str(code), process)


def test_a_process_that_is_told_to_end_lets_its_body_finish_and_ends() -> None:
    log = Log(PLAIN)
    log.granted(1, "0.0", "plain", 1, "a")
    log.started(1.1, "0.0", "plain", 1, "a")
    log.ended(3.5, "0.0", "plain", 1, "a")
    log.committed(3.6, "0.0", "plain", 1, "a", then=2)
    told(log, 1.5, ended=4.4)
    assert log.broken == []


@pytest.mark.parametrize(("at", "broken"), [(2.4, []), (2.6, ["stop"])])
def test_stop_a_claim_half_a_second_after_the_signal_is_found(at: float, broken: list[str]) -> None:
    log = Log(PLAIN)
    log.executed(at, "0.0", "plain", 1, "a", then=2)
    told(log, 2, ended=2.9)
    assert log.broken == broken


@pytest.mark.parametrize(("healed", "at"), [(2.8, 2.9), (2.8, 4.2), (1.8, 3.2)])
def test_a_claim_that_was_held_up_on_its_way_is_carried_out_behind_that(healed: float, at: float) -> None:
    log = Log(PLAIN)
    log.driver(Kind.FAULT, 1.4, "crash")
    log.driver(Kind.HEALED, healed, "crash")
    log.executed(at, "0.0", "plain", 1, "a", then=2)
    told(log, 2, ended=at + 0.6)
    assert log.broken == []


def test_stop_a_process_that_was_stopped_itself_has_no_connection_to_wait_for() -> None:
    log = Log(PLAIN)
    pause(log, 1.4, 2.8)
    log.executed(3.6, "0.0", "plain", 1, "a", then=2)
    told(log, 2, ended=4)
    assert log.broken == ["stop"]


def test_stop_a_claim_long_after_the_store_is_back_is_found() -> None:
    log = Log(PLAIN)
    log.driver(Kind.FAULT, 1.9, "crash")
    log.driver(Kind.HEALED, 2.8, "crash")
    log.executed(4.4, "0.0", "plain", 1, "a", then=2)
    told(log, 2, ended=5)
    assert log.broken == ["stop"]


@pytest.mark.parametrize(("open_until", "broken"), [(None, []), (2.1, ["stop"])])
def test_a_process_that_is_killed_while_it_waits_for_a_body_did_not_take_too_long(
    open_until: float | None, broken: list[str]
) -> None:
    log = Log(PLAIN)
    log.granted(1, "0.0", "plain", 1, "a")
    log.started(1.1, "0.0", "plain", 1, "a")
    if open_until is not None:
        log.ended(open_until, "0.0", "plain", 1, "a")
        log.committed(open_until, "0.0", "plain", 1, "a", then=2)
    log.driver(Kind.SIGNAL, 6, "SIGKILL", "0.0")
    told(log, 2, ended=6, code=-9)
    assert log.broken == broken


def test_a_hard_stop_without_a_store_gives_nothing_back() -> None:
    log = Log(PLAIN)
    log.granted(1, "0.0", "plain", 1, "a")
    log.started(1, "0.0", "plain", 1, "a")
    log.ended(1.3, "0.0", "plain", 1, "a", outcome="cancelled")
    log.driver(Kind.FAULT, 1.25, "refuse")
    log.driver(Kind.HEALED, 3.5, "refuse")
    told(log, 1.1, 1.2, ended=3.3, code=143)
    assert log.broken == []


def test_a_stopped_process_hears_the_signal_when_it_goes_on() -> None:
    log = Log(PLAIN)
    pause(log, 1, 5)
    log.executed(5.3, "0.0", "plain", 1, "a", then=2)
    told(log, 2, ended=6.3)
    assert log.broken == []


@pytest.mark.parametrize(("ended", "broken"), [(2.9, []), (3.1, ["stop"])])
def test_stop_a_process_that_does_not_end_is_found(ended: float, broken: list[str]) -> None:
    log = Log()
    told(log, 2, ended=ended)
    assert log.broken == broken


def test_stop_a_process_that_does_not_end_is_found_although_it_is_killed_in_the_end() -> None:
    log = Log()
    log.driver(Kind.SIGNAL, 8, "SIGKILL", "0.0")
    told(log, 2, ended=8, code=-9)
    assert log.broken == ["stop"]


@pytest.mark.parametrize(("ended", "broken"), [(2.9, []), (3.1, ["stop"])])
def test_stop_the_second_signal_does_not_wait_for_bodies(ended: float, broken: list[str]) -> None:
    log = Log(PLAIN)
    log.granted(1, "0.0", "plain", 1, "a")
    log.started(1.1, "0.0", "plain", 1, "a")
    log.ended(2.7, "0.0", "plain", 1, "a", outcome="cancelled")
    log.released(2.7, "0.0", "plain", 1, "a")
    told(log, 2, 2.5, ended=ended, code=143)
    assert log.broken == broken


def test_while_the_store_is_away_an_end_waits_for_it_as_long_as_a_lease() -> None:
    log = Log()
    log.driver(Kind.FAULT, 1.5, "refuse")
    log.driver(Kind.HEALED, 3.5, "refuse")
    told(log, 2, ended=7)
    assert log.broken == []
    log.driver(Kind.EXIT, 9, "0", "1.0")
    log.driver(Kind.SIGNAL, 2, "SIGTERM", "1.0")
    assert log.broken == ["stop"]


def test_an_interpreter_that_is_slow_to_begin_may_be_slow_to_end() -> None:
    log = Log(end=-100)
    log.driver(Kind.BEGIN, 0.1, "slot=0", "0.0")
    log.sample(3.1, "0.0")
    told(log, 5, ended=7.4)
    assert log.broken == []


@pytest.mark.parametrize("code", [1, 0, -11, -9, 143])
def test_stop_nobody_ends_untold(code: int) -> None:
    log = Log()
    log.driver(Kind.EXIT, 2, str(code), "0.0")
    assert log.broken == ["stop"]


@pytest.mark.parametrize(
    ("times", "code", "broken"), [(1, 0, []), (1, 143, ["stop"]), (2, 143, []), (2, -15, []), (1, 1, ["stop"])]
)
def test_stop_the_exit_code_tells_how_it_ended(times: int, code: int, broken: list[str]) -> None:
    log = Log()
    told(log, *[2.0] * times, ended=2.3, code=code)
    assert log.broken == broken


@pytest.mark.parametrize("cause", ["SIGKILL", "before claim kill"])
def test_a_kill_is_no_end_that_anybody_answers_for(cause: str) -> None:
    log = Log()
    if cause == "SIGKILL":
        log.driver(Kind.SIGNAL, 2, cause, "0.0")
    else:
        log.add(Kind.FAILPOINT, 2, "0.0", detail=cause)
    log.driver(Kind.EXIT, 2.1, "-9", "0.0")
    assert log.broken == []


@pytest.mark.parametrize(("code", "broken"), [(0, ["stop"]), (143, ["stop"]), (-9, [])])
def test_stop_what_was_claimed_and_not_started_is_given_back(code: int, broken: list[str]) -> None:
    log = Log(PLAIN)
    log.granted(1, "0.0", "plain", 1, "a")
    if code == -9:
        log.driver(Kind.SIGNAL, 1.3, "SIGKILL", "0.0")
    told(log, *([1.1, 1.2] if code == 143 else [1.1]), ended=1.4, code=code)
    assert log.broken == broken


@pytest.mark.parametrize("outcome", ["cancelled", ""])
def test_stop_what_was_cut_off_is_given_back(outcome: str) -> None:
    log = Log(PLAIN)
    log.granted(1, "0.0", "plain", 1, "a")
    log.started(1, "0.0", "plain", 1, "a")
    if outcome:
        log.ended(1.3, "0.0", "plain", 1, "a", outcome=outcome)
    told(log, 1.1, 1.2, ended=1.4, code=143)
    assert log.broken == ["stop"]


@pytest.mark.parametrize("key", ["plain", "most"])
def test_what_was_cut_off_and_given_back_or_committed_before_is_not_missed(key: str) -> None:
    log = Log(PLAIN, MOST)
    log.granted(1, "0.0", key, 1, "a")
    if key == "most":
        log.committed(1, "0.0", key, 1, "a", then=2)
    log.started(1, "0.0", key, 1, "a")
    log.ended(1.3, "0.0", key, 1, "a", outcome="cancelled")
    if key == "plain":
        log.released(1.3, "0.0", key, 1, "a")
    told(log, 1.1, 1.2, ended=1.4, code=143)
    assert log.broken == []


def test_what_was_given_back_is_not_missed() -> None:
    log = Log(PLAIN)
    log.granted(1, "0.0", "plain", 1, "a")
    log.released(1.2, "0.0", "plain", 1, "a")
    told(log, 1.1, ended=1.4)
    assert log.broken == []


@pytest.mark.parametrize(("at", "broken"), [(15.9, []), (16.1, ["heal"]), (9.9, ["heal"])])
def test_heal_a_worker_that_starts_nothing_for_long_after_the_last_fault_is_found(at: float, broken: list[str]) -> None:
    log = Log(ONCE, end=10)
    log.driver(Kind.BEGIN, 0.1, "slot=0", "0.0")
    log.sample(0.2, "0.0")
    log.scheduled(0, "1.0", "once:1", "once", due=at)
    log.executed(at, "0.0", "once:1", at, "a", then=None)
    assert log.broken == broken


def test_heal_a_worker_that_is_gone_in_time_is_not_asked() -> None:
    log = Log(end=10)
    log.driver(Kind.BEGIN, 0.1, "slot=0", "0.0")
    told(log, 15, ended=15.5)
    log.driver(Kind.BEGIN, 12, "slot=1", "1.0")
    told(log, 17, ended=17.5, process="1.0")
    assert log.broken == []
