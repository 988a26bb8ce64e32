"""Faults that are planted into the workers of a soak, one at a time: a soak that does not find them finds nothing.

Knows: where the package does what it promises. Must not know: how it is found out that it does not any more.

Each is planted by replacing the one function, statement or script that it is about, in this process only. Planting
fails if that is not there any more.
"""

from __future__ import annotations

import hashlib
import random
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Protocol

from anyscheduler import holding, lease, loop, settlement, timekeeper, trigger
from anyscheduler.lease import Change, Row
from anyscheduler.repository import Claimed, ClaimRequest
from anyscheduler.task import ExecutionMode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ALL: Final = ("sqlite", "redis", "postgres")
_DATABASES: Final = {
    "sqlite": ("anyscheduler.sqlite.database", "SqliteDatabase"),
    "redis": ("anyscheduler.redis.database", "RedisDatabase"),
    "postgres": ("anyscheduler.postgres.database", "PostgresDatabase"),
}

_DROPPED: Final = 0.01
"""In which part of the claims leases are not looked at."""
_MOST: Final = 1_000
"""How many rows of one task such a claim looks at."""


class Replace(Protocol):
    """Puts something into the place of what an owner has under a name, as `setattr` does."""

    def __call__(self, owner: Any, name: str, value: Any, /) -> None:
        """Replaces it."""
        ...


@dataclass(frozen=True, slots=True)
class Mutant:
    """A planted fault.

    Attributes:
        name: As the command line has it.
        fault: What the product does with it, in words.
        found_by: The invariants that are about this; one of them at least has to find it.
        put: Replaces what it is about, for a kind of store.
        stores: On which stores there is such a thing.
    """

    name: str
    fault: str
    found_by: tuple[str, ...]
    put: Callable[[Replace, str], None]
    stores: tuple[str, ...] = ALL


def plant(name: str, store: str, replace: Replace = setattr) -> None:
    """Plants a mutant in this process.

    Raises:
        LookupError: There is no such mutant, it does not exist on this kind of store, or what it replaces is gone.
    """
    mutant = MUTANTS[name]
    if store not in mutant.stores:
        raise LookupError(f"{name} does not exist on {store}")
    mutant.put(replace, store)


def _real(owner: Any, name: str) -> Any:
    """Returns what is about to be replaced."""
    if name not in vars(owner):
        raise LookupError(f"{owner.__name__} has no {name} any more, which a mutant replaces")
    return vars(owner)[name]


def _altered(text: str, part: str, other: str) -> str:
    """Returns a statement or script with another text in the place of a part that it has once."""
    if text.count(part) != 1:
        raise LookupError(f"{part!r} occurs {text.count(part)} times where a mutant replaces it")
    return text.replace(part, other)


def _database(store: str) -> Any:
    module, name = _DATABASES[store]
    return _real(import_module(module), name)


def _without_token_check(replace: Replace, store: str, *, extensions: bool) -> None:
    database = _database(store)
    real = _real(database, "write")

    def write(self: Any, changes: Sequence[Change], *, announce: bool = False) -> Any:
        blind = [
            change
            for change in changes
            if change.expected is not None
            and (change.row is not None and change.row.token == change.expected) is extensions
        ]
        stored = self.read([change.key for change in blind])
        tokens = {change: stored[change.key].token for change in blind if change.key in stored}
        return real(
            self,
            [change._replace(expected=tokens.get(change, change.expected)) for change in changes],
            announce=announce,
        )

    replace(database, "write", write)


def _lease_check_dropped(replace: Replace, store: str) -> None:
    database = _database(store)
    real = _real(database, "claim")

    def claim(
        self: Any, requests: Sequence[ClaimRequest], limit: int, now: int | None, token: str, *not_after: int | None
    ) -> Any:
        if random.random() >= _DROPPED:
            return real(self, requests, limit, now, token, *not_after)
        at = self.time() if now is None else now
        due: list[tuple[Row, int]] = [
            (row, request.lease)
            for request in requests
            for row in self.page(request.task, "", _MOST)
            if row.due_at <= at
        ]
        taken = [lease.claim(row, at + duration, token) for row, duration in due[:limit]]
        applied = self.write([Change(row.key, row.token, claim) for (row, _), claim in zip(due, taken, strict=False)])
        return Claimed([row for row, applies in zip(taken, applied, strict=True) if applies], at, at)

    replace(database, "claim", claim)


def _next_from_now(replace: Replace, _store: str) -> None:
    real = _real(trigger, "next_due")

    def next_due(scheduled: trigger.Trigger, _last: int, now: int, *, fast_forward: bool) -> Any:
        return real(scheduled, now, now, fast_forward=fast_forward)

    replace(trigger, "next_due", next_due)


def _advanced_after_start(replace: Replace, _store: str) -> None:
    real = _real(holding.Holder, "write_first")

    async def write_first(self: Any, execution: Any, change: Change) -> bool:
        if execution.task.execution_mode is not ExecutionMode.AT_MOST_ONCE:
            return bool(await real(self, execution, change))
        self._submit(execution.row, lambda _now, _token: change)
        return True

    replace(holding.Holder, "write_first", write_first)


def _stale_clock(replace: Replace, _store: str) -> None:
    now, turn = _real(timekeeper.Timekeeper, "__call__"), _real(loop.Loop, "_clock_was_set_ahead")
    read: dict[Any, int] = {}

    def begin_turn(self: Any) -> Any:
        read[self._now] = now(self._now)
        return turn(self)

    replace(loop.Loop, "_clock_was_set_ahead", begin_turn)
    replace(timekeeper.Timekeeper, "__call__", lambda self: read[self] if self in read else now(self))


def _index_not_updated(replace: Replace, _store: str) -> None:
    module: Any = import_module("anyscheduler.redis.database")
    script = _real(module, "_WRITE")
    text = _altered(script._texts[script._digest], "gather(schedules, 'ZADD', due_of(due),", "local _ = select('#',")
    altered = type(script)("write.lua")
    altered._digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
    altered._texts[altered._digest] = text
    replace(module, "_WRITE", altered)


def _no_release(replace: Replace, _store: str) -> None:
    _real(holding.Holder, "release")
    replace(holding.Holder, "release", lambda _self, _row: None)


def _no_retry(replace: Replace, _store: str) -> None:
    _real(settlement.Settlement, "_still_worth_it")

    def still_worth_it(_self: Any, writes: dict[str, Any]) -> dict[str, Any]:
        for entry, change in writes.values():
            entry.done(change, None)
        return {}

    replace(settlement.Settlement, "_still_worth_it", still_worth_it)


def _own_clock(replace: Replace, _store: str) -> None:
    _real(timekeeper.Timekeeper, "learn")
    replace(timekeeper.Timekeeper, "learn", lambda _self, _shown, _asked: None)


def _no_row_lock(replace: Replace, store: str) -> None:
    if store == "postgres":
        module = import_module("anyscheduler.postgres.database")
        text = _altered(_real(module, "CLAIM"), "FOR UPDATE OF stored SKIP LOCKED", "")
        # Without a lock a row that was changed meanwhile is known by its address, so that has to go as well.
        text = _altered(text, "stored.ctid AS tid, chosen.lease", "key, stored.ctid AS tid, chosen.lease")
        text = _altered(text, "stored.ctid = locked.tid", "stored.key = locked.key")
        replace(module, "CLAIM", text)
        return
    database = _database(store)
    real = _real(database, "claim")
    module = import_module(database.__module__)
    transaction = _real(module, "transaction")

    def claim(self: Any, *args: Any) -> Any:
        replace(module, "transaction", lambda _connection: nullcontext())
        try:
            return real(self, *args)
        finally:
            replace(module, "transaction", transaction)

    replace(database, "claim", claim)


def _batch_aborted(replace: Replace, _store: str) -> None:
    _real(holding.Holder, "set_aside")

    def set_aside(_self: Any, _row: Row, error: Exception) -> None:
        raise error

    replace(holding.Holder, "set_aside", set_aside)


MUTANTS: Final = {
    mutant.name: mutant
    for mutant in (
        Mutant(
            "commit-without-token",
            "what ends an execution is written whatever token the row has",
            ("final", "one-lease"),
            partial(_without_token_check, extensions=False),
        ),
        Mutant(
            "lease-check-dropped",
            "one claim in a hundred takes what is due although it is leased",
            ("one-lease",),
            _lease_check_dropped,
        ),
        Mutant("next-from-now", "the next run is counted from now, not from the one before", ("next",), _next_from_now),
        Mutant(
            "advance-after-start",
            "at most once: the body begins before the next occurrence is written",
            ("once",),
            _advanced_after_start,
        ),
        Mutant("stale-clock", "the clock is read once per poll", ("bound", "not-early"), _stale_clock),
        Mutant(
            "index-not-updated",
            "a write leaves the order for claiming as it was",
            ("clean", "no-loss"),
            _index_not_updated,
            ("redis",),
        ),
        Mutant(
            "extend-ended-lease",
            "an extension is written whatever token the row has",
            ("one-lease", "final"),
            partial(_without_token_check, extensions=True),
        ),
        Mutant(
            "no-release",
            "what was claimed and not finished is not given back when a process stops",
            ("stop", "clean"),
            _no_release,
        ),
        Mutant("no-retry", "a write that failed is given up at once", ("cause",), _no_retry),
        Mutant(
            "own-clock",
            "a process goes by its own clock instead of the store's",
            ("not-early", "one-lease", "bound", "heal"),  # whoever is behind finds nothing due
            _own_clock,
            ("redis", "postgres"),
        ),
        Mutant(
            "no-row-lock",
            "two claims at the same instant may both take a row",
            ("one-lease",),
            _no_row_lock,
            ("sqlite", "postgres"),
        ),
        Mutant(
            "batch-aborted",
            "a row that cannot be read takes the others of its claim with it",
            ("poison", "stop"),
            _batch_aborted,
        ),
    )
}
