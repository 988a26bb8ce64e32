"""A repository that goes wrong as planned, around the real one: killed, stopped, cut off or slow at a given call.

Knows: the contract of repositories, the failpoints of one worker. Must not know: what the app does, which store it is.
"""

from __future__ import annotations

import functools
import os
import signal
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from anyscheduler.errors import RepositoryError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
    from contextlib import AbstractAsyncContextManager

    from anyscheduler.lease import Change, Row
    from anyscheduler.repository import Claimed, ClaimRequest, Repository, RepositoryFactory
    from tests.soak.plan import Failpoint

T = TypeVar("T")

_DELAY_SECONDS = 0.05


class Failpoints:
    """What is still to happen to one worker.

    Args:
        pending: What is to happen, ordered by time, with the number of each.
        begin: When the load begins, CLOCK_MONOTONIC in seconds.
        seconds: How long it lasts; nothing happens afterwards.
        hit: Called with the number and the failpoint just before it happens; returns whether it is still to happen.
    """

    def __init__(
        self,
        pending: Sequence[tuple[int, Failpoint]],
        begin: float,
        seconds: float,
        hit: Callable[[int, Failpoint], bool],
    ) -> None:
        self._pending = list(pending)
        self._begin = begin
        self._seconds = seconds
        self._hit = hit

    async def come_through(self, window: str) -> None:
        """Does what is planned for this window by now, if anything is.

        Raises:
            RepositoryError: The plan wants the call to fail.
        """
        now = time.monotonic() - self._begin
        if now > self._seconds:
            return
        for numbered in list(self._pending):
            number, point = numbered
            if point.at > now:
                return
            if point.window == window:
                self._pending.remove(numbered)
                if self._hit(number, point):
                    await _act(point)
                    return


async def _act(point: Failpoint) -> None:
    match point.action:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "delay":
            await anyio.sleep(_DELAY_SECONDS)
        case _:
            raise RepositoryError(f"failpoint: {point.window} {point.action}")


class FailingRepository:
    """A repository whose calls come through failpoints; see `Repository` for what each of them does."""

    def __init__(self, inner: Repository, failpoints: Failpoints, *, at_most_once: Callable[[str], bool]) -> None:
        self.description = inner.description
        self._inner = inner
        self._failpoints = failpoints
        self._at_most_once = at_most_once
        self._held: dict[str, Row] = {}

    async def claim(
        self, requests: Sequence[ClaimRequest], limit: int, now: int | None, token: str, not_after: int | None = None
    ) -> Claimed:
        claimed = await self._surrounded(["claim"], lambda: self._inner.claim(requests, limit, now, token, not_after))
        self._held.update((row.key, row) for row in claimed.rows)
        return claimed

    async def write(self, changes: Sequence[Change], *, announce: bool = False) -> Sequence[bool | None]:
        calls = sorted(set(map(self._call_of, changes)))
        return await self._surrounded(calls, lambda: self._inner.write(changes, announce=announce))

    async def read(self, keys: Sequence[str]) -> dict[str, Row]:
        return await self._inner.read(keys)

    async def list(self, task: str, after: str, limit: int) -> Sequence[Row]:
        return await self._inner.list(task, after, limit)

    async def tasks(self) -> Sequence[str]:
        return await self._inner.tasks()

    async def time(self) -> int | None:
        return await self._inner.time()

    async def listen(self, wake: Callable[[int], None]) -> None:
        await self._inner.listen(wake)

    async def _surrounded(self, calls: Collection[str], operation: Callable[[], Awaitable[T]]) -> T:
        for call in calls:
            await self._failpoints.come_through(f"before {call}")
        result = await operation()
        for call in calls:
            await self._failpoints.come_through(f"after {call}")
        return result

    def _call_of(self, change: Change) -> str:
        """Tells what a change is for, as the lease rules leave it to be seen.

        1. Of a row that this process has claimed: an extension keeps the token, another due time settles it (before
           the body if it runs at most once), anything else gives it back.
        2. Of another row: somebody schedules or unschedules.
        """
        held = self._held.get(change.key)
        if held is None or held.token != change.expected:
            return "unregister" if change.row is None else "register"
        if change.row is not None and change.row.token == held.token:
            return "extend"
        if change.row is None or change.row.due_at != held.due_at:
            return "start" if self._at_most_once(held.task) else "commit"
        return "release"


def failing(
    factory: RepositoryFactory, failpoints: Failpoints, *, at_most_once: Callable[[str], bool]
) -> RepositoryFactory:
    """Returns a repository factory with the options of `factory`, whose repositories go wrong as planned."""

    @asynccontextmanager
    async def open_failing(opening: AbstractAsyncContextManager[Repository]) -> AsyncIterator[Repository]:
        async with opening as inner:
            yield FailingRepository(inner, failpoints, at_most_once=at_most_once)

    @functools.wraps(factory)
    def create(**options: Any) -> AbstractAsyncContextManager[Repository]:
        return open_failing(factory(**options))

    return create
