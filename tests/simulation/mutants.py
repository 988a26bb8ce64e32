"""Faults that are planted into the engine or the store: a simulator that does not find them finds nothing.

Each replaces the one function that it is about, for as long as a `with` block takes.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

import trio

from anyscheduler import lease, registry, trigger
from anyscheduler.early import EarlyRows
from anyscheduler.holding import Holder
from anyscheduler.memory import MemoryRepository
from anyscheduler.settlement import Settlement
from anyscheduler.task import ExecutionMode
from anyscheduler.timekeeper import Timekeeper

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from anyscheduler.lease import Change, Row
    from anyscheduler.repository import Claimed, ClaimRequest
    from anyscheduler.task import Task

_STALE: Final = 3_000_000
"""How old a reading of the clock is that was taken too early, in microseconds."""

_HOUR: Final = 3_600_000_000


@dataclass(frozen=True)
class Mutant:
    """A planted fault.

    Attributes:
        fault: What the package does with it.
        found_by: The invariants that are about this; one of them has to find it.
        planted: Plants it for as long as the `with` block takes.
    """

    fault: str
    found_by: frozenset[str]
    planted: Callable[[], AbstractContextManager[object]]


def _replaced(owner: Any, name: str, make: Callable[[Any], Any]) -> Callable[[], AbstractContextManager[object]]:
    """Returns what replaces a function; `make` is given the real one, and returns the other one."""
    return lambda: mock.patch.object(owner, name, make(getattr(owner, name)))


def _without_token_check(real: Any, *, extensions: bool) -> Any:
    def apply(self: MemoryRepository, change: Change) -> bool:
        stored = self._rows.get(change.key)
        if stored is not None and change.expected is not None:
            is_extension = change.row is not None and change.row.token == change.expected
            if is_extension is extensions:
                change = change._replace(expected=stored.token)
        return bool(real(self, change))

    return apply


def _without_lease_check(real: Any) -> Any:
    number = itertools.count()

    async def claim(self: Any, requests: Sequence[ClaimRequest], limit: int, now: int, *token: Any) -> Claimed:
        # Every twentieth claim, as if all leases had ended.
        at = now if next(number) % 20 else now + _HOUR
        found: Claimed = await real(self, requests, limit, at, *token)
        return found

    return claim


def _without_lock(real: Any) -> Any:
    async def claim(self: MemoryRepository, *given: Any) -> Claimed:
        before = self._rows.copy()
        await trio.sleep(0.01)
        meanwhile = self._rows.copy()
        for row in before.values():
            if row.key in self._rows:
                self._put(row)
        claimed: Claimed = await real(self, *given)
        taken = {row.key for row in claimed.rows}
        for row in meanwhile.values():
            if row.key not in taken:
                self._put(row)
        return claimed

    return claim


def _counted_from_now(real: Any) -> Any:
    def next_due(scheduled: Any, _last: int, now: int, *, fast_forward: bool) -> Any:
        return real(scheduled, now, now, fast_forward=fast_forward)

    return next_due


def _advanced_after_the_start() -> AbstractContextManager[object]:
    def first_write(_self: Holder, _task: Task, _row: Row) -> None:
        return None

    def settle(self: Holder, execution: Any, outcome: Any) -> None:
        if execution.task.execution_mode is ExecutionMode.AT_MOST_ONCE:
            self._submit(execution.row, None, execution)
        else:
            real(self, execution, outcome)

    real = Holder.settle
    return mock.patch.multiple(Holder, first_write=first_write, settle=settle)


def _started_whatever_the_lease(_real: Any) -> Any:
    async def write_first(self: Holder, execution: Any, work_out: Any) -> bool:
        change = work_out(self._now(), self._token())
        written = await self._written(execution, lambda _now, _token: change)
        if written is not None and execution.task.execution_mode is ExecutionMode.AT_LEAST_ONCE:
            execution.row = written.row
        return written is not None

    return write_first


def _given_up(real: Any) -> Any:
    def still_worth_it(self: Settlement, writes: Any) -> Any:
        for entry, change in writes.values():
            entry.done(change, None)
        return real(self, {})

    return still_worth_it


MUTANTS: Final = {
    "commit_unguarded": Mutant(
        "commits and releases apply whatever token the row carries",
        frozenset({"no-loss", "next", "final"}),
        _replaced(MemoryRepository, "_apply", partial(_without_token_check, extensions=False)),
    ),
    "extension_unguarded": Mutant(
        "an extension applies when somebody else has the lease",
        frozenset({"one-lease", "ack"}),
        _replaced(MemoryRepository, "_apply", partial(_without_token_check, extensions=True)),
    ),
    "lease_unchecked": Mutant(
        "some claims take what is leased",
        frozenset({"one-lease", "not-early"}),
        _replaced(MemoryRepository, "claim", _without_lease_check),
    ),
    "claim_without_lock": Mutant(
        "two claims at the same time take the same row",
        frozenset({"one-lease", "final"}),
        _replaced(MemoryRepository, "claim", _without_lock),
    ),
    "next_from_now": Mutant(
        "the next occurrence is counted from now",
        frozenset({"next"}),
        _replaced(trigger, "next_due", _counted_from_now),
    ),
    "advance_after_start": Mutant(
        "at most once, the next occurrence is written after the body", frozenset({"once"}), _advanced_after_the_start
    ),
    "stale_clock": Mutant(
        "a reading of the clock is seconds old when it is used",
        frozenset({"leased"}),
        _replaced(Timekeeper, "__call__", lambda real: lambda self: real(self) - _STALE),
    ),
    "own_clock": Mutant(
        "a process goes by the clock of its machine",
        frozenset({"one-lease", "not-early"}),
        _replaced(Timekeeper, "learn", lambda _: lambda _self, _shown, _asked: None),
    ),
    "estimated_time": Mutant(
        "what is due is decided by an estimate of the store's time, and not by what that is for sure",
        frozenset({"not-early"}),
        _replaced(Timekeeper, "surely", lambda _: Timekeeper.__call__),
    ),
    "not_held": Mutant(
        "what is claimed before it is due is started at once",
        frozenset({"not-early"}),
        _replaced(EarlyRows, "hold", lambda _: lambda _self, rows, _claimed_at: rows),
    ),
    "no_release": Mutant(
        "what is not executed any more stays leased",
        frozenset({"stop"}),
        _replaced(Holder, "release", lambda _: lambda *_given: None),
    ),
    "no_retry": Mutant(
        "an outcome is tried once", frozenset({"retry"}), _replaced(Settlement, "_still_worth_it", _given_up)
    ),
    "lease_from_claim": Mutant(
        "an instance's own lease is counted from the claim, and its end is not looked at",
        frozenset({"leased"}),
        _replaced(Holder, "write_first", _started_whatever_the_lease),
    ),
    "token_as_drawn": Mutant(
        "a claim that was long on its way leaves an earlier token behind",
        frozenset({"fence"}),
        _replaced(lease, "later_token", lambda _: lambda drawn, _stored: drawn),
    ),
    "postponed": Mutant(
        "scheduling an instance again postpones it",
        frozenset({"registry"}),
        _replaced(registry, "_same_trigger", lambda _: lambda *_given: None),
    ),
    "not_given_back": Mutant(
        "at most once, what was committed and could not be started is lost",
        frozenset({"lost"}),
        _replaced(Holder, "_give_back", lambda _: lambda *_given: None),
    ),
}
