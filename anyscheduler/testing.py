"""Virtual time for tests: a day of schedules in milliseconds, on asyncio and on trio.

Knows: the two event loops, by name; the only file of the package that does. Must not know: the scheduler.

    from anyscheduler.testing import VirtualClock, run_virtual

    async def test() -> None:
        clock = VirtualClock(datetime(2026, 1, 1, tzinfo=UTC))
        app = Scheduler(clock=clock, poll_interval=timedelta(hours=1))
        ...

    run_virtual(test)

Whenever every task waits, time jumps to the end of the shortest wait. So it suits the store in memory, and not those
that work in threads: time would run on while a thread works.
"""

from __future__ import annotations

import asyncio
import selectors
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import anyio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


class VirtualClock:
    """A `clock=` that follows the event loop's time, and so runs as virtually as that does.

    Attributes:
        ahead: What is added to the time; changing it sets the clock, as an administrator would.
    """

    def __init__(self, start: datetime) -> None:
        if start.tzinfo is None:
            raise ValueError("start must be aware")
        self.ahead = timedelta(0)
        self._start = start
        self._began = anyio.current_time()

    def __call__(self) -> datetime:
        """Returns `start` plus the time that has passed in the event loop since this was made, plus `ahead`."""
        return self._start + timedelta(seconds=anyio.current_time() - self._began) + self.ahead


def run_virtual(
    function: Callable[..., Awaitable[T]], *args: Any, backend: Literal["asyncio", "trio"] = "asyncio"
) -> T:
    """Runs an async function in an event loop of its own whose time is virtual, and returns its result."""
    options: dict[str, Any]
    if backend == "trio":
        import trio.testing  # noqa: PLC0415  # an extra

        options = {"clock": trio.testing.MockClock(autojump_threshold=0)}
    else:
        options = {"loop_factory": _VirtualLoop}
    return anyio.run(function, *args, backend=backend, backend_options=options)


class _JumpingSelector(selectors.DefaultSelector):
    """Waits for nothing: when no file is ready, it takes the time to be over."""

    elapsed = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            return super().select(None)
        ready = super().select(0)
        if not ready and timeout > 0:
            self.elapsed += timeout
        return ready


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.elapsed
