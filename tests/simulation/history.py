"""What happened in one simulated run, in one order: what the store did, what the engines told, what users asked for."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

from tests.simulation.machine import BEGINNING

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyscheduler.lease import Row


class Entry(NamedTuple):
    """One thing that happened.

    Attributes:
        at: When, by the store's clock, in microseconds since the epoch.
        who: The process, as "slot.incarnation"; "" for the simulator.
        kind: An `EventKind` for what an engine told; `grant` and `write` for what the store did; other words for what
            users asked and for the faults.
        key: The schedule.
        due: When the occurrence is due, in microseconds since the epoch.
        token: The token that was told.
        until: An instant that belongs to the kind, in microseconds since the epoch.
        call: The number of the user's call that it belongs to.
        detail: What else the kind has to say.
        before: The row as the store had it; None for none.
        after: The row as the store has it now; None for none.
    """

    at: int
    who: str
    kind: str
    key: str = ""
    due: int | None = None
    token: str = ""
    until: int | None = None
    call: int | None = None
    detail: str = ""
    before: Row | None = None
    after: Row | None = None

    def line(self) -> str:
        """Returns the entry as a line of a log; instants in seconds since the run began."""
        words = [f"{_seconds(self.at):12.6f}", f"{self.who or '-':5}", f"{self.kind:20}", self.key]
        words += [f"{name} {_seconds(at):.6f}" for name, at in (("due", self.due), ("until", self.until)) if at]
        words += [self.token and f"[{self.token}]", (self.call and f"call {self.call}") or "", self.detail]
        words += [f"{name} {_shown(row)}" for name, row in (("was", self.before), ("is", self.after)) if row]
        return " ".join(word for word in words if word)


def _seconds(at: int) -> float:
    return (at - BEGINNING) / 1e6


def _shown(row: Row) -> str:
    return f"(due {_seconds(row.due_at):.6f} claimable {_seconds(row.claimable_at):.6f} [{row.token}] {row.spec})"


class History:
    """The entries of a run.

    Args:
        now: The store's clock, in microseconds since the epoch.
    """

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self.entries: list[Entry] = []

    def note(
        self,
        who: str,
        kind: str,
        key: str = "",
        *,
        due: int | None = None,
        token: str = "",
        until: int | None = None,
        call: int | None = None,
        detail: str = "",
        before: Row | None = None,
        after: Row | None = None,
    ) -> None:
        """Appends an entry, of this moment."""
        self.entries.append(Entry(self._now(), who, kind, key, due, token, until, call, detail, before, after))

    def digest(self) -> str:
        """What two runs of one seed have in common, and hardly any two others."""
        text = "".join(f"{tuple(entry)}\n" for entry in self.entries)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
