"""The store in memory: the default, and the simplest: the contract without a driver.

Knows: `Row`, and how to find the due ones quickly. Must not know: leases, triggers, the event loop.

Nothing here awaits, so every operation is atomic. It lives as long as its context manager, and in one process.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from heapq import heapify, heappop, heappush, heapreplace, nsmallest
from typing import TYPE_CHECKING, TypeAlias

from anyscheduler import lease
from anyscheduler.repository import Claimed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from anyscheduler.lease import Change, Row
    from anyscheduler.repository import ClaimRequest

_Queue: TypeAlias = list[tuple[int, str, str]]
"""A heap of (claimable_at, key, token)."""

_SLACK = 64
"""How many outdated entries a queue may hold beside four for each row."""


class MemoryRepository:
    """A `Repository` of dictionaries and heaps."""

    description = "memory (nothing is kept when the process ends)"

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}
        self._keys: dict[str, dict[str, None]] = {}
        """The keys of each task."""
        self._queues: dict[str, _Queue] = {}
        """The queue of each task. A change pushes and never removes: an entry counts only
        while the row still says the same, and the rest is dropped as it surfaces."""

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
        queues = [
            (request.lease, queue) for request in requests if (queue := self._settled_queue(request.task)) is not None
        ]
        due = [(duration, queue) for duration, queue in queues if queue[0][0] <= now]
        while due and len(claimed) < limit:
            # One of each task, then a second one of each that has more, and so on.
            more: list[tuple[int, _Queue]] = []
            for duration, queue in due[: limit - len(claimed)]:
                row = lease.claim(self._rows[queue[0][1]], now + duration, token)
                self._rows[row.key] = row
                heapreplace(queue, (row.claimable_at, row.key, row.token))
                claimed.append(row)
                self._settle(queue)
                if queue[0][0] <= now:
                    more.append((duration, queue))
            due = more
        return Claimed(claimed, min((queue[0][0] for _, queue in queues), default=None), now)

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
        self._keys.setdefault(row.task, {})[row.key] = None
        queue = self._queues.setdefault(row.task, [])
        heappush(queue, (row.claimable_at, row.key, row.token))
        if len(queue) > _SLACK + 4 * len(self._keys[row.task]):
            # Mostly outdated entries, as after many changes to rows due far ahead: begin anew, at a cost that the
            # changes since the last time have paid for.
            queue[:] = {entry for entry in queue if self._counts(entry)}
            heapify(queue)

    def _remove(self, row: Row) -> None:
        del self._rows[row.key]
        keys = self._keys[row.task]
        del keys[row.key]
        if not keys:
            del self._keys[row.task], self._queues[row.task]

    def _counts(self, entry: tuple[int, str, str]) -> bool:
        row = self._rows.get(entry[1])
        return row is not None and row.claimable_at == entry[0] and row.token == entry[2]

    def _settled_queue(self, task: str) -> _Queue | None:
        """Returns the heap of `task` with an entry on top that counts, or None if the task has no rows."""
        queue = self._queues.get(task)
        if queue is not None:
            self._settle(queue)
        return queue

    def _settle(self, queue: _Queue) -> None:
        while not self._counts(queue[0]):
            heappop(queue)


@asynccontextmanager
async def memory_repository() -> AsyncIterator[MemoryRepository]:
    """Opens an empty store in memory; the `repository_factory` that an app without store options gets."""
    yield MemoryRepository()
