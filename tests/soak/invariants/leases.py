"""What leases promise: once, cause, one-lease, final.

Knows: leases, in the order in which they were granted. Must not know: schedules, processes, how late anything is.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from tests.soak.invariants.history import TOLERANCE
from tests.soak.log import Kind, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.soak.invariants.history import History
    from tests.soak.invariants.records import Lease
    from tests.soak.log import Line, TaskFacts


def once(history: History) -> Iterator[Violation]:
    """An at-most-once occurrence has at most one START, ever, and that after its commit."""
    for _, _, leases in history.schedules(at_most_once=True):
        started: dict[int, Lease] = {}
        for lease in leases:
            for start in lease.starts:
                if lease.due in started:
                    message = f"{lease} was started a second time, after {started[lease.due].granted.process}"
                    yield Violation("once", start.mono, message)
                started[lease.due] = lease
                if not any(write.applied and _is_before(write.answer, start) for write in lease.of("committed")):
                    yield Violation("once", start.mono, f"{lease} was started before its commit was confirmed")


def cause(history: History) -> Iterator[Violation]:
    """A second START of an at-least-once occurrence comes only when the first lease had ended, or was given back.

    Each START has a lease of its own. And no commit is given up while its lease lives: that would be a cause as well.
    """
    for line in history.unleased:
        yield Violation(
            "cause", line.mono, f"{line.process}: {line.kind} of {line.key!r} due {line.due} without a lease"
        )
    for _, _, leases in history.schedules(at_most_once=False):
        started: dict[int, Lease] = {}
        for lease in leases:
            yield from _given_up_early(lease)
            for start in lease.starts[1:]:
                yield Violation("cause", start.mono, f"{lease} was started twice under one lease")
            if not lease.starts:
                continue
            before = started.get(lease.due)
            if before is not None and not (_may_follow(history, lease, before) or _may_follow(history, before, lease)):
                message = f"{lease} was started while {before.granted.process} held it"
                yield Violation("cause", lease.starts[0].mono, message)
            started[lease.due] = lease


def one_lease(history: History) -> Iterator[Violation]:
    """Lease intervals of one occurrence are disjoint by the store's time, and tokens of one schedule increase."""
    for _, task, leases in history.schedules():
        of_occurrence: dict[int, Lease] = {}
        for lease in leases:
            before = of_occurrence.get(lease.due)
            if before is not None and not (_may_follow(history, lease, before) or _may_follow(history, before, lease)):
                message = f"{lease} was granted while {before.granted.process} had a lease until {before.until}"
                yield Violation("one-lease", lease.granted.mono, message)
            of_occurrence[lease.due] = lease
        for before, lease in pairwise(_in_order(task, leases)):
            if lease.granted.token <= before.granted.token and _is_later(task, lease, before):
                message = f"{lease} has no greater token than {before.granted.process} had: {before.granted.token}"
                yield Violation("one-lease", lease.granted.mono, message)


def final(history: History) -> Iterator[Violation]:
    """An occurrence is not granted again after its commit, and an old token changes nothing."""
    for key, task, leases in history.schedules():
        committed: dict[int, Lease] = {}
        for lease in leases:
            before = committed.get(lease.due)
            if before is not None and not _may_follow(history, before, lease):
                message = f"{lease} was granted, and {before.granted.process} has committed it"
                yield Violation("final", lease.granted.mono, message)
            if lease.commit is not None:
                committed[lease.due] = lease
        for lease, after in pairwise(_in_order(task, leases)):
            if _is_later(task, after, lease):
                what = f"{after.granted.process} had claimed it"
                yield from _changed_with_old_token(history, lease, after.by, what)
        for lease in leases:
            yield from _changed_what_was_replaced(history, key, lease)
            yield from _changed_after_commit(lease)


def _may_follow(history: History, lease: Lease, before: Lease) -> bool:
    """Tells whether an occurrence may have been claimed after somebody else had claimed it.

    1. Given back: once that was sent, and by a time from which on it may be claimed, if the store has said so.
    2. Otherwise by a time at which the lease had ended, as far as the store has confirmed it.
    """
    for write in before.of("released"):
        until = write.answer.until if write.answer is not None and write.answer.kind is Kind.RELEASE else None
        if lease.by >= history.store_time(write.sent) and (until is None or lease.at >= until):
            return True
    return lease.at >= before.until


def _in_order(task: TaskFacts, leases: Sequence[Lease]) -> Sequence[Lease]:
    """Returns the leases in the order in which they were granted, as far as it is known."""
    return sorted(leases, key=lambda lease: (lease.due, lease.at, lease.by)) if task.is_static else leases


def _is_later(task: TaskFacts, lease: Lease, before: Lease) -> bool:
    """Tells whether a schedule was certainly claimed later than before.

    1. A later occurrence of a static task, whose schedule nobody replaces.
    2. The same occurrence, by a time at which the first lease had ended.
    3. By a time that is later than the moment in which the first claim was known to be carried out.
    """
    if task.is_static and lease.due > before.due:
        return True
    return lease.at > before.by or (lease.due == before.due and lease.at >= before.until)


def _is_before(answer: Line | None, line: Line) -> bool:
    return answer is not None and answer.mono <= line.mono


def _given_up_early(lease: Lease) -> Iterator[Violation]:
    """By the time of its own process, which is what that has to go by."""
    for write in lease.of("committed"):
        answer = write.answer
        if answer is not None and answer.kind is Kind.LOST and answer.detail == "given up":
            assert answer.store is not None
            left = lease.until - answer.store
            if left > TOLERANCE:
                yield Violation(
                    "cause", answer.mono, f"the commit of {lease} was given up {left / 1e6:.3f} s too early"
                )


def _changed_with_old_token(history: History, lease: Lease, since: int, what: str) -> Iterator[Violation]:
    """Finds what was sent for a lease later than `since` (the store's time) and was applied all the same."""
    for write in lease.writes:
        if write.applied and history.store_time(write.sent) > since:
            yield Violation("final", write.sent.mono, f"{lease} was {write.kind} although {what}")


def _changed_what_was_replaced(history: History, key: str, lease: Lease) -> Iterator[Violation]:
    for request in history.requests.get(key, ()):
        # What was asked for before the claim may have been stored before it as well, and its answer be late.
        if request.stored is not None and history.store_time(request.asked) > lease.by:
            what = f"{request.asked.process} had {'removed' if request.removes else 'replaced'} it"
            yield from _changed_with_old_token(history, lease, history.store_time(request.stored), what)


def _changed_after_commit(lease: Lease) -> Iterator[Violation]:
    commit = lease.commit
    for write in lease.writes:
        if commit is not None and write.applied and write.sent.mono > commit.mono:
            yield Violation("final", write.sent.mono, f"{lease} was {write.kind} after its commit")
