"""What a log tells of one claim, of one request for a schedule, and of one process.

Knows: lines. Must not know: how they are put together, what has to hold.

A process that was killed may have done what it had no time to write; so a write that was sent and has no answer may
have been applied or not, at any time after.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.soak.log import Kind

if TYPE_CHECKING:
    from tests.soak.log import Line


@dataclass(slots=True)
class Write:
    """A change that was sent to the store for a lease; without an answer nobody knows whether it was applied."""

    sent: Line
    answer: Line | None = None

    @property
    def kind(self) -> str:
        """What it is to be: committed, extended or released."""
        return self.sent.detail

    @property
    def applied(self) -> bool:
        """Whether the store has said so."""
        return self.answer is not None and self.answer.kind is not Kind.LOST


@dataclass(slots=True)
class Lease:
    """One claim of one occurrence, and all that its process did with it.

    Attributes:
        granted: The line of the claim.
        at: The store's time that the claim went by: what was due and free then could be claimed.
        by: The store's time by which it was carried out: the same on Redis, while in another store a clock may be read
            first, others be waited for, and the claim be carried out then.
        starts: Its executions; more than one is a fault.
        ends: Their ends.
        writes: What was sent for it, in order.
        skips: What its commit was to leave out.
    """

    granted: Line
    at: int
    by: int
    starts: list[Line] = field(default_factory=list)
    ends: list[Line] = field(default_factory=list)
    writes: list[Write] = field(default_factory=list)
    skips: list[Line] = field(default_factory=list)

    @property
    def due(self) -> int:
        """Which occurrence."""
        assert self.granted.due is not None
        return self.granted.due

    @property
    def until(self) -> int:
        """The end of the lease, as far as the store has confirmed it."""
        return self.until_at(None)

    def until_at(self, line: Line | None) -> int:
        """Returns the end of the lease as its process knew it when it wrote `line`; None for its last word."""
        until = self.granted.until
        for write in self.writes:
            if line is not None and write.answer is not None and write.answer.mono > line.mono:
                break
            if write.answer is not None and write.answer.kind is Kind.EXTEND_ACK:
                until = write.answer.until
        assert until is not None
        return until

    def of(self, kind: str) -> list[Write]:
        """Returns the writes that are to be committed, extended or released."""
        return [write for write in self.writes if write.kind == kind]

    @property
    def commit(self) -> Line | None:
        """The confirmation of its commit, unless that was taken back: at most once, before the body began."""
        for write in self.of("committed"):
            if write.applied and not self.of("released"):
                return write.answer
        return None

    @property
    def was_cancelled(self) -> bool:
        """Whether its body was ended by a hard stop."""
        return any(end.detail == "cancelled" for end in self.ends)

    def __str__(self) -> str:
        return f"{self.granted.key!r} due {self.due} by {self.granted.process} (token {self.granted.token})"


@dataclass(slots=True)
class Request:
    """One call of `schedule_task` or `unschedule_task`, or a static task that was stored.

    Attributes:
        asked: When the app called; for a static task when it was stored.
        stored: What the engine stored, or that it removed something.
        done: When the app heard that all is well.
    """

    asked: Line
    stored: Line | None = None
    done: Line | None = None

    @property
    def removes(self) -> bool:
        """Whether it takes the schedule away."""
        return self.asked.kind is Kind.UNREG_SENT

    @property
    def confirmed(self) -> Line | None:
        """The first line that says that it took effect; None if nobody knows."""
        return self.stored or self.done


@dataclass(slots=True)
class Process:
    """One process, all times CLOCK_MONOTONIC in microseconds.

    Attributes:
        name: As in the log.
        begun: When it was started.
        first: When it wrote its first line.
        ended: When the driver saw its end; None if it did not.
        code: Its exit code then.
        told: When it was told to end, each time.
        was_killed: Whether the plan has killed it.
        pauses: From when to when it was stopped.
        last: When it wrote its last line.
    """

    name: str
    begun: int = 0
    first: int | None = None
    ended: int | None = None
    code: int | None = None
    told: list[int] = field(default_factory=list)
    was_killed: bool = False
    pauses: list[tuple[int, int]] = field(default_factory=list)
    last: int = 0

    @property
    def ended_abruptly(self) -> bool:
        """Whether it had no time to put its things in order: killed, told three times, or gone without a trace."""
        return self.code is None or self.code < 0 or len(self.told) > 2
