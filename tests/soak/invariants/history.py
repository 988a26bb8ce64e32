"""What a log tells, in order: who held which occurrence and what came of it, who scheduled what, what befell whom.

Knows: lines and facts. Must not know: what has to hold.

A process may be late with its line. So what happened first is read from the store's time where a line has it, and never
from the order of lines of two processes.
"""

from __future__ import annotations

from collections import defaultdict, deque
from functools import cached_property
from statistics import median_low
from typing import TYPE_CHECKING, Final

from tests.soak.invariants.records import Lease, Process, Request, Write
from tests.soak.log import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tests.soak.log import Facts, Line, TaskFacts

TOLERANCE: Final = 10_000
"""By how many microseconds the store's time may be off where it is estimated."""

_RECENTLY: Final = 1_000_000
"""For how many microseconds after it the start of a process tells how slow the machine is."""

_SAME_CLOCK: Final = 1_000_000
"""Processes whose clocks are further apart, in microseconds, are not taken to have the same one."""

_NOTICED_AFTER: Final = 500_000
"""So many microseconds after a process has stopped itself the driver has written that, at the latest."""

_ANSWERS: Final = {Kind.EXTEND_ACK, Kind.COMMIT_ACK, Kind.RELEASE, Kind.LOST}
_OF_LEASES: Final = {Kind.START, Kind.END, Kind.SENT, Kind.SKIP} | _ANSWERS
_OF_REQUESTS: Final = {Kind.REG_SENT, Kind.REG_ACK, Kind.REG_DONE, Kind.UNREG_SENT, Kind.UNREG_ACK}
_OF_THE_DRIVER: Final = {Kind.BEGIN, Kind.EXIT, Kind.SIGNAL}
_PAUSE: Final = "stop "
_AT_ONCE: Final = "redis"
"""The store that reads its clock in the moment in which it claims."""


class History:
    """A log in order.

    Attributes:
        facts: What is known besides.
        lines: The log.
        leases: The leases of each schedule, in the order of the times that they went by.
        requests: Who asked for each schedule to be stored or removed, in the order in which they asked.
        processes: The processes, by name.
        outages: From when to when the store was out of reach for all, CLOCK_MONOTONIC in microseconds.
        unleased: Lines of executions whose lease no line tells of, and answers to what was not sent.
    """

    def __init__(self, lines: Sequence[Line], facts: Facts) -> None:
        self.facts = facts
        self.lines = lines
        self._ahead = _ahead(lines)
        self._tasks = {task.name: task for task in facts.tasks}
        self._of_token: dict[tuple[str, str], Lease] = {}
        self._asking: dict[tuple[str, str], Request] = {}
        self.leases: dict[str, list[Lease]] = defaultdict(list)
        self.requests: dict[str, list[Request]] = defaultdict(list)
        self.processes: dict[str, Process] = {}
        self.outages: list[tuple[int, int]] = []
        self.unleased: list[Line] = []
        for line in lines:
            self._take(line)
        for leases in self.leases.values():
            leases.sort(key=lambda lease: (lease.at, lease.by))
        self._pair_faults()

    def store_time(self, line: Line) -> int:
        """Returns the store's time when a line was written, whatever its process took it for."""
        return line.mono + self._ahead

    def mono(self, store: int) -> int:
        """Returns CLOCK_MONOTONIC in microseconds at a moment of the store's time."""
        return store - self._ahead

    def task(self, key: str) -> TaskFacts | None:
        """Returns what is known of the task of a schedule; None for one that is not of the load."""
        return self._tasks.get(key.partition(":")[0])

    def schedules(self, *, at_most_once: bool | None = None) -> Iterator[tuple[str, TaskFacts, list[Lease]]]:
        """Yields the schedules of the load that may be executed, with their leases."""
        for key, leases in self.leases.items():
            task = self.task(key)
            if task is not None and task.group != "corrupt" and at_most_once in {None, task.at_most_once}:
                yield key, task, leases

    @cached_property
    def rows(self) -> dict[str, Line]:
        """What the store still had in the end, by key."""
        return {line.key: line for line in self.lines if line.kind is Kind.ROW}

    @cached_property
    def start_up(self) -> int:
        """How long a process takes to begin, in microseconds: it tells how slow the machine is."""
        taken = [first - begun for begun, first in self._start_ups]
        return median_low(taken) if taken else 0

    def start_up_at(self, mono: int) -> int:
        """Returns the same for a moment: the longest start that was under way in the second before, or the usual one.

        A soak starts a process every second or so, and where several start at once they keep all others waiting.
        """
        taken = [first - begun for begun, first in self._start_ups if begun <= mono and first >= mono - _RECENTLY]
        return max([self.start_up, *taken])

    @cached_property
    def _start_ups(self) -> list[tuple[int, int]]:
        """When each process was started, and when it wrote its first line."""
        return [
            (process.begun, process.first)
            for process in self.processes.values()
            if process.begun and process.first is not None
        ]

    @cached_property
    def slack(self) -> int:
        """By how many microseconds what a process does may come later than it would, for the sake of the machine."""
        return TOLERANCE + self.start_up // 10

    def slack_at(self, mono: int) -> int:
        """Returns the same for a moment, in microseconds of CLOCK_MONOTONIC."""
        return TOLERANCE + self.start_up_at(mono) // 10

    @cached_property
    def by_process(self) -> dict[str, list[Lease]]:
        """The leases of each process, in the order of its log."""
        found: dict[str, list[Lease]] = defaultdict(list)
        for lease in self._of_token.values():
            found[lease.granted.process].append(lease)
        return found

    def in_force(self, lease: Lease) -> tuple[Request | None, bool]:
        """Tells what a schedule was when it was claimed.

        Args:
            lease: That claim.

        Returns:
            The last request before that which is known to have taken effect, and whether others may have come after it
            unnoticed: those without an answer.

        1. Asked for later: of no concern.
        2. Confirmed before: it counts, and no older write that is still on its way can apply to what it stored. Removed
           it, an older one that was to store something anew can.
        3. Anything else may have taken effect or not.
        """
        latest: Request | None = None
        in_doubt = may_come_anew = False
        for request in self.requests.get(lease.granted.key, ()):
            if self.store_time(request.asked) >= lease.by:
                break
            confirmed = request.confirmed
            if confirmed is not None and self.store_time(confirmed) < lease.at:
                latest = request
                in_doubt = request.removes and may_come_anew
            else:
                in_doubt = True
                may_come_anew |= latest is None or latest.removes
        return latest, in_doubt

    def interrupted(self, process: Process, since: int, until: int) -> int | None:
        """Returns when the last pause of a process, or outage for all, was over that touched a span of time.

        All times are CLOCK_MONOTONIC in microseconds; None if there was none.
        """
        return _last_end((*process.pauses, *self.outages), since, until)

    def away(self, since: int, until: int) -> int | None:
        """Returns the same of outages for all alone."""
        return _last_end(self.outages, since, until)

    def _take(self, line: Line) -> None:
        process = self._process(line.process)
        match line.kind:
            case Kind.GRANT:
                assert line.store is not None
                # A process that claims by a clock of its own would tell its own time here.
                at = min(line.store, self.store_time(line) + TOLERANCE)
                lease = Lease(line, at, at if self.facts.store == _AT_ONCE else self.store_time(line))
                self._of_token[line.key, line.token] = lease
                self.leases[line.key].append(lease)
            case kind if kind in _OF_LEASES:
                self._take_of_lease(line)
            case kind if kind in _OF_REQUESTS:
                self._take_request(line)
            case Kind.BEGIN:
                process.begun = line.mono
            case Kind.EXIT:
                process.ended, process.code = line.mono, int(line.detail)
            case Kind.SIGNAL:
                if line.detail == "SIGTERM":
                    process.told.append(line.mono)
                process.was_killed |= line.detail == "SIGKILL"
            case Kind.FAILPOINT:
                process.was_killed |= line.detail.endswith(" kill")
            case _:
                pass
        if line.kind not in _OF_THE_DRIVER:
            process.last = line.mono
            if process.first is None:
                process.first = line.mono

    def _take_of_lease(self, line: Line) -> None:
        lease = self._of_token.get((line.key, line.token))
        if lease is None or lease.granted.process != line.process:
            self.unleased.append(line)
            return
        match line.kind:
            case Kind.START:
                lease.starts.append(line)
            case Kind.END:
                lease.ends.append(line)
            case Kind.SKIP:
                lease.skips.append(line)
            case Kind.SENT:
                lease.writes.append(Write(line))
            case _ if lease.writes and lease.writes[-1].answer is None:
                lease.writes[-1].answer = line
            case _:
                self.unleased.append(line)

    def _take_request(self, line: Line) -> None:
        asker = (line.process, line.key)
        request = self._asking.get(asker)
        if line.kind in {Kind.REG_SENT, Kind.UNREG_SENT}:
            self._asking[asker] = request = Request(line)
            self.requests[line.key].append(request)
        elif line.kind is Kind.REG_ACK or line.store is not None:
            if request is None:
                request = Request(line)
                self.requests[line.key].append(request)
            request.stored = line
        elif request is not None:
            request.done = line

    def _process(self, name: str) -> Process:
        process = self.processes.get(name)
        if process is None:
            process = self.processes[name] = Process(name)
        return process

    def _pair_faults(self) -> None:
        """Finds from when to when faults lasted; one that was never healed ended with its process, or with the log."""
        last = self.lines[-1].mono if self.lines else 0
        under_way: dict[str, deque[int]] = defaultdict(deque)
        spans: list[tuple[str, int, int]] = []
        for line in self.lines:
            if line.kind is Kind.FAULT:
                under_way[line.detail].append(line.mono)
            elif line.kind is Kind.HEALED and under_way[line.detail]:
                spans.append((line.detail, under_way[line.detail].popleft(), line.mono))
        spans += [(what, begin, last) for what, begun in under_way.items() for begin in begun]
        for what, begin, end in spans:
            if what.startswith(_PAUSE):
                process = self._process(what.removeprefix(_PAUSE))
                process.pauses.append((begin - _NOTICED_AFTER, min(end, process.ended or end)))
            else:
                self.outages.append((begin, end))


def _last_end(spans: Iterable[tuple[int, int]], since: int, until: int) -> int | None:
    return max((end for begin, end in spans if begin <= until and end >= since), default=None)


def _ahead(lines: Sequence[Line]) -> int:
    """Returns how far the store's clock is ahead of CLOCK_MONOTONIC, in microseconds.

    A claim was carried out before its process wrote so: the line that came soonest is the best. Of processes that claim
    by another clock than most do, none counts.
    """
    soonest: dict[str, int] = {}
    for line in lines:
        if line.kind is Kind.GRANT and line.store is not None:
            ahead = line.store - line.mono
            soonest[line.process] = max(ahead, soonest.get(line.process, ahead))
    if not soonest:
        return 0
    usual = median_low(soonest.values())
    return max(ahead for ahead in soonest.values() if abs(ahead - usual) < _SAME_CLOCK)
