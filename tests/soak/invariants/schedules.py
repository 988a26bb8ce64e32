"""What schedules promise: no-loss, next, registry.

Knows: when occurrences follow each other by an independent count. Must not know: who ran them, leases, lateness.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.soak.invariants.crons import next_due
from tests.soak.log import Violation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.soak.invariants.history import History
    from tests.soak.invariants.records import Lease, Write
    from tests.soak.log import Line, TaskFacts

_RAN = {"succeeded", "skipped"}
_ONCE = "once"


def no_loss(history: History) -> Iterator[Violation]:
    """What was committed and left out is exactly the sequence of the trigger, from its registration to the end.

    The end is that of the load less (lease + poll interval + 2 s).
    """
    end = history.facts.end - round((history.facts.lease + history.facts.poll_interval + 2) * 1e6)
    for key, task, leases in history.schedules():
        yield from _passed_over(history, key, task, leases)
        for lease in leases:
            yield from _settled_without_running(history, task, lease)
    for task in history.facts.tasks:
        if task.is_static:
            yield from _stood_still(history, task, end)
    for key in history.requests:
        yield from _never_ran(history, key, end)


def next_run(history: History) -> Iterator[Violation]:
    """The stored next run is that of an independent count, to the microsecond."""
    for key in history.requests:
        yield from _first_due(history, key)
    for key, task, leases in history.schedules():
        for lease in leases:
            for write in lease.of("committed"):
                wrong = _wrong_next(history, key, task, lease, write) if write.applied else ""
                if wrong:
                    yield Violation("next", write.sent.mono, f"after {lease} comes {wrong}")


def registry(history: History) -> Iterator[Violation]:
    """No GRANT after UNREG-ACK; after REG-ACK of a change only occurrences of the new schedule."""
    for _, task, leases in history.schedules():
        if not task.is_static:
            for lease in leases:
                wrong = _not_of_schedule(history, lease)
                if wrong:
                    yield Violation("registry", lease.granted.mono, f"{lease} was granted, {wrong}")


def _passed_over(history: History, key: str, task: TaskFacts, leases: Sequence[Lease]) -> Iterator[Violation]:
    """Finds occurrences that follow none that was settled, and are not the first one of what was registered."""
    follows = _registered(history, key).union(
        *(_may_follow(history, key, lease, write) for lease in leases for write in lease.of("committed"))
    )
    seen: set[int] = set()
    for lease in leases:
        is_new = lease.due not in seen and lease.due not in follows
        if is_new and not _may_be_anew(history, key, lease):
            message = f"{lease} was granted, and the one before it was not settled"
            yield Violation("no-loss", lease.granted.mono, message)
        seen.add(lease.due)
    row = history.rows.get(key)
    if task.is_static and row is not None and row.due not in follows | set(sorted(seen)[-1:]):
        message = f"{key!r} stands at {row.due} in the end, and the one before it was not settled"
        yield Violation("no-loss", row.mono, message)


def _settled_without_running(history: History, task: TaskFacts, lease: Lease) -> Iterator[Violation]:
    commits = lease.of("committed")
    if not task.at_most_once:
        # A body that fails counts as having run where its failure is to be committed.
        ran = _RAN | {"failed"} if task.group == "cancelled" else _RAN
        for write in commits:
            if not any(end.detail in ran and end.mono <= write.sent.mono for end in lease.ends):
                yield Violation("no-loss", write.sent.mono, f"{lease} was committed, and had not run")
    elif lease.commit is not None and not lease.starts:
        process = history.processes[lease.granted.process]
        since = max(lease.commit.mono, history.interrupted(process, lease.commit.mono, process.last) or 0)
        if not process.ended_abruptly or process.last > since + history.facts.lease * 1e6:
            yield Violation("no-loss", lease.commit.mono, f"{lease} was committed, and never started")


def _stood_still(history: History, task: TaskFacts, end: int) -> Iterator[Violation]:
    row = history.rows.get(task.name)
    if row is None:
        yield Violation("no-loss", history.facts.end, f"{task.name!r} is not in the store in the end")
    elif row.due is not None and history.mono(row.due) <= end:
        yield Violation("no-loss", row.mono, f"{task.name!r} due {row.due} was still not settled in the end")


def _never_ran(history: History, key: str, end: int) -> Iterator[Violation]:
    """Finds a once-off that is known to be stored, and was never settled."""
    for request in history.requests[key]:
        line = request.stored
        if request.asked.detail != _ONCE or line is None or line.due is None or history.mono(line.due) > end:
            continue
        if not any(lease.of("committed") for lease in history.leases.get(key, ())):
            yield Violation("no-loss", line.mono, f"{key!r} due {line.due} was stored, and never settled")


def _registered(history: History, key: str) -> set[int]:
    """Returns when a schedule was said to be due first: each time that it was stored, once if it is static."""
    stored = [request.stored.due for request in history.requests.get(key, ()) if request.stored is not None]
    task = history.task(key)
    once = task is not None and task.is_static
    return {due for due in (stored[:1] if once else stored) if due is not None}


def _may_be_anew(history: History, key: str, lease: Lease) -> bool:
    """Tells whether the schedule may have been stored by somebody who did not live to say so."""
    requests = history.requests.get(key, ())
    task = history.task(key)
    if task is not None and task.is_static:
        return not requests and lease is history.leases[key][0]
    return any(
        request.confirmed is None and not request.removes and history.store_time(request.asked) < lease.by
        for request in requests
    )


def _may_follow(history: History, key: str, lease: Lease, write: Write) -> set[int]:
    """Returns which occurrences may come when a commit was applied, or may have been."""
    if write.applied:
        until = None if write.answer is None else write.answer.until
        return set() if until is None or any(given.applied for given in lease.of("released")) else {until}
    counted = _counted(history, key, lease) | {skip.until for skip in lease.skips}
    return {due for due in counted if due is not None}


def _counted(history: History, key: str, lease: Lease) -> set[int | None]:
    """Returns what may be due after an occurrence, by an independent count; None where nothing is.

    For an instance there are several where nobody knows which of its schedules it had when it was claimed.
    """
    task = history.task(key)
    if task is not None and task.cron:
        return {next_due(task.cron, task.timezone, lease.due)}
    if task is not None and task.interval is not None:
        return {lease.due + task.interval}
    latest, in_doubt = history.in_force(lease)
    if latest is not None and not in_doubt and not latest.removes:
        asked = [latest.asked]
    else:
        asked = [request.asked for request in history.requests.get(key, ()) if not request.removes]
    intervals = {_interval(line.detail) for line in asked if history.store_time(line) < lease.by}
    return {None if interval is None else lease.due + interval for interval in intervals}


def _interval(detail: str) -> int | None:
    return None if detail == _ONCE else int(detail)


def _first_due(history: History, key: str) -> Iterator[Violation]:
    """Compares when a schedule is said to be due first with when that was asked for.

    With the interval that it had before, an instance stays due when it was.
    """
    before: set[str] = set()
    task = history.task(key)
    for request in history.requests[key]:
        stored = request.stored
        if task is None or stored is None or stored.due is None or stored.store is None:
            continue
        if task.is_static:
            is_right = _is_first(task, stored.due, stored.store)
        elif request.asked.detail in before:
            is_right = True
        else:
            is_right = _is_as_asked_for(history, request.asked, stored)
        if not is_right:
            yield Violation("next", stored.mono, f"{key!r} was stored as due {stored.due}, not as asked for")
        before.add(request.asked.detail)


def _is_first(task: TaskFacts, due: int, stored_at: int) -> bool:
    """Tells whether a static task that was stored by an instant can be due first at another."""
    if task.cron:
        return due == next_due(task.cron, task.timezone, due - 1) and due <= next_due(
            task.cron, task.timezone, stored_at
        )
    return task.interval is None or due - task.interval <= stored_at


def _is_as_asked_for(history: History, asked: Line, stored: Line) -> bool:
    assert stored.due is not None
    assert stored.store is not None
    interval = _interval(asked.detail)
    if interval is None:
        return stored.due == asked.due
    # The process goes by its estimate of the store's time, which is off for a while if the store hardly answers.
    since = asked.mono - round(history.facts.lease * 1e6)
    if history.interrupted(history.processes[stored.process], since, stored.mono) is not None:
        return True
    off = stored.store - history.store_time(stored)
    earliest, latest = history.store_time(asked) + min(0, off), history.store_time(stored) + max(0, off)
    return earliest - history.slack <= stored.due - interval <= latest + history.slack


def _wrong_next(history: History, key: str, task: TaskFacts, lease: Lease, write: Write) -> str:
    """Tells what is wrong with the next run that a commit has stored; "" if nothing is.

    1. A single occurrence: nothing follows.
    2. Otherwise it is due one interval later, or when the cron says,
    3. unless what was missed is left out: then at the first instant of the sequence that was still to come.
    """
    assert write.answer is not None
    until = write.answer.until
    allowed = _counted(history, key, lease)
    skip = next((skip for skip in reversed(lease.skips) if skip.mono <= write.sent.mono), None)
    if skip is None:
        late = task.fast_forward and until is not None and lease.ends and until < _known_at(history, lease.ends[-1])
        return (
            f"{until}, not {sorted(map(str, allowed))}" if until not in allowed else "what was missed" if late else ""
        )
    if not task.fast_forward or until is None or task.interval is None:
        return f"{until}, and what was missed is left out unasked"
    if skip.until != until or skip.due not in allowed or (until - lease.due) % task.interval:
        return f"{until}, which is none of its occurrences, or not what was told to be left out"
    if skip.store is not None and until - task.interval > skip.store:
        return f"{until}, and something that was not missed is left out"
    return ""


def _known_at(history: History, line: Line) -> int:
    """Returns the store's time of a line at the earliest, as its process may have estimated it."""
    at = history.store_time(line)
    return (at if line.store is None else min(at, line.store)) - history.slack


def _not_of_schedule(history: History, lease: Lease) -> str:
    """Tells why an instance must not be executed when it was claimed; "" if it may."""
    latest, in_doubt = history.in_force(lease)
    if in_doubt:
        return ""
    if latest is None:
        return "and nobody has registered it"
    if latest.removes:
        return f"and {latest.asked.process} had removed it"
    stored = latest.stored
    if stored is None or stored.due is None:
        return ""
    interval = _interval(latest.asked.detail)
    passed = lease.due - stored.due
    if passed == 0 or (interval is not None and passed > 0 and passed % interval == 0):
        return ""
    return f"and is none of the schedule that {latest.asked.process} has registered, due first {stored.due}"
