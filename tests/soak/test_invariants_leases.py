"""once, cause, one-lease, final: logs that keep them, and logs that break each of them in one way."""

from __future__ import annotations

import pytest

from tests.soak.handwritten import MOST, PLAIN, Log
from tests.soak.log import Kind


def test_executions_one_after_the_other_break_nothing() -> None:
    log = Log(PLAIN)
    log.registered(0, "0.0", "plain", due=1)
    log.executed(1, "0.0", "plain", 1, "a", then=2)
    log.executed(2, "1.0", "plain", 2, "b", then=3)
    assert log.broken == []


def at_most_once(log: Log, at: float, process: str, due: float, token: str) -> None:
    log.granted(at, process, "most", due, token)
    log.committed(at + 0.01, process, "most", due, token, then=due + 1)
    log.started(at + 0.02, process, "most", due, token)
    log.ended(at + 0.03, process, "most", due, token, outcome="failed")


def test_at_most_once_is_committed_and_then_started() -> None:
    log = Log(MOST)
    at_most_once(log, 1, "0.0", 1, "a")
    at_most_once(log, 2, "1.0", 2, "b")
    assert log.broken == []


def test_a_start_that_was_given_back_is_started_by_somebody_else() -> None:
    log = Log(MOST)
    log.granted(1, "0.0", "most", 1, "a")
    log.committed(1.1, "0.0", "most", 1, "a", then=2)
    log.released(1.2, "0.0", "most", 1, "a")
    at_most_once(log, 1.3, "1.0", 1, "b")
    assert log.broken == []


def test_once_a_second_start_is_found() -> None:
    log = Log(MOST)
    at_most_once(log, 1, "0.0", 1, "a")
    log.started(1.5, "0.0", "most", 1, "a")
    assert log.broken == ["once"]


def test_once_a_start_of_somebody_else_is_found_long_after() -> None:
    log = Log(MOST)
    log.granted(1, "0.0", "most", 1, "a")
    log.started(1.1, "0.0", "most", 1, "a")
    at_most_once(log, 5, "1.0", 1, "b")
    assert log.broken == ["once", "once"]
    assert "started before its commit" in log.check()[0].message
    assert "started a second time, after 0.0" in log.check()[1].message


def test_once_a_start_before_the_commit_is_found() -> None:
    log = Log(MOST)
    log.granted(1, "0.0", "most", 1, "a")
    log.started(1.1, "0.0", "most", 1, "a")
    log.committed(1.2, "0.0", "most", 1, "a", then=2)
    assert log.broken == ["once"]


def test_once_a_start_after_a_refused_commit_is_found() -> None:
    log = Log(MOST)
    log.granted(1, "0.0", "most", 1, "a")
    log.lost(1.2, "0.0", "most", 1, "a", kind="committed", why="refused", sent=1.1)
    log.started(1.3, "0.0", "most", 1, "a")
    assert log.broken == ["once"]


def first_attempt(log: Log) -> None:
    """A process that does not live to tell what came of its execution; its lease ends at 4 s."""
    log.granted(1, "0.0", "plain", 1, "a")
    log.started(1.01, "0.0", "plain", 1, "a")


def test_an_occurrence_is_started_again_when_the_lease_has_ended() -> None:
    log = Log(PLAIN)
    first_attempt(log)
    log.executed(4, "1.0", "plain", 1, "b", then=2)
    assert log.broken == []


def test_an_occurrence_that_failed_is_started_again_when_it_was_given_back() -> None:
    log = Log(PLAIN)
    first_attempt(log)
    log.ended(1.1, "0.0", "plain", 1, "a", outcome="failed")
    log.released(1.1, "0.0", "plain", 1, "a", until=2.1)
    log.executed(2.1, "1.0", "plain", 1, "b", then=2)
    assert log.broken == []


@pytest.mark.parametrize("why", ["given up", "refused", None])
def test_a_release_whose_answer_was_lost_may_have_been_applied(why: str | None) -> None:
    log = Log(PLAIN)
    first_attempt(log)
    log.ended(1.1, "0.0", "plain", 1, "a", outcome="cancelled")
    if why is None:
        log.sent(1.2, "0.0", "plain", 1, "a", kind="released")
    else:
        log.lost(4.1, "0.0", "plain", 1, "a", kind="released", why=why, sent=1.2)
    log.executed(2, "1.0", "plain", 1, "b", then=2)
    assert log.broken == []


def test_cause_and_one_lease_a_claim_under_a_live_lease_is_found() -> None:
    log = Log(PLAIN)
    first_attempt(log)
    log.executed(3.9, "1.0", "plain", 1, "b", then=2)
    assert log.broken == ["cause", "one-lease"]


def test_cause_and_one_lease_a_claim_before_the_end_of_an_extension_is_found_however_late_that_was_told() -> None:
    log = Log(PLAIN)
    first_attempt(log)
    log.executed(4.1, "1.0", "plain", 1, "b", then=2)
    log.extended(7, "0.0", "plain", 1, "a", sent=2)
    assert log.broken == ["cause", "one-lease"]


def test_cause_and_one_lease_a_claim_before_a_release_allows_it_is_found() -> None:
    log = Log(PLAIN)
    first_attempt(log)
    log.ended(1.1, "0.0", "plain", 1, "a", outcome="failed")
    log.released(1.1, "0.0", "plain", 1, "a", until=2.1)
    log.executed(1.5, "1.0", "plain", 1, "b", then=2)
    assert log.broken == ["cause", "one-lease"]


def test_one_lease_a_claim_whose_process_did_not_start_it_is_found_as_well() -> None:
    log = Log(PLAIN)
    first_attempt(log)
    log.granted(2, "1.0", "plain", 1, "b")
    assert log.broken == ["one-lease"]


def test_one_lease_whoever_claims_by_a_clock_of_its_own_is_found() -> None:
    log = Log(PLAIN)
    first_attempt(log)
    log.add(Kind.GRANT, 2, "1.0", "plain", 1, token="b", store=22, until=25)
    assert log.broken == ["one-lease"]


def test_one_lease_a_claim_that_was_told_late_and_made_in_time_is_none() -> None:
    log = Log(PLAIN)
    log.granted(1, "0.0", "plain", 1, "a", logged=6)
    log.executed(4.5, "1.0", "plain", 1, "b", then=2)
    assert log.broken == []


def test_one_lease_a_smaller_token_is_found() -> None:
    log = Log(PLAIN)
    log.executed(1, "0.0", "plain", 1, "b", then=2)
    log.executed(2, "1.0", "plain", 2, "a", then=3)
    assert log.broken == ["one-lease"]


def test_cause_a_second_start_under_one_lease_is_found() -> None:
    log = Log(PLAIN)
    log.executed(1, "0.0", "plain", 1, "a", then=2)
    log.started(1.02, "0.0", "plain", 1, "a")
    assert log.broken == ["cause"]


def test_cause_a_start_without_a_lease_is_found() -> None:
    log = Log(PLAIN)
    first_attempt(log)
    log.started(1.5, "1.0", "plain", 1, "a")
    log.started(1.6, "1.0", "plain", 1, "unknown")
    assert log.broken == ["cause", "cause"]


def test_cause_an_answer_to_what_was_not_sent_is_found() -> None:
    log = Log(PLAIN)
    first_attempt(log)
    log.add(Kind.EXTEND_ACK, 2, "0.0", "plain", 1, token="a", until=4)
    assert log.broken == ["cause"]


@pytest.mark.parametrize(("given_up_at", "broken"), [(1.5, ["cause"]), (4.0, [])])
def test_cause_a_commit_is_tried_again_as_long_as_its_lease_lives(given_up_at: float, broken: list[str]) -> None:
    log = Log(PLAIN)
    first_attempt(log)
    log.ended(1.1, "0.0", "plain", 1, "a")
    log.lost(given_up_at, "0.0", "plain", 1, "a", kind="committed", why="given up", sent=1.1)
    assert log.broken == broken


def test_final_a_commit_that_was_told_late_and_applied_in_time_is_none() -> None:
    log = Log(PLAIN)
    log.granted(1, "0.0", "plain", 1, "a")
    log.started(1.1, "0.0", "plain", 1, "a")
    log.ended(1.2, "0.0", "plain", 1, "a")
    log.executed(2, "1.0", "plain", 2, "b", then=3)
    log.committed(6, "0.0", "plain", 1, "a", sent=1.2, then=2)
    assert log.broken == []


def test_final_a_commit_after_which_the_occurrence_is_granted_again_is_found() -> None:
    log = Log(PLAIN)
    log.executed(1, "0.0", "plain", 1, "a", then=2)
    log.executed(5, "1.0", "plain", 1, "b", then=2)
    assert log.broken == ["final"]


def test_final_a_commit_of_one_who_was_overtaken_is_found() -> None:
    log = Log(PLAIN)
    first_attempt(log)
    log.executed(4, "1.0", "plain", 1, "b", then=2)
    log.ended(4.5, "0.0", "plain", 1, "a")
    log.committed(4.5, "0.0", "plain", 1, "a", then=2)
    # Whose commit came first does not matter: both would count.
    assert log.broken == ["final", "final"]
    assert "was committed although 1.0 had claimed it" in log.check()[-1].message


@pytest.mark.parametrize("change", ["extended", "released"])
def test_final_a_change_with_an_old_token_is_found(change: str) -> None:
    log = Log(PLAIN)
    first_attempt(log)
    log.granted(4, "1.0", "plain", 1, "b")
    if change == "extended":
        log.extended(4.5, "0.0", "plain", 1, "a")
    else:
        log.released(4.5, "0.0", "plain", 1, "a")
    assert log.broken[-1] == "final"
    assert log.broken.count("final") == 1


def test_final_an_old_token_that_was_refused_is_what_should_be() -> None:
    log = Log(PLAIN)
    first_attempt(log)
    log.ended(4.5, "0.0", "plain", 1, "a")
    log.lost(4.6, "0.0", "plain", 1, "a", kind="committed", why="refused", sent=4.5)
    log.executed(4, "1.0", "plain", 1, "b", then=2)
    assert log.broken == []


def test_final_an_extension_after_the_commit_is_found() -> None:
    log = Log(PLAIN)
    log.executed(1, "0.0", "plain", 1, "a", then=2)
    log.extended(1.5, "0.0", "plain", 1, "a")
    assert log.broken == ["final"]


def test_a_process_that_is_told_of_a_lost_lease_breaks_nothing() -> None:
    log = Log(PLAIN)
    first_attempt(log)
    log.lost(4.6, "0.0", "plain", 1, "a", kind="extended", why="refused", sent=4.5)
    log.ended(4.7, "0.0", "plain", 1, "a", outcome="lease_lost")
    log.executed(4, "1.0", "plain", 1, "b", then=2)
    assert log.broken == []
