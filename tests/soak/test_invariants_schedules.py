"""no-loss, next, registry: logs that keep them, and logs that break each of them in one way."""

from __future__ import annotations

from datetime import datetime

import pytest

from tests.soak.handwritten import CHURN, MOST, ONCE, PLAIN, SKIPPING, Log
from tests.soak.invariants.crons import next_due
from tests.soak.log import Kind, TaskFacts

SECOND = "1000000"


def test_a_sequence_from_the_registration_to_the_end_breaks_nothing() -> None:
    log = Log(PLAIN, end=8.5)  # so that all until 2.5 s has to be settled
    log.registered(0, "0.0", "plain", due=1)
    log.executed(1, "0.0", "plain", 1, "a", then=2)
    log.executed(2, "0.0", "plain", 2, "b", then=3)
    assert log.broken == []


def test_no_loss_the_first_occurrence_is_not_passed_over() -> None:
    log = Log(PLAIN)
    log.registered(0, "0.0", "plain", due=1)
    log.executed(2, "0.0", "plain", 2, "b", then=3)
    assert log.broken == ["no-loss"]


def test_no_loss_one_in_between_is_not_passed_over() -> None:
    log = Log(PLAIN)
    log.executed(1, "0.0", "plain", 1, "a", then=2)
    log.executed(3, "0.0", "plain", 3, "c", then=4)
    assert log.broken == ["no-loss"]


def test_no_loss_a_refused_commit_leads_to_no_other_than_the_next_one() -> None:
    log = Log(PLAIN)
    log.granted(1, "0.0", "plain", 1, "a")
    log.started(1, "0.0", "plain", 1, "a")
    log.ended(1.1, "0.0", "plain", 1, "a")
    log.sent(1.1, "0.0", "plain", 1, "a", kind="committed")
    log.executed(3, "0.0", "plain", 3, "c", then=4)
    assert log.broken == ["no-loss"]


def test_a_commit_whose_answer_was_lost_may_have_been_applied() -> None:
    log = Log(PLAIN)
    log.granted(1, "0.0", "plain", 1, "a")
    log.started(1, "0.0", "plain", 1, "a")
    log.ended(1.1, "0.0", "plain", 1, "a")
    log.sent(1.1, "0.0", "plain", 1, "a", kind="committed")
    log.executed(2, "1.0", "plain", 2, "b", then=3)
    assert log.broken == []


def test_no_loss_what_was_claimed_and_never_settled_is_not_passed_over() -> None:
    log = Log(PLAIN)
    log.granted(1, "0.0", "plain", 1, "a")
    log.started(1, "0.0", "plain", 1, "a")
    log.executed(2, "1.0", "plain", 2, "b", then=3)
    assert log.broken == ["no-loss"]


def test_no_loss_a_schedule_that_stands_still_is_found() -> None:
    log = Log(PLAIN, end=8.5)
    log.registered(0, "0.0", "plain", due=1)
    log.executed(1, "0.0", "plain", 1, "a", then=2)
    assert log.broken == ["no-loss"]


def test_no_loss_a_task_that_never_ran_is_found() -> None:
    log = Log(PLAIN, end=8.5)
    log.registered(0, "0.0", "plain", due=1)
    assert log.broken == ["no-loss"]


def test_no_loss_a_row_that_moved_on_by_itself_is_found() -> None:
    log = Log(PLAIN)
    log.executed(1, "0.0", "plain", 1, "a", then=2)
    log.row("plain", 3)
    assert log.broken == ["no-loss"]


def test_no_loss_a_row_that_was_lost_and_registered_anew_is_found() -> None:
    log = Log(PLAIN)
    log.registered(0, "0.0", "plain", due=1)
    log.executed(1, "0.0", "plain", 1, "a", then=2)
    log.registered(4, "1.0", "plain", due=5)
    log.executed(5, "0.0", "plain", 5, "b", then=6)
    assert log.broken == ["no-loss"]


@pytest.mark.parametrize("outcome", ["", "failed", "cancelled"])
def test_no_loss_a_commit_of_what_has_not_run_is_found(outcome: str) -> None:
    log = Log(PLAIN)
    log.granted(1, "0.0", "plain", 1, "a")
    if outcome:
        log.started(1.1, "0.0", "plain", 1, "a")
        log.ended(1.2, "0.0", "plain", 1, "a", outcome=outcome)
    log.committed(1.3, "0.0", "plain", 1, "a", then=2)
    assert log.broken == ["no-loss"]


def test_a_failure_that_is_to_be_committed_counts_as_having_run() -> None:
    task = TaskFacts("cancelled", "cancelled", at_most_once=False, interval=1_000_000)
    log = Log(task)
    log.granted(1, "0.0", "cancelled", 1, "a")
    log.started(1.1, "0.0", "cancelled", 1, "a")
    log.ended(1.2, "0.0", "cancelled", 1, "a", outcome="failed")
    log.committed(1.3, "0.0", "cancelled", 1, "a", then=2)
    assert log.broken == []


@pytest.mark.parametrize(("code", "broken"), [("0", ["no-loss"]), ("-9", [])])
def test_no_loss_at_most_once_a_commit_without_a_start_needs_a_kill(code: str, broken: list[str]) -> None:
    log = Log(MOST)
    log.granted(1, "0.0", "most", 1, "a")
    log.committed(1.1, "0.0", "most", 1, "a", then=2)
    log.driver(Kind.SIGNAL, 1.15, "SIGKILL" if code == "-9" else "SIGTERM", "0.0")
    log.driver(Kind.EXIT, 1.2, code, "0.0")
    assert log.broken == broken


def test_no_loss_at_most_once_a_start_is_not_forgotten_by_one_that_lives_on() -> None:
    log = Log(MOST)
    log.granted(1, "0.0", "most", 1, "a")
    log.committed(1.1, "0.0", "most", 1, "a", then=2)
    log.sample(9, "0.0")
    assert log.broken == ["no-loss"]


def test_what_was_missed_is_left_out_where_that_is_wanted() -> None:
    log = Log(SKIPPING)
    skips(log, first=2, then=5)
    log.executed(5, "1.0", "skipping", 5, "b", then=6)
    assert log.broken == []


def skips(log: Log, *, first: float, then: float, key: str = "skipping") -> None:
    """An occurrence of 1 s that is executed at 4.5 s; its commit leaves out from `first` to before `then`."""
    log.granted(4.5, "0.0", key, 1, "a")
    log.started(4.51, "0.0", key, 1, "a")
    log.ended(4.52, "0.0", key, 1, "a")
    log.add(Kind.SKIP, 4.53, "0.0", key, first, token="a", until=then)
    log.committed(4.54, "0.0", key, 1, "a", then=then)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (2, 6),  # 5 s is still to come
        (2, 5.5),  # none of its occurrences
        (3, 5),  # not the one that follows
    ],
)
def test_next_what_was_not_missed_is_not_left_out(first: float, then: float) -> None:
    log = Log(SKIPPING)
    skips(log, first=first, then=then)
    assert log.broken == ["next"]


def test_next_nothing_is_left_out_unasked() -> None:
    log = Log(PLAIN)
    skips(log, first=2, then=5, key="plain")
    assert log.broken == ["next"]


def test_next_what_was_missed_is_not_run_where_it_is_to_be_left_out() -> None:
    log = Log(SKIPPING)
    log.executed(4.5, "0.0", "skipping", 1, "a", then=2)
    assert log.broken == ["next"]


@pytest.mark.parametrize("then", [2.000001, 1.999999, 3, None])
def test_next_is_exact_to_the_microsecond(then: float | None) -> None:
    log = Log(PLAIN)
    log.executed(1, "0.0", "plain", 1, "a", then=then)
    log.row("plain", 2 if then is None else then)
    assert log.broken == (["no-loss", "next"] if then is None else ["next"])


def test_a_once_off_is_stored_as_asked_for_and_ends() -> None:
    log = Log(ONCE, end=60)
    log.scheduled(1, "0.0", "once:1", "once", due=2)
    log.executed(2, "1.0", "once:1", 2, "a", then=None)
    assert log.broken == []


def test_next_a_once_off_that_is_stored_for_another_time_is_found() -> None:
    log = Log(ONCE)
    log.asked(1, "0.0", "once:1", "once", due=2)
    log.registered(1, "0.0", "once:1", due=2.000001)
    assert log.broken == ["next"]


def test_next_a_once_off_has_none() -> None:
    log = Log(ONCE)
    log.scheduled(1, "0.0", "once:1", "once", due=2)
    log.executed(2, "1.0", "once:1", 2, "a", then=3)
    assert log.broken == ["next"]


def test_no_loss_a_once_off_that_was_stored_runs() -> None:
    log = Log(ONCE, end=60)
    log.scheduled(1, "0.0", "once:1", "once", due=2)
    log.asked(1, "0.0", "once:2", "once", due=2)  # of this one nobody knows
    log.scheduled(1, "0.0", "once:3", "once", due=55)  # this one need not have run by the end
    assert log.broken == ["no-loss"]


def test_instances_come_are_changed_and_go() -> None:
    log = Log(CHURN)
    log.scheduled(1, "0.0", "churn:1", SECOND, due=2.005)
    log.executed(2.01, "1.0", "churn:1", 2.005, "a", then=3.005)
    log.scheduled(2.2, "0.0", "churn:1", "500000", due=2.705)
    log.executed(2.71, "1.0", "churn:1", 2.705, "b", then=3.205)
    log.executed(3.21, "1.0", "churn:1", 3.205, "c", then=3.705)
    log.removed(3.5, "0.0", "churn:1")
    assert log.broken == []


def test_the_same_interval_again_changes_nothing() -> None:
    log = Log(CHURN)
    log.scheduled(1, "0.0", "churn:1", SECOND, due=2.005)
    log.scheduled(1.7, "0.0", "churn:1", SECOND, due=2.005)
    log.executed(2.01, "1.0", "churn:1", 2.005, "a", then=3.005)
    assert log.broken == []


@pytest.mark.parametrize("due", [1.9, 2.05])
def test_next_the_first_run_of_an_interval_is_counted_from_its_registration(due: float) -> None:
    log = Log(CHURN)
    log.scheduled(1, "0.0", "churn:1", SECOND, due=due)
    assert log.broken == ["next"]


def test_the_first_run_is_counted_by_the_estimate_of_the_process_which_may_be_off_after_an_outage() -> None:
    log = Log(CHURN)
    log.asked(1, "0.0", "churn:1", SECOND)
    log.add(Kind.REG_ACK, 1.01, "0.0", "churn:1", 2.205, store=1.21)
    assert log.broken == []
    log.driver(Kind.FAULT, 0.2, "hold")
    log.driver(Kind.HEALED, 0.9, "hold")
    log.scheduled(1, "0.0", "churn:2", SECOND, due=2.5)
    assert log.broken == []


def test_next_an_instance_goes_by_its_own_interval() -> None:
    log = Log(CHURN)
    log.scheduled(1, "0.0", "churn:1", SECOND, due=2.005)
    log.scheduled(1.2, "0.0", "churn:1", "500000", due=1.705)
    log.executed(1.71, "1.0", "churn:1", 1.705, "a", then=2.705)
    assert log.broken == ["next"]


def test_no_loss_an_instance_does_not_pass_over_what_it_has_not_settled() -> None:
    log = Log(CHURN)
    log.scheduled(1, "0.0", "churn:1", SECOND, due=2.005)
    log.executed(3.01, "1.0", "churn:1", 3.005, "a", then=4.005)
    assert log.broken == ["no-loss"]


def test_registry_a_claim_after_the_removal_is_found() -> None:
    log = Log(CHURN)
    log.scheduled(1, "0.0", "churn:1", SECOND, due=2.005)
    log.removed(1.5, "0.0", "churn:1")
    log.executed(2.01, "1.0", "churn:1", 2.005, "a", then=3.005)
    assert "registry" in log.broken
    # Its commit was applied to a row that was not there, which is no news.
    assert set(log.broken) == {"registry"}


def test_a_claim_before_the_removal_that_is_told_later_is_none() -> None:
    log = Log(CHURN)
    log.scheduled(1, "0.0", "churn:1", SECOND, due=2.005)
    log.granted(2.01, "1.0", "churn:1", 2.005, "a", logged=4)
    log.removed(2.02, "0.0", "churn:1")
    assert log.broken == []


def test_a_registration_that_its_process_did_not_live_to_confirm_may_come_after_the_removal() -> None:
    log = Log(CHURN)
    log.asked(1, "0.0", "churn:1", SECOND)
    log.removed(1.5, "0.1", "churn:1")
    log.executed(2.61, "1.0", "churn:1", 2.605, "a", then=3.605)
    assert log.broken == []


def test_registry_a_change_that_nobody_confirmed_does_not_excuse_a_claim_after_the_removal() -> None:
    log = Log(CHURN)
    log.scheduled(1, "0.0", "churn:1", SECOND, due=2.005)
    log.asked(1.2, "0.0", "churn:1", "500000")
    log.removed(1.5, "0.1", "churn:1")
    log.granted(2.01, "1.0", "churn:1", 2.005, "a")
    assert log.broken == ["registry"]


def test_registry_after_a_change_no_occurrence_of_the_old_schedule_is_granted() -> None:
    log = Log(CHURN)
    log.scheduled(1, "0.0", "churn:1", SECOND, due=2.005)
    log.scheduled(1.2, "0.0", "churn:1", "700000", due=1.905)
    log.granted(2.01, "1.0", "churn:1", 2.005, "a")
    assert log.broken == ["registry"]


def test_registry_what_nobody_has_registered_is_not_granted() -> None:
    log = Log(CHURN)
    log.granted(2.01, "1.0", "churn:1", 2.005, "a")
    assert log.broken == ["no-loss", "registry"]


def test_final_the_late_result_of_what_was_replaced_is_refused() -> None:
    log = Log(CHURN)
    log.scheduled(1, "0.0", "churn:1", SECOND, due=2.005)
    log.granted(2.01, "1.0", "churn:1", 2.005, "a")
    log.started(2.02, "1.0", "churn:1", 2.005, "a")
    log.scheduled(2.1, "0.0", "churn:1", "500000", due=2.605)
    log.ended(2.2, "1.0", "churn:1", 2.005, "a")
    log.committed(2.2, "1.0", "churn:1", 2.005, "a", then=3.005)
    assert log.broken == ["final"]


def test_final_the_late_result_of_what_was_removed_is_refused() -> None:
    log = Log(CHURN)
    log.scheduled(1, "0.0", "churn:1", SECOND, due=2.005)
    log.granted(2.01, "1.0", "churn:1", 2.005, "a")
    log.started(2.02, "1.0", "churn:1", 2.005, "a")
    log.removed(2.1, "0.0", "churn:1")
    log.ended(2.2, "1.0", "churn:1", 2.005, "a")
    log.committed(2.2, "1.0", "churn:1", 2.005, "a", then=3.005)
    assert log.broken == ["final"]


CRON = TaskFacts("cron", "cron", at_most_once=False, interval=None, cron="* * * * * 10,40", timezone="Europe/Dublin")


def test_a_cron_is_due_when_the_oracle_says() -> None:
    log = Log(CRON)
    log.registered(0, "0.0", "cron", due=10)
    log.executed(10, "0.0", "cron", 10, "a", then=40)
    log.executed(40, "0.0", "cron", 40, "b", then=70)
    assert log.broken == []


@pytest.mark.parametrize("then", [40.000001, 39, 70])
def test_next_a_cron_is_due_when_the_oracle_says_and_at_no_other_time(then: float) -> None:
    log = Log(CRON)
    log.executed(10, "0.0", "cron", 10, "a", then=then)
    assert log.broken == ["next"]


@pytest.mark.parametrize(("task", "due"), [(CRON, 11), (CRON, 40), (PLAIN, 1.001)])
def test_next_a_task_is_due_first_after_it_was_stored(task: TaskFacts, due: float) -> None:
    log = Log(task)
    log.registered(0, "0.0", task.name, due=due)
    assert log.broken == ["next"]


def test_no_loss_a_cron_that_passes_over_an_occurrence_is_found() -> None:
    log = Log(CRON)
    log.executed(10, "0.0", "cron", 10, "a", then=40)
    log.executed(70, "0.0", "cron", 70, "b", then=100)
    assert log.broken == ["no-loss"]


def instant(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp()) * 1_000_000


@pytest.mark.parametrize(
    ("cron", "after", "expected"),
    [
        ("*/20 * * * *", "2026-10-25T00:55+01:00", "2026-10-25T01:00+01:00"),
        ("*/20 * * * *", "2026-10-25T01:40+01:00", "2026-10-25T01:00+00:00"),  # shown twice, and due twice
        (
            "30 * * * * 5",
            "2026-03-29T00:30:05+00:00",
            "2026-03-29T02:00:00+01:00",
        ),  # skipped, due at the end of the gap
    ],
)
def test_crons_keep_to_the_clock_on_the_wall(cron: str, after: str, expected: str) -> None:
    assert next_due(cron, "Europe/Dublin", instant(after)) == instant(expected)
