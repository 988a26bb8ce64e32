"""The log of a soak: one line for each thing that happened, in every process, and what the checkers read of it.

A process appends each line with one `os.write` to a file of its own that is opened with O_APPEND, so a `kill -9` cuts
no line in two and loses none that was written. All clocks are CLOCK_MONOTONIC of one machine, so that the lines of
several processes have one order.
"""

from __future__ import annotations

import enum
import json
import os
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from anyscheduler.events import EventKind

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from pathlib import Path

    from anyscheduler import Event


class Kind(enum.StrEnum):
    """What a line says."""

    GRANT = enum.auto()
    """This process has leased the occurrence until `until`."""
    START = enum.auto()
    END = enum.auto()
    """The body has ended; `detail` is its outcome."""
    SENT = enum.auto()
    """A write is on its way; `detail` is what it is to be: committed, extended or released."""
    EXTEND_ACK = enum.auto()
    COMMIT_ACK = enum.auto()
    """Settled; `until` is when the schedule is due next, None if it has ended."""
    RELEASE = enum.auto()
    LOST = enum.auto()
    """What was SENT was refused or given up, as `detail` says."""
    SKIP = enum.auto()
    """Occurrences from `due` to before `until` are left out."""
    REG_SENT = enum.auto()
    """The app is about to register `key`; `detail` is its interval in microseconds, or "once"."""
    REG_ACK = enum.auto()
    """The engine stored a schedule; `due` is its first occurrence, `token` that of its row."""
    REG_DONE = enum.auto()
    """`schedule_task` has returned to the app; `detail` as in REG_SENT."""
    UNREG_SENT = enum.auto()
    UNREG_ACK = enum.auto()
    """`unschedule_task` has returned to the app, or the engine removed the schedule."""
    BEGIN = enum.auto()
    """A process has begun; `detail` is its slot, its loop and how far its clock is off."""
    SIGNAL = enum.auto()
    """The driver sent this process a signal, named by `detail`."""
    EXIT = enum.auto()
    """The driver saw this process end; `detail` is its exit code, negative for a signal."""
    FAULT = enum.auto()
    """The driver broke something, named by `detail`; `until` is None."""
    HEALED = enum.auto()
    """The fault that `detail` names is over."""
    FAILPOINT = enum.auto()
    """A process came through a window with a fault in it; `detail` is "window action"."""
    OPEN = enum.auto()
    """A sample of this process; `detail` is JSON: open bodies, resident KiB, threads, store connections."""
    ROW = enum.auto()
    """After draining the store still has this row; `until` is when it is claimable, `detail` its task."""
    ORPHAN = enum.auto()
    """After draining the store has an index entry without its row, or the reverse, as `detail` says."""


OF_EVENT: Final = {
    EventKind.CLAIMED: Kind.GRANT,
    EventKind.STARTED: Kind.START,
    EventKind.ENDED: Kind.END,
    EventKind.SENT: Kind.SENT,
    EventKind.EXTENDED: Kind.EXTEND_ACK,
    EventKind.COMMITTED: Kind.COMMIT_ACK,
    EventKind.RELEASED: Kind.RELEASE,
    EventKind.LOST: Kind.LOST,
    EventKind.SKIPPED: Kind.SKIP,
    EventKind.SCHEDULED: Kind.REG_ACK,
    EventKind.UNSCHEDULED: Kind.UNREG_ACK,
}


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that happened.

    Attributes:
        kind: What.
        process: Which process, as "slot.incarnation": "3.12" is the thirteenth one of slot 3; "driver" for the driver.
        mono: When, CLOCK_MONOTONIC in microseconds.
        store: The store's time at that moment, in microseconds since the epoch, as the engine estimated or was told
            it; None where no engine said it.
        key: The schedule.
        due: When the occurrence is due, in microseconds since the epoch.
        token: The token of the row.
        until: An instant that belongs to the kind, in microseconds since the epoch.
        detail: What else the kind has to say.
    """

    kind: Kind
    process: str
    mono: int
    store: int | None = None
    key: str = ""
    due: int | None = None
    token: str = ""
    until: int | None = None
    detail: str = ""


class LogWriter:
    """Appends lines to one file, each with one write."""

    def __init__(self, path: Path, process: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._process = process

    def event(self, event: Event) -> None:
        """Writes what the engine told: the callable for `Scheduler(on_event=...)`."""
        self.write(
            OF_EVENT[event.kind],
            store=micros(event.at),
            key=event.key,
            due=micros(event.scheduled_at),
            token=event.fence,
            until=micros(event.until),
            detail=event.detail,
        )

    def write(self, kind: Kind, *, process: str = "", **more: str | int | None) -> None:
        """Writes a line, of this moment; `process` where it is about another one."""
        line = {"kind": kind, "process": process or self._process, "mono": time.monotonic_ns() // 1000, **more}
        os.write(self._file, json.dumps(line, separators=(",", ":")).encode() + b"\n")

    def close(self) -> None:
        """Closes the file."""
        os.close(self._file)


def read_log(paths: Iterable[Path]) -> list[Line]:
    """Reads the files of all processes, in order of time."""
    lines = [
        Line(**{**fields, "kind": Kind(fields["kind"])})
        for path in paths
        for fields in map(json.loads, path.read_text().splitlines())
    ]
    return sorted(lines, key=lambda line: line.mono)


def micros(moment: datetime | None) -> int | None:
    """Microseconds since the epoch, exactly; None for None."""
    if moment is None:
        return None
    return round(moment.timestamp() * 1e6)


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """What the checkers know of a static task, or of all instances of a dynamic one.

    Attributes:
        name: The name of the task. Its schedule's key is this name if it is static, and begins with it and what
            `anyscheduler.task` puts between the two if it is dynamic.
        group: What it is in the load: plain, cron, heartbeat, once, churn, corrupt, raising, cancelled.
        at_most_once: The guarantee that it asks for; at least once otherwise.
        interval: Microseconds between its occurrences; None for crons, and for once-off and dynamic ones, whose REG
            lines say it.
        heartbeat: Whether its lease is extended while it runs.
        body_seconds: How long its body takes.
        fast_forward: Whether it leaves out what it has missed.
        cron: When it is due, if not at an interval; "" for none.
        timezone: The zone that its cron goes by; "" for none.
    """

    name: str
    group: str
    at_most_once: bool
    interval: int | None
    heartbeat: bool = False
    body_seconds: float = 0.0
    fast_forward: bool = False
    cron: str = ""
    timezone: str = ""

    @property
    def is_static(self) -> bool:
        """Whether it is a schedule of its own, stored when the app starts."""
        return self.interval is not None or bool(self.cron)


@dataclass(frozen=True, slots=True)
class Facts:
    """What the checkers know of a run besides its log; saved beside the logs as `facts.json`.

    Attributes:
        store: sqlite, redis or postgres.
        loop: asyncio or trio.
        seed: What the plan came from.
        seconds: How long faults and load lasted.
        begin: When the load began, CLOCK_MONOTONIC in microseconds.
        end: When the last fault was over and the load ended; draining follows.
        lease: Length of a lease in seconds.
        poll_interval: In seconds.
        concurrency_limit: The greatest number of bodies that one process may have open.
        tasks: The load.
        mutant: The name of the planted fault; "" for the product as it is.
    """

    store: str
    loop: str
    seed: int
    seconds: float
    begin: int
    end: int
    lease: float
    poll_interval: float
    concurrency_limit: int
    tasks: tuple[TaskFacts, ...]
    mutant: str = ""

    def save(self, path: Path) -> None:
        """Writes them as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def read(cls, path: Path) -> Facts:
        """Reads what `save` wrote."""
        fields = json.loads(path.read_text())
        fields["tasks"] = tuple(TaskFacts(**task) for task in fields["tasks"])
        return cls(**fields)


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was not kept.

    Attributes:
        invariant: Its name in the table: no-loss, once, cause, one-lease, final, next, clean, not-early, fair, bound,
            stop, heal, registry, poison, quiet.
        mono: When it showed, CLOCK_MONOTONIC in microseconds.
        message: Which schedule, which occurrence, which processes, in one line.
    """

    invariant: str
    mono: int
    message: str
