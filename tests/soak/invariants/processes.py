"""What each process promises: bound, stop, heal.

Knows: what each process did, and what befell it. Must not know: schedules, who else held an occurrence.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from tests.soak.log import Kind, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.soak.invariants.history import History
    from tests.soak.invariants.records import Lease, Process
    from tests.soak.log import Line

_SECOND: Final = 1_000_000
_FRESH: Final = 0.8
_GRANTS_END: Final = _SECOND // 2
_CONNECTED_AGAIN: Final = _SECOND
_EXIT: Final = _SECOND
_HARD_EXIT: Final = _SECOND // 2
_GRACEFUL: Final = 0
_HARD: Final = {128 + 15, -15}
"""The exit codes of a process that was told twice; the second time perhaps when its app had ended already."""

_TIMES_TOLD: Final = 2
"""Told once more, a process ends as it stands."""


def bound(history: History) -> Iterator[Violation]:
    """Open bodies are never above `concurrency_limit`; at least 80 % of the lease is left at START.

    So much is asked for with each extension as well.
    """
    limit = history.facts.concurrency_limit
    open_bodies = dict.fromkeys(history.processes, 0)
    for line in history.lines:
        match line.kind:
            case Kind.START:
                open_bodies[line.process] += 1
                if open_bodies[line.process] == limit + 1:
                    yield Violation("bound", line.mono, f"{line.process} has more than {limit} bodies open")
            case Kind.END:
                open_bodies[line.process] -= 1
            case Kind.OPEN:
                counted = json.loads(line.detail)["bodies"]
                if counted > limit:
                    yield Violation("bound", line.mono, f"{line.process} has {counted} bodies open, of {limit}")
            case _:
                pass
    for _, _, leases in history.schedules(at_most_once=False):
        for lease in leases:
            yield from _stale_start(history, lease)
            yield from _short_extension(history, lease)


def stop(history: History) -> Iterator[Violation]:
    """Whoever is told to end claims nothing more, ends soon, and gives back what it has not started.

    No GRANT later than 0.5 s after the first signal; the end at most 1 s after the longest body, at the second signal
    within 0.5 s. Nobody ends without having been told or killed.
    """
    for process in history.processes.values():
        if process.ended is None:
            continue
        yield from _unexpected_end(process)
        if process.told:
            yield from _late_grants(history, process)
            yield from _late_end(history, process)
            yield from _not_given_back(history, process)


def heal(history: History) -> Iterator[Violation]:
    """Every live worker starts work again within lease + poll interval + 2 s of the last fault."""
    within = round((history.facts.lease + history.facts.poll_interval + 2) * _SECOND)
    first: dict[str, int] = {}
    for line in history.lines:
        if line.kind is Kind.START and line.mono >= history.facts.end:
            first.setdefault(line.process, line.mono)
    for process in history.processes.values():
        since = max(history.facts.end, process.begun + 2 * history.start_up)
        until = min([since + within, *process.told, process.ended or since + within])
        if process.begun and until == since + within and first.get(process.name, until + 1) > until:
            yield Violation(
                "heal", until, f"{process.name} started nothing for {within / _SECOND:g} s after the last fault"
            )


def _stale_start(history: History, lease: Lease) -> Iterator[Violation]:
    """Finds a body that began under a burning lease, unless its process could not know or help it.

    1. It was stopped after it had last heard of its lease.
    2. It had asked for a whole lease, and the store took that long to answer.
    """
    for start in lease.starts:
        left = lease.until_at(start) - history.store_time(start)
        answered = [write for write in lease.writes if write.answer is not None and write.answer.mono <= start.mono]
        heard = answered[-1].answer.mono if answered and answered[-1].answer is not None else lease.granted.mono
        waited = heard - answered[-1].sent.mono if answered else 0
        if _is_burning(history, left + waited, start.mono) and not _was_stopped(history, heard, start):
            yield Violation("bound", start.mono, f"{lease} was started with {left / _SECOND:.3f} s of its lease left")


def _short_extension(history: History, lease: Lease) -> Iterator[Violation]:
    for write in lease.of("extended"):
        if write.applied and write.answer is not None and write.answer.until is not None:
            left = write.answer.until - history.store_time(write.sent)
            # Whoever came to know the store's time while it hardly answered is wrong about it for a while.
            since = lease.granted.mono - round(history.facts.lease * _SECOND)
            process = history.processes[write.sent.process]
            was_interrupted = history.interrupted(process, since, write.sent.mono) is not None
            if _is_burning(history, left, write.sent.mono) and not was_interrupted:
                message = f"{lease} was extended for {left / _SECOND:.3f} s only"
                yield Violation("bound", write.sent.mono, message)


def _is_burning(history: History, left: int, mono: int) -> bool:
    least = _FRESH * history.facts.lease * _SECOND
    # Most are far from it, and to look at the moment takes time.
    return left + history.slack < least and left + history.slack_at(mono) < least


def _was_stopped(history: History, since: int, line: Line) -> bool:
    return any(begin <= line.mono and end >= since for begin, end in history.processes[line.process].pauses)


def _unexpected_end(process: Process) -> Iterator[Violation]:
    assert process.ended is not None
    expected = {_GRACEFUL} if process.told else set()
    if len(process.told) >= _TIMES_TOLD:
        expected |= _HARD
    if not process.was_killed and process.code not in expected:
        told = f"told to end {len(process.told)} times"
        yield Violation("stop", process.ended, f"{process.name}, {told}, ended with {process.code}")


def _late_grants(history: History, process: Process) -> Iterator[Violation]:
    told = _obeyed_from(process, process.told[0])
    for lease in history.by_process[process.name]:
        # A claim that was on its way when the store was held up is carried out behind that; one that needs a connection
        # to a server that was away, when the pool has made another attempt.
        held_up = history.interrupted(process, told, lease.granted.mono) or told
        away = history.away(told - _CONNECTED_AGAIN, lease.granted.mono)
        since = max(told, held_up, told if away is None else away + _CONNECTED_AGAIN)
        late = history.mono(lease.at) - since
        if late > _GRANTS_END:
            message = f"{lease} was granted {late / _SECOND:.3f} s after the signal to end"
            yield Violation("stop", lease.granted.mono, message)


def _late_end(history: History, process: Process) -> Iterator[Violation]:
    """Finds a process that took too long to end, be it that it ended by itself or was still there when it was killed.

    While the store is away, what is to be written waits for it, for as long as a lease at most.
    """
    assert process.ended is not None
    a_lease = round(history.facts.lease * _SECOND)
    hard = len(process.told) >= _TIMES_TOLD
    told = process.told[_TIMES_TOLD - 1] if hard else process.told[0]
    held = history.by_process[process.name]
    if process.was_killed and not hard and any(lease.starts and not lease.ends for lease in held):
        # It was still waiting for a body.
        return
    bodies = [] if hard else [end.mono for lease in held for end in lease.ends]
    since = max(_obeyed_from(process, told), *bodies) if bodies else _obeyed_from(process, told)
    interrupted = history.interrupted(process, told - a_lease, process.ended)
    if interrupted is not None:
        since = max(since, interrupted + a_lease)
    late = process.ended - since
    # What its interpreter takes for itself is the machine's affair.
    allowed = (_HARD_EXIT if hard else _EXIT) + history.start_up_at(process.ended) // 2
    if late > allowed:
        after = "the second signal" if hard else "the signal and its last body"
        yield Violation("stop", process.ended, f"{process.name} ended {late / _SECOND:.3f} s after {after}")


def _not_given_back(history: History, process: Process) -> Iterator[Violation]:
    if process.ended_abruptly:
        return
    # A hard stop gives the store two seconds.
    was_away = len(process.told) >= _TIMES_TOLD and history.interrupted(
        process, process.told[_TIMES_TOLD - 1], process.ended or process.last
    )
    for lease in history.by_process[process.name]:
        if not lease.starts and not lease.writes:
            yield Violation("stop", lease.granted.mono, f"{lease} was neither started nor given back")
        elif lease.starts and not lease.ends:
            yield Violation("stop", lease.starts[0].mono, f"{lease} was started, and has no end")
        elif lease.was_cancelled and not (lease.of("released") or lease.of("committed") or was_away):
            yield Violation("stop", lease.ends[0].mono, f"{lease} was cancelled, and not given back")


def _obeyed_from(process: Process, told: int) -> int:
    """Returns when a signal can have been heard: a stopped process hears it when it goes on."""
    for begin, end in process.pauses:
        if begin <= told + _GRANTS_END and told <= end:
            told = end
    return told
