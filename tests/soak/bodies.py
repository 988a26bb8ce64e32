"""What the tasks of a soak do when they are executed, and how many of them are open at a time.

Knows: contexts, clocks. Must not know: schedules, stores, what goes wrong around it.
"""

from __future__ import annotations

import json
import random
import threading
import time
from typing import TYPE_CHECKING, Final

import anyio
import psutil

from tests.soak.log import Kind
from tests.soak.plan import LEASE_SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from anyscheduler import AppContext, Context
    from tests.soak.app import Setting

SHORT_SECONDS: Final = 0.01
PRESSED_SECONDS: Final = 1.0
"""How long a short body takes while there is to be more load than the workers can carry."""
HEARTBEATING_SECONDS: Final = 2 * LEASE_SECONDS

_SAMPLE_SECONDS: Final = 1.0


class Bodies:
    """The bodies of one worker."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._open = 0

    async def count(self, _context: Context, next: Callable[[], Awaitable[None]]) -> None:
        """A middleware that knows how many bodies are open."""
        self._open += 1
        try:
            await next()
        finally:
            self._open -= 1

    async def short(self, _context: Context) -> None:
        await anyio.sleep(SHORT_SECONDS)

    async def plain(self, _context: Context) -> None:
        await anyio.sleep(self._plain_seconds())

    def in_thread(self, _context: Context) -> None:
        time.sleep(self._plain_seconds())

    async def heartbeating(self, _context: Context) -> None:
        await anyio.sleep(HEARTBEATING_SECONDS)

    async def raising(self, _context: Context) -> None:
        await anyio.sleep(SHORT_SECONDS)
        if random.random() < 0.5:
            raise ValueError("this body raises every other time")

    async def cancelled(self, _context: Context) -> None:
        """Ends with a cancellation that nobody has asked for."""
        caught: BaseException | None = None
        with anyio.CancelScope() as scope:
            scope.cancel()
            try:
                await anyio.sleep(SHORT_SECONDS)
            except anyio.get_cancelled_exc_class() as error:
                caught = error
                raise
        assert caught is not None
        raise caught

    async def sample(self, _app_context: AppContext) -> AsyncIterator[None]:
        """A fixture that logs every second what this process has open."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._sample)
            yield
            group.cancel_scope.cancel()

    async def _sample(self) -> None:
        this = psutil.Process()
        while True:
            sample = {
                "bodies": self._open,
                "rss_kib": this.memory_info().rss // 1024,
                "threads": threading.active_count(),
                "connections": len(this.net_connections("tcp")),
            }
            self._setting.log.write(Kind.OPEN, detail=json.dumps(sample))
            await anyio.sleep(_SAMPLE_SECONDS)

    def _plain_seconds(self) -> float:
        since, until = self._setting.pressure
        passed = time.monotonic() - self._setting.begin
        return PRESSED_SECONDS if since <= passed < until else SHORT_SECONDS
