"""The schedules that come and go while a soak runs: once-offs, and intervals that are changed and removed again.

Knows: `AppContext`, how many per second. Must not know: what goes wrong around it, beyond that calls may fail.
"""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

import anyio

from anyscheduler import RepositoryError, TaskLockedError
from tests.soak.log import Kind, micros
from tests.soak.plan import WORKERS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from anyscheduler import AppContext
    from anyscheduler.task import Task
    from tests.soak.log import LogWriter

_ONCE_EVERY_SECONDS: Final = WORKERS / 20
_CHURN_EVERY_SECONDS: Final = WORKERS / 10
_BEHIND_SECONDS: Final = 1.0
"""How far a worker may be behind with its load before it leaves out what it has missed."""

_AGAIN_SECONDS: Final = 0.3
_LIFE_SECONDS: Final = (0.5, 3.0)
_MILLISECOND: Final = timedelta(milliseconds=1)


@dataclass(slots=True)
class _Instance:
    """A schedule that this worker has registered, with the times at which it will touch it again."""

    name: str
    change_at: float
    remove_at: float


class Load:
    """What one worker adds to the load.

    Args:
        slot: Its place, from 0 on.
        incarnation: How many were there before it.
        until: When the load ends, CLOCK_MONOTONIC in seconds.
        log: Where it tells what it asks for.
    """

    def __init__(self, slot: int, incarnation: int, until: float, log: LogWriter) -> None:
        self._slot = slot
        self._prefix = f"{slot}.{incarnation}."
        self._until = until
        self._log = log
        self._instances: list[_Instance] = []

    def of(self, once: Task, churn: Task) -> Callable[[AppContext], AsyncIterator[None]]:
        """Returns a fixture that puts the load on these two dynamic tasks for as long as it is up."""

        async def load(app_context: AppContext) -> AsyncIterator[None]:
            async with anyio.create_task_group() as group:
                group.start_soon(self._schedule_once, app_context, once)
                group.start_soon(self._churn, app_context, churn)
                yield
                group.cancel_scope.cancel()

        return load

    async def _schedule_once(self, app_context: AppContext, once: Task) -> None:
        number = 0
        pace = _Pace(_ONCE_EVERY_SECONDS, self._until)
        while await pace.goes_on():
            number += 1
            at = datetime.now(UTC) + random.randrange(-200, 1500) * _MILLISECOND
            name = f"{self._prefix}{number}"
            self._log.write(Kind.REG_SENT, key=once.instance_key(name), due=micros(at), detail="once")
            if await _succeeds(partial(app_context.schedule_task, once, name, execute_at=at)):
                self._log.write(Kind.REG_DONE, key=once.instance_key(name), due=micros(at), detail="once")

    async def _churn(self, app_context: AppContext, churn: Task) -> None:
        await self._remove_what_others_left(app_context, churn)
        number = 0
        pace = _Pace(_CHURN_EVERY_SECONDS, self._until)
        while await pace.goes_on():
            number += 1
            now = time.monotonic()
            remove_at = now + random.uniform(*_LIFE_SECONDS)
            change_at = random.uniform(now, remove_at) if number % 2 else remove_at
            instance = _Instance(f"{self._prefix}{number}", change_at, remove_at)
            await self._register(app_context, churn, instance.name, force=False)
            self._instances.append(instance)
            await self._touch(app_context, churn, now)
        while self._instances:
            await self._touch(app_context, churn, math.inf)
            await anyio.sleep(_AGAIN_SECONDS)

    async def _touch(self, app_context: AppContext, churn: Task, now: float) -> None:
        """Changes and removes the instances whose time has come."""
        for instance in list(self._instances):
            if instance.remove_at <= now:
                if await self._unregister(app_context, churn, instance.name):
                    self._instances.remove(instance)
            elif instance.change_at <= now:
                instance.change_at = instance.remove_at
                await self._register(app_context, churn, instance.name, force=random.random() < 0.5)

    async def _register(self, app_context: AppContext, churn: Task, name: str, *, force: bool) -> None:
        interval = random.randrange(500, 2000) * _MILLISECOND
        said = {"key": churn.instance_key(name), "detail": str(interval // timedelta(microseconds=1))}
        self._log.write(Kind.REG_SENT, **said)
        if await _succeeds(partial(app_context.schedule_task, churn, name, interval=interval, force=force)):
            self._log.write(Kind.REG_DONE, **said)

    async def _unregister(self, app_context: AppContext, churn: Task, name: str) -> bool:
        key = churn.instance_key(name)
        self._log.write(Kind.UNREG_SENT, key=key)
        removed = await _succeeds(partial(app_context.unschedule_task, churn, name))
        if removed:
            self._log.write(Kind.UNREG_ACK, key=key)
        return removed

    async def _remove_what_others_left(self, app_context: AppContext, churn: Task) -> None:
        """Removes the instances of those that had this slot before, and did not live to remove them."""
        left: list[str] = []

        async def find() -> None:
            token: str | None = None
            left.clear()
            while True:
                page = await app_context.list_tasks(churn, continuation_token=token)
                left.extend(state.task.name for state in page.tasks)
                token = page.continuation_token
                if token is None:
                    return

        while not await _succeeds(find):
            await anyio.sleep(_AGAIN_SECONDS)
        for name in left:
            if name.startswith(f"{self._slot}.") and not name.startswith(self._prefix):
                while not await self._unregister(app_context, churn, name):
                    await anyio.sleep(_AGAIN_SECONDS)


async def _succeeds(call: Callable[[], Awaitable[object]]) -> bool:
    """Makes a call; returns whether it did what it was to do, which nobody knows of one that failed."""
    try:
        await call()
    except (RepositoryError, TaskLockedError):
        return False
    return True


class _Pace:
    """Lets a loop go round so often until a moment, in seconds of CLOCK_MONOTONIC."""

    def __init__(self, every: float, until: float) -> None:
        self._every = every
        self._until = until
        self._at = time.monotonic()

    async def goes_on(self) -> bool:
        """Waits for the next turn; returns False if there is none."""
        if self._at >= self._until:
            return False
        await anyio.sleep(max(0, self._at - time.monotonic()))
        self._at = max(self._at + self._every, time.monotonic() - _BEHIND_SECONDS)
        return True
