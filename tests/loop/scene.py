"""What the loop tests share: virtual time on both event loops, an app that runs meanwhile, a store that is watched."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections import Counter
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import anyio
import pytest

from anyscheduler import AppContext, RepositoryError, Scheduler
from anyscheduler.lease import HEAD_START
from anyscheduler.memory import MemoryRepository
from anyscheduler.testing import VirtualClock, run_virtual

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from anyscheduler.lease import Change, Row
    from anyscheduler.repository import Claimed, ClaimRequest, Repository, RepositoryFactory

Backend: TypeAlias = Literal["asyncio", "trio"]

START = datetime(2026, 1, 1, tzinfo=UTC)
START_MICROS = int(START.timestamp()) * 1_000_000

RAISED: Sequence[BaseException] = [
    SystemExit(3),
    KeyboardInterrupt(),
    asyncio.CancelledError(),
    GeneratorExit(),
    BaseExceptionGroup("several", [KeyboardInterrupt(), ValueError()]),
    StopIteration(),
    StopAsyncIteration(),
    RecursionError(),
    MemoryError(),
]
"""What bodies raise that an event loop, or a thread's future, treats specially."""

_TOO_LONG = 10 * 86_400
"""Virtual seconds after which a test hangs. Where every task waits for ever, virtual time gets there at once."""


def name_of(error: BaseException) -> str:
    """Returns the id of a parametrized exception."""
    return type(error).__name__


def virtual(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Makes an async test run on virtual time, once on asyncio and once on trio."""

    @functools.wraps(test)
    def run(backend: Backend, **fixtures: Any) -> None:
        async def limited() -> None:
            with anyio.fail_after(_TOO_LONG):
                await test(**fixtures)

        run_virtual(limited, backend=backend)

    signature = inspect.signature(test)
    backend = inspect.Parameter("backend", inspect.Parameter.KEYWORD_ONLY)
    # Where pytest looks for the names of fixtures; `wraps` alone would show it those of the test only.
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), backend])  # type: ignore[attr-defined]
    both: Callable[..., None] = pytest.mark.parametrize("backend", ["asyncio", "trio"])(run)
    return both


def virtual_app(**options: Any) -> Scheduler:
    """Returns an app whose clock begins at `START`; to be called inside of the event loop."""
    options.setdefault("clock", VirtualClock(START))
    return Scheduler(**options)


@asynccontextmanager
async def running(app: Scheduler) -> AsyncIterator[AppContext]:
    """Runs an app for as long as the block takes, then stops it gracefully."""
    async with app.create() as app_context, anyio.create_task_group() as group:
        await group.start(app_context.run)
        yield app_context
        app_context.shutdown()


async def run_for(app: Scheduler, seconds: float) -> None:
    """Runs an app for so many virtual seconds, and stops it gracefully."""
    async with running(app):
        await anyio.sleep(seconds)


def seconds(moment: datetime) -> float:
    """Returns by how many seconds `moment` is later than `START`."""
    return (moment - START) / timedelta(seconds=1)


def micros(after: float) -> int:
    """Returns the instant `after` so many seconds from `START`, as it is stored."""
    return START_MICROS + round(after * 1e6)


def free(due: float) -> tuple[int, int]:
    """Returns `due_at` and `claimable_at` of a static schedule that is due so many seconds after `START`, and free."""
    return micros(due), micros(due) - HEAD_START


class Stopwatch:
    """Tells how many virtual seconds have passed since it was made, without the noise of floating point."""

    def __init__(self) -> None:
        self._began = anyio.current_time()

    def __call__(self) -> float:
        return round(anyio.current_time() - self._began, 3)


class WatchedRepository:
    """The store in memory, with a record of its calls; it can be made slow, be made to fail, and to lose replies.

    Attributes:
        inner: The store itself.
        calls: How often each operation was called.
        asked: For how many tasks each claim asked.
        limits: The limit of each claim.
        claimed: How many rows each claim brought.
        written: How many changes came with each write.
        announced: Whether each write was to be announced.
        failing: Operations that raise before they do anything.
        losing: Operations that raise after they were carried out.
        locked: Keys whose rows cannot be written at the moment.
        before: What is called before an operation.
        slow: Seconds that an operation takes before it is carried out.
        slow_replies: Seconds that its reply takes.
    """

    description = "memory, watched"

    def __init__(self) -> None:
        self.inner = MemoryRepository()
        self.calls: Counter[str] = Counter()
        self.asked: list[int] = []
        self.limits: list[int] = []
        self.claimed: list[int] = []
        self.written: list[int] = []
        self.announced: list[bool] = []
        self.failing: set[str] = set()
        self.losing: set[str] = set()
        self.locked: set[str] = set()
        self.before: dict[str, Callable[[], None]] = {}
        self.slow: dict[str, float] = {}
        self.slow_replies: dict[str, float] = {}

    async def claim(
        self, requests: Sequence[ClaimRequest], limit: int, now: int | None, token: str, not_after: int | None = None
    ) -> Claimed:
        await self._before("claim")
        claimed = await self.inner.claim(requests, limit, now, token, not_after)
        self.asked.append(len(requests))
        self.limits.append(limit)
        self.claimed.append(len(claimed.rows))
        await self._after("claim")
        return claimed

    async def write(self, changes: Sequence[Change], *, announce: bool = False) -> Sequence[bool | None]:
        await self._before("write")
        free = [change for change in changes if change.key not in self.locked]
        done = dict(zip((change.key for change in free), await self.inner.write(free, announce=announce), strict=True))
        applied = [done.get(change.key) for change in changes]
        self.written.append(len(changes))
        self.announced.append(announce)
        await self._after("write")
        return applied

    async def read(self, keys: Sequence[str]) -> dict[str, Row]:
        await self._before("read")
        return await self.inner.read(keys)

    async def list(self, task: str, after: str, limit: int) -> Sequence[Row]:
        await self._before("list")
        return await self.inner.list(task, after, limit)

    async def tasks(self) -> Sequence[str]:
        await self._before("tasks")
        return await self.inner.tasks()

    async def time(self) -> int | None:
        await self._before("time")
        return None

    async def listen(self, wake: Callable[[int], None]) -> None:
        await self.inner.listen(wake)

    async def row(self, key: str) -> Row:
        """Returns one row as it is stored, without counting that."""
        return (await self.inner.read([key]))[key]

    async def keys(self) -> set[str]:
        """Returns the keys of all rows, without counting that."""
        return {row.key for task in await self.inner.tasks() for row in await self.inner.list(task, "", 1_000_000)}

    async def leased(self, now: int) -> set[str]:
        """Returns the keys of the rows that could not be claimed at `now` although their occurrence is due."""
        rows = [row for task in await self.inner.tasks() for row in await self.inner.list(task, "", 1_000_000)]
        return {row.key for row in rows if row.due_at <= now < row.claimable_at}

    async def _before(self, operation: str) -> None:
        self.calls[operation] += 1
        self.before.get(operation, lambda: None)()
        await anyio.sleep(self.slow.get(operation, 0))
        if operation in self.failing:
            raise RepositoryError(f"the {operation} failed")

    async def _after(self, operation: str) -> None:
        await anyio.sleep(self.slow_replies.get(operation, 0))
        if operation in self.losing:
            raise RepositoryError(f"the reply to the {operation} was lost")


def shared(repository: Repository) -> RepositoryFactory:
    """Returns a `repository_factory` that gives this one store to every app."""

    @asynccontextmanager
    async def factory() -> AsyncIterator[Repository]:
        yield repository

    return factory


def store_outages(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Returns "gone" and "back" for each line of the log that says so of the store."""
    marks = {"the store failed while": "gone", "the store is back after": "back"}
    lines = [record.message for record in caplog.records]
    return [word for line in lines for mark, word in marks.items() if line.startswith(mark)]
