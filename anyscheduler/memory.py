"""The store in memory: the default, and the simplest: the contract without a driver.

Knows: `Row`, and how to find the due ones quickly. Must not know: leases, triggers, the event loop.

Nothing here awaits, so every operation is atomic. It lives as long as its context manager, and in one process.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from heapq import heappop, heappush, nsmallest
from typing import TYPE_CHECKING

from anyscheduler import lease
from anyscheduler.repository import Claimed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from anyscheduler.lease import Change, Row
    from anyscheduler.repository import ClaimRequest

_SLACK = 64
"""How many outdated entries a queue may hold beside four for each row."""


class _Queue:
    """When the rows of one task are claimable.

    A heap of instants, and for each instant a heap of keys: what is due is not found later because a million others are
    due tomorrow together. A change pushes and never removes: an entry counts only while its row still says the same,
    and the rest is dropped as it surfaces.

    Args:
        rows: All rows, by key.
    """

    __slots__ = ("_entries", "_instants", "_rows", "size")

    def __init__(self, rows: Mapping[str, Row]) -> None:
        self._rows = rows
        self._instants: list[int] = []
        self._entries: dict[int, list[tuple[str, str]]] = {}
        """Heaps of keys and tokens, by their instant."""
        self.size = 0

    def push(self, row: Row) -> None:
        """Takes note of what a row has become."""
        entries = self._entries.get(row.claimable_at)
        if entries is None:
            self._entries[row.claimable_at] = [(row.key, row.token)]
            heappush(self._instants, row.claimable_at)
        else:
            heappush(entries, (row.key, row.token))
        self.size += 1

    def first(self) -> Row:
        """Returns the row that is claimable first, of several the one whose key is; there must be one."""
        while True:
            at = self._instants[0]
            entries = self._entries[at]
            while entries:
                key, token = entries[0]
                row = self._rows.get(key)
                if row is not None and row.token == token and row.claimable_at == at:
                    return row
                heappop(entries)
                self.size -= 1
            del self._entries[heappop(self._instants)]


class MemoryRepository:
    """A `Repository` of dictionaries and heaps."""

    description = "memory (nothing is kept when the process ends)"

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}
        self._keys: dict[str, dict[str, None]] = {}
        """The keys of each task."""
        self._queues: dict[str, _Queue] = {}
        """The queue of each task that has rows."""

    async def claim(
        self,
        requests: Sequence[ClaimRequest],
        limit: int,
        now: int | None,
        token: str,
        not_after: int | None = None,  # noqa: ARG002  # it goes by the clock of this machine
    ) -> Claimed:
        """See `Repository.claim`."""
        assert now is not None, "there is no clock of its own"
        claimed: list[Row] = []
        due: list[tuple[int, _Queue]] = []
        upcoming: list[int] = []
        for request in requests:
            queue = self._queues.get(request.task)
            if queue is not None:
                at = queue.first().claimable_at
                if at <= now:
                    due.append((request.lease, queue))
                else:
                    upcoming.append(at)
        turn = due
        while turn and len(claimed) < limit:
            # One of each task, then a second one of each that has more, and so on.
            more: list[tuple[int, _Queue]] = []
            for duration, queue in turn[: limit - len(claimed)]:
                row = lease.claim(queue.first(), now + duration, token)
                self._rows[row.key] = row
                queue.push(row)
                claimed.append(row)
                if queue.first().claimable_at <= now:
                    more.append((duration, queue))
            turn = more
        upcoming += [queue.first().claimable_at for _, queue in due]
        return Claimed(claimed, min(upcoming, default=None), now)

    async def write(self, changes: Sequence[Change], *, announce: bool = False) -> list[bool]:  # noqa: ARG002  # nobody else can be listening
        """See `Repository.write`."""
        return [self._apply(change) for change in changes]

    async def read(self, keys: Sequence[str]) -> dict[str, Row]:
        """See `Repository.read`."""
        return {key: self._rows[key] for key in keys if key in self._rows}

    async def list(self, task: str, after: str, limit: int) -> Sequence[Row]:
        """See `Repository.list`."""
        keys = nsmallest(limit, (key for key in self._keys.get(task, ()) if key > after))
        return [self._rows[key] for key in keys]

    async def tasks(self) -> Sequence[str]:
        """See `Repository.tasks`."""
        return list(self._keys)

    async def time(self) -> None:
        """See `Repository.time`: it goes by the clock of this machine."""

    async def listen(self, wake: Callable[[int], None]) -> None:
        """See `Repository.listen`: nobody else can schedule anything here."""

    def _apply(self, change: Change) -> bool:
        stored = self._rows.get(change.key)
        if (stored.token if stored is not None else None) != change.expected:
            return False
        if change.row is not None:
            self._put(change.row)
        elif stored is not None:
            self._remove(stored)
        return True

    def _put(self, row: Row) -> None:
        self._rows[row.key] = row
        queue = self._queues.get(row.task)
        if queue is None:
            queue = self._queues[row.task] = _Queue(self._rows)
            self._keys[row.task] = {}
        queue.push(row)
        keys = self._keys[row.task]
        keys[row.key] = None
        if queue.size > _SLACK + 4 * len(keys):
            # Mostly outdated entries, as after many changes to rows due far ahead: begin anew, at a cost that the
            # changes since the last time have paid for.
            queue = self._queues[row.task] = _Queue(self._rows)
            for key in keys:
                queue.push(self._rows[key])

    def _remove(self, row: Row) -> None:
        del self._rows[row.key]
        keys = self._keys[row.task]
        del keys[row.key]
        if not keys:
            del self._keys[row.task], self._queues[row.task]


@asynccontextmanager
async def memory_repository() -> AsyncIterator[MemoryRepository]:
    """Opens an empty store in memory; the `repository_factory` that an app without store options gets."""
    yield MemoryRepository()
