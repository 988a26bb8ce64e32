"""Starting executions: several in one task of the event loop while they do not wait, each in its own once they do.

Knows: a task group, and what runs one item. Must not know: rows, leases, outcomes.

To start a task takes longer than all that the engine does for an execution, and many bodies end without ever waiting.
So a task takes the next item when the one before has ended like that; the next task is always on its way meanwhile, and
takes over as soon as one waits. Once an item was seen to wait, each of its kind has a task of its own. What a body
may leave behind in its task ends with it: a task whose body has waited, was cancelled, or has set a context variable,
takes nothing else. And where bodies take long without waiting, the next task comes after a few of them, and with it
whoever else is in the event loop.
"""

from __future__ import annotations

import sys
from collections import deque
from contextvars import Context, copy_context
from itertools import count
from operator import is_
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import anyio
import anyio.lowlevel

from anyscheduler.execution import is_cancelled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from anyio.abc import TaskGroup

T = TypeVar("T")

_SLICE_SECONDS: Final = 0.002
"""After how long the rest of the event loop has a turn."""

_IN_A_ROW: Final = 16
"""After how many items that is looked at."""


class Starter(Generic[T]):
    """Runs items in a task group.

    Args:
        group: Where their tasks are.
        run: Runs one item.
    """

    def __init__(self, group: TaskGroup, run: Callable[[T], Awaitable[None]]) -> None:
        self._group = group
        self._run = run
        self._queue: deque[tuple[str, T, str]] = deque()
        """Of each item its kind, itself, and its name. Bare tuples: one is made for every execution."""
        self._waiting_kinds: set[str] = set()
        self._is_coming = False
        """Whether a task is on its way that takes what is queued."""
        self._at_work: list[str] | None = None
        """The kind of the item that is run without having waited, in a list of its own by which that run is known."""
        self._count_cancellations = _native_cancellations()

    def start(self, item: T, kind: str, name: str, *, waits: bool) -> None:
        """Has an item run as soon as the event loop gets to it; those that may share tasks in their order.

        Args:
            item: The item.
            kind: What it has in common with others that wait if it does.
            name: What a task of its own is called.
            waits: Whether it is known to wait.
        """
        if self._at_work is not None:
            self._note_wait()
        if waits or kind in self._waiting_kinds:
            self._group.start_soon(self._run_alone, item, name=name)
        else:
            self._queue.append((kind, item, name))
            if not self._is_coming:
                self._send_for_next()

    def left(self) -> Iterator[T]:
        """Takes what is queued and will not be run any more, because the task group has ended."""
        while self._queue:
            _, item, _ = self._queue.popleft()
            yield item

    def _note_wait(self) -> None:
        # Somebody else is running, so whoever was at work and has not ended waits.
        assert self._at_work is not None
        self._waiting_kinds.update(self._at_work)
        self._at_work = None

    def _send_for_next(self) -> None:
        self._is_coming = True
        self._group.start_soon(self._run_queued)

    async def _run_alone(self, item: T) -> None:
        cancellations = self._count_cancellations()
        await self._run(item)
        if cancellations():
            await _absorb_cancellation()

    async def _run_queued(self) -> None:
        self._is_coming = False
        if self._at_work is not None:
            self._note_wait()
        own = copy_context()
        cancellations = self._count_cancellations()
        until = anyio.current_time() + _SLICE_SECONDS
        for turn in count(1):
            if not self._queue:
                return
            kind, item, name = self._queue.popleft()
            if kind in self._waiting_kinds:
                self._group.start_soon(self._run_alone, item, name=name)
                continue
            this = self._at_work = [kind]
            if self._queue and not self._is_coming:
                self._send_for_next()
            await self._run(item)
            has_waited = self._at_work is not this
            if not has_waited:
                self._at_work = None
            if cancellations():
                await _absorb_cancellation()
                return
            if has_waited or not _is_same(own, copy_context()):
                return
            if turn % _IN_A_ROW == 0 and anyio.current_time() > until:
                return


def _is_same(one: Context, other: Context) -> bool:
    # By identity: to compare values would call what users wrote, and what is equal may still be somebody's own.
    return len(one) == len(other) and all(map(is_, one, other)) and all(map(is_, one.values(), other.values()))


def _native_cancellations() -> Callable[[], Callable[[], int]]:
    """Returns what gives, for the current task, what tells how often that was cancelled other than by scopes.

    Only asyncio has such a way: `asyncio.Task.cancel()`, called by whoever got hold of the task.
    """
    asyncio = sys.modules.get("asyncio")
    if asyncio is None or anyio.get_cancelled_exc_class() is not asyncio.CancelledError:
        return lambda: int
    current_task = asyncio.current_task
    # anyio tells as well, but takes a tenth of all the time that an execution costs.
    return lambda: current_task().cancelling


async def _absorb_cancellation() -> None:
    """Keeps a body that cancelled its own asyncio task as the last thing it did from taking the task group with it."""
    try:
        await anyio.lowlevel.checkpoint()
    except anyio.get_cancelled_exc_class():
        if is_cancelled():
            raise
