"""What users asked for, and what became of it: the part of the invariants that is about schedules coming and going."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tests.simulation.load import Schedule

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyscheduler.lease import Row
    from tests.simulation.history import Entry

_ERROR = 50_000
"""By how many microseconds a process may mistake the store's time that has met with no fault."""

_GROSS_ERROR = 20_000_000
"""The same for one whose requests took long, or which was suspended between looking at the clock and writing."""


class _Call(NamedTuple):
    """A call of `schedule_task` or `unschedule_task`.

    Attributes:
        place: The place of the entry that began it.
        at: When that was.
        force: Whether it was told to replace whatever is there.
        stored: The row as it was then.
    """

    place: int
    at: int
    force: bool
    stored: Row | None


class Registrations:
    """The calls of all users.

    Args:
        found: Is told of violations.
    """

    def __init__(self, found: Callable[[str, str], None]) -> None:
        self._found = found
        self._calls: dict[int, _Call] = {}
        self._stored: set[tuple[str, int]] = set()
        """The calls that have been stored, with their key."""
        self._gone: dict[str, int] = {}
        """The place of the last entry at which a key was not in the store."""
        self._unregistering: set[tuple[str, str]] = set()
        """Who has asked for the removal of which key."""

    def begun(self, place: int, entry: Entry, stored: Row | None) -> None:
        """A user has asked for something."""
        assert entry.call is not None
        self._calls[entry.call] = _Call(place, entry.at, entry.detail == "force", stored)
        if entry.kind == "asks to unregister":
            self._unregistering.add((entry.who, entry.key))
            if stored is None:
                self._gone[entry.key] = place

    def answered(self, entry: Entry) -> None:
        """A user was answered."""
        assert entry.call is not None
        if entry.detail != "done":
            return
        if entry.kind == "register answered":
            if (entry.key, entry.call) not in self._stored:
                self._found("registry", f"{entry.key} was never stored as it was registered")
        elif self._gone.get(entry.key, -1) < self._calls[entry.call].place:
            self._found("registry", f"{entry.key} was never removed")

    def gone(self, place: int, key: str) -> None:
        """A key is not in the store any more."""
        self._gone[key] = place

    def removed(self, entry: Entry) -> None:
        """A row was deleted that was not committed."""
        if not self.is_unwanted(entry):
            self._found("registry", f"{entry.key} was removed, and nobody asked for that")

    def is_unwanted(self, entry: Entry) -> bool:
        """Tells whether the process that has removed a row was asked to."""
        return (entry.who, entry.key) in self._unregistering

    def is_new(self, row: Row) -> bool:
        """Tells whether a row comes from a call that has not been stored yet."""
        call = Schedule(row).call
        return call is not None and (row.key, call) not in self._stored

    def stored(self, entry: Entry, after: Row, *, was_held: bool, may_err: bool) -> bool:
        """A schedule was registered.

        Args:
            entry: The write.
            after: The row that it has made.
            was_held: Whether the row that it has replaced was under a lease when it was granted last.
            may_err: Whether the process may mistake the time by seconds.

        Returns whether it begins anew, with occurrences of its own.
        """
        before = entry.before
        number = Schedule(after).call
        if number is None:
            if before is not None or after.key in self._gone:
                self._found("registry", f"{after.key} was registered a second time")
            return True
        call = self._calls.get(number)
        if call is None:
            self._found("registry", f"{after.key} was registered, and nobody asked for that")
            return True
        self._stored.add((after.key, number))
        error = _GROSS_ERROR if may_err else _ERROR
        if before is not None and not call.force:
            self._check_lease(entry, before, call, error if was_held else None)
            if Schedule(before).trigger == Schedule(after).trigger:
                if (before.due_at, before.claimable_at) != (after.due_at, after.claimable_at):
                    self._found("registry", f"{after.key} was due at {before.due_at}, and is at {after.due_at} now")
                return False
        if not _is_first(after, call.at - error, entry.at + error):
            self._found("registry", f"{after.key} is due for the first time at {after.due_at}")
        return True

    def _check_lease(self, entry: Entry, before: Row, call: _Call, error: int | None) -> None:
        """What is executed stays as it is, unless the lease had ended at some moment of the call."""
        if error is None or call.stored is None or call.stored.token != before.token:
            return
        if min(call.stored.claimable_at, before.claimable_at) > entry.at + error:
            self._found("registry", f"{entry.key} was replaced while it was executed")


def _is_first(row: Row, earliest: int, latest: int) -> bool:
    """Tells whether a row is due for the first time, after a registration between two instants."""
    schedule = Schedule(row)
    if schedule.is_once:
        return row.due_at == schedule.execute_at
    if schedule.is_cron:
        return row.due_at % schedule.every == 0 and earliest < row.due_at <= latest + schedule.every
    return earliest <= row.due_at - schedule.every <= latest
