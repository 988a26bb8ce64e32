"""When occurrences start: not-early, fair, poison.

Knows: when each occurrence was due, and when it was first started. Must not know: who ran it, what came of it.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import chain
from statistics import median
from typing import TYPE_CHECKING, Final

from tests.soak.invariants.history import TOLERANCE
from tests.soak.log import Violation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tests.soak.invariants.history import History
    from tests.soak.invariants.records import Lease

_TIMES_MEDIAN: Final = 3
_ENOUGH: Final = 20
"""How many occurrences a task needs before its p99 says something."""

_POISONED: Final = 1.1
_TWICE: Final = 2
_NOTHING: Final = 0.05
"""Of so many seconds of lateness nobody speaks."""

_REPORTED: Final = "set aside for a minute, the stored row cannot be executed"


def not_early(history: History) -> Iterator[Violation]:
    """No START before the due time by the store's time, but for 10 ms for the estimate of the clock."""
    for _, _, leases in history.schedules():
        for lease in leases:
            for start in lease.starts:
                early = lease.due - history.store_time(start)
                if early > TOLERANCE:
                    yield Violation("not-early", start.mono, f"{lease} was started {early / 1e6:.3f} s early")


def fair(history: History) -> Iterator[Violation]:
    """Among tasks of one kind, the slowest one's p99 lateness is at most three times the median task's.

    What a process held that was killed waits for the end of its lease, which is bad luck and not unfair: so much
    lateness counts for the median at least.
    """
    bad_luck = history.facts.lease + history.facts.poll_interval
    of_kind: dict[tuple[str, bool, bool], dict[str, float]] = defaultdict(dict)
    for key, task, leases in history.schedules():
        late = [seconds for _, seconds in _lateness(history, leases)]
        if task.interval is not None and len(late) >= _ENOUGH:
            of_kind[task.group, task.at_most_once, task.fast_forward][key] = p99(late)
    for p99s in of_kind.values():
        allowed = _TIMES_MEDIAN * max(bad_luck, median(p99s.values())) + _NOTHING
        for key, seconds in p99s.items():
            if seconds > allowed:
                message = (
                    f"{key!r} has a p99 lateness of {seconds:.3f} s, and tasks like it {median(p99s.values()):.3f} s"
                )
                yield Violation("fair", history.facts.end, message)


def poison(history: History, outputs: Mapping[str, str]) -> Iterator[Violation]:
    """The corrupt row changes nobody's p99 by more than 10 %, is reported, and is still there."""
    corrupt = {task.name for task in history.facts.tasks if task.group == "corrupt"}
    for task in corrupt:
        if not any(key.partition(":")[0] == task for key in history.rows):
            yield Violation("poison", history.facts.end, f"the corrupt row of {task!r} is gone")
    met = [lease for key, leases in history.leases.items() if key.partition(":")[0] in corrupt for lease in leases]
    if corrupt and not met:
        yield Violation("poison", history.facts.end, "nobody has met the corrupt row")
    for lease in met:
        yield from _not_reported(lease, outputs)
    yield from _left_with(history, met)
    yield from _slowed_down(history, met)


def p99(values: Sequence[float]) -> float:
    """Returns the least of the values that 99 % of them do not exceed."""
    return sorted(values)[-(-99 * len(values) // 100) - 1]


def _lateness(history: History, leases: Sequence[Lease]) -> Iterator[tuple[int, float]]:
    """Yields when each occurrence was first started, by the store's time, and how many seconds late that was."""
    seen: set[int] = set()
    for lease in leases:
        if lease.starts and lease.due not in seen:
            seen.add(lease.due)
            at = history.store_time(lease.starts[0])
            yield at, (at - lease.due) / 1e6


def _not_reported(lease: Lease, outputs: Mapping[str, str]) -> Iterator[Violation]:
    """It is reported before it is set aside."""
    key, process = lease.granted.key, lease.granted.process
    for start in lease.starts:
        yield Violation("poison", start.mono, f"{lease} is corrupt, and was started")
    said = any(_REPORTED in line and key in line for line in outputs.get(process, "").splitlines())
    if lease.of("released") and not said:
        yield Violation("poison", lease.granted.mono, f"{process} has met {key!r} and did not report it")


def _left_with(history: History, met: Sequence[Lease]) -> Iterator[Violation]:
    """Finds what was claimed together with the corrupt row, and then left lying by a process that went on."""
    for poisoned in met:
        process = history.processes[poisoned.granted.process]
        over = poisoned.granted.mono + round(history.facts.lease * 1e6)
        if process.last < over or history.interrupted(process, poisoned.granted.mono, over) is not None:
            continue
        for lease in history.by_process[process.name]:
            if lease.granted.token == poisoned.granted.token and not lease.starts and not lease.writes:
                yield Violation("poison", over, f"{lease} was claimed with {poisoned.granted.key!r}, and left lying")


def _slowed_down(history: History, met: Sequence[Lease]) -> Iterator[Violation]:
    """Compares the lateness of all with that of those who started nowhere near the corrupt row.

    Where it was met three times or more, it has to have slowed others down more than once: the one time can have
    coincided with something else, as with a stop of all processes.
    """
    static = (leases for _, task, leases in history.schedules() if task.is_static)
    late = list(chain.from_iterable(_lateness(history, leases) for leases in static))
    times = _times_met(history, met)
    near = [[seconds for at, seconds in late if begin <= at <= end] for begin, end in times]
    apart = [seconds for at, seconds in late if not any(begin <= at <= end for begin, end in times)]
    if len(apart) < _ENOUGH:
        return
    left_out = range(len(near)) if len(near) > _TWICE else [-1]
    with_it = min(
        p99([*apart, *chain.from_iterable(own for number, own in enumerate(near) if number != out)]) for out in left_out
    )
    without_it = p99(apart)
    if with_it > _POISONED * without_it + _NOTHING:
        message = f"the p99 lateness is {with_it:.3f} s, and {without_it:.3f} s where the corrupt row is not near"
        yield Violation("poison", history.facts.end, message)


def _times_met(history: History, met: Sequence[Lease]) -> list[tuple[int, int]]:
    """Returns from when to when the corrupt row was under a lease; as one time what follows within another lease."""
    lease = round(history.facts.lease * 1e6)
    times: list[tuple[int, int]] = []
    for at in sorted(lease.at for lease in met):
        begin = times.pop()[0] if times and at <= times[-1][1] + lease else at
        times.append((begin, at + lease))
    return times
