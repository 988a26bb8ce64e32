"""From plain synchronous stores to the contract: their calls run in worker threads, bounded in number and in time.

Knows: threads, cancellation, one `Database`. Must not know: drivers, SQL, rows.

The drivers' own async clients know asyncio only; a thread costs 0.1 ms a call, and nothing worth counting per row once
calls are batched.
"""

from __future__ import annotations

import math
import re
import threading
import time
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import anyio
import anyio.to_thread

from anyscheduler.errors import RepositoryError
from anyscheduler.logs import get_logger, in_one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from anyscheduler.lease import Change, Row
    from anyscheduler.repository import Claimed, ClaimRequest

T = TypeVar("T")

logger = get_logger(__name__)

EARLIEST: Final = -(2**63)
"""What a listener that may have missed something announces."""

_ANNOUNCED: Final = re.compile(r"-?[0-9]{1,19}")

_GRACE_SECONDS: Final = 0.5
"""For how long a call that was cancelled may still end by itself, before its connection is cut."""

_LISTEN_AGAIN_SECONDS: Final = 1.0
_CLOSE_SECONDS: Final = 1.0


def announced(texts: Iterable[str]) -> list[int]:
    """Returns the instants among what a listener has received.

    Nothing else counts: others may be able to send on the same channel, and all that they shall be able to do with that
    is to make somebody look at the store.
    """
    return [int(text) for text in texts if _ANNOUNCED.fullmatch(text)]


class Listener(Protocol):
    """A connection on which the store says what other processes announce."""

    def fileno(self) -> int:
        """Returns the socket to wait for."""
        ...

    def drain(self) -> Sequence[int]:
        """Returns the instants that arrived since the last call, without waiting; a driver error if it is cut off."""
        ...

    def close(self) -> None:
        """Closes the connection."""
        ...


class Database(Protocol):
    """A store as its driver sees it: the operations of `Repository`, called from several threads at once."""

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """What its driver raises."""
        ...

    def claim(
        self, requests: Sequence[ClaimRequest], limit: int, now: int | None, token: str, not_after: int | None = None
    ) -> Claimed:
        """See `Repository.claim`."""
        ...

    def write(self, changes: Sequence[Change], *, announce: bool = False) -> Sequence[bool | None]:
        """See `Repository.write`."""
        ...

    def read(self, keys: Sequence[str]) -> dict[str, Row]:
        """See `Repository.read`."""
        ...

    def page(self, task: str, after: str, limit: int) -> list[Row]:
        """See `Repository.list`."""
        ...

    def tasks(self) -> list[str]:
        """See `Repository.tasks`."""
        ...

    def time(self) -> int | None:
        """See `Repository.time`."""
        ...

    def listener(self) -> Listener | None:
        """Connects for listening; None if this store cannot, the reason having been logged."""
        ...

    def abort(self, thread: int) -> None:
        """Makes the call fail soon that is under way in the thread of this identifier; called from another one."""
        ...

    def close(self) -> None:
        """Closes every connection."""
        ...


class _Call:
    """One call of a worker thread, as the event loop sees it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._dropped = False
        self._thread: int | None = None
        self.ended = threading.Event()

    def begin(self) -> bool:
        """Notes that the thread begins, and returns whether it may."""
        with self._lock:
            if not self._dropped:
                self._thread = threading.get_ident()
            return not self._dropped

    def end(self) -> None:
        """Notes that the thread is done with it."""
        with self._lock:
            self.ended.set()

    def drop(self) -> bool:
        """Keeps it from beginning; returns whether it has begun already."""
        with self._lock:
            self._dropped = True
            return self._thread is not None

    def abort(self, database: Database) -> None:
        """Makes it fail, if it still goes on."""
        # The thread waits in `end` meanwhile, and so cannot be at its next call already.
        with self._lock:
            if self._thread is not None and not self.ended.is_set():
                database.abort(self._thread)


class _Opening:
    """One listener, closed however late it comes: a call that was given up still ends, and returns to nobody."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._listener: Listener | None = None
        self._is_over = False

    def open(self) -> Listener | None:
        """Connects; see `Database.listener`."""
        listener = self._database.listener()
        with self._lock:
            self._listener = listener
            if listener is not None and self._is_over:
                listener.close()
        return listener

    def close(self) -> bool:
        """Closes it now, or as soon as it is open; returns whether it was open by now."""
        with self._lock:
            self._is_over = True
            if self._listener is not None:
                self._listener.close()
            return self._listener is not None


class ThreadedRepository:
    """A `Repository` that runs a `Database` in worker threads.

    Args:
        database: The store.
        description: See `Repository.description`.
        threads: How many calls may be under way at a time. The limiter is its own: bodies that fill the default one
            must not be able to starve the store.
        patience: How many seconds a call may take; after that it fails, and its connection is cut. Infinite for a store
            that cannot leave a call without an answer.
        explain: Returns what an error of the driver says, for people.
    """

    def __init__(
        self,
        database: Database,
        description: str,
        *,
        threads: int,
        patience: float = math.inf,
        explain: Callable[[Exception], str] = str,
    ) -> None:
        self.description = description
        self._explain = explain
        self._database = database
        self._limiter = anyio.CapacityLimiter(threads)
        # Listening and ending calls must not wait for other calls, nor keep them waiting.
        self._listening_limiter = anyio.CapacityLimiter(1)
        self._abort_limiter = anyio.CapacityLimiter(threads + 1)
        # A native asyncio cancellation returns the limiter's token while the thread goes on.
        self._permits = threading.BoundedSemaphore(threads)
        self._patience = patience
        self._last_answer = 0.0

    async def claim(
        self, requests: Sequence[ClaimRequest], limit: int, now: int | None, token: str, not_after: int | None = None
    ) -> Claimed:
        """See `Repository.claim`."""
        return await self._call(self._database.claim, requests, limit, now, token, not_after)

    async def write(self, changes: Sequence[Change], *, announce: bool = False) -> Sequence[bool | None]:
        """See `Repository.write`."""
        return await self._call(partial(self._database.write, announce=announce), changes)

    async def read(self, keys: Sequence[str]) -> dict[str, Row]:
        """See `Repository.read`."""
        return await self._call(self._database.read, keys)

    async def list(self, task: str, after: str, limit: int) -> Sequence[Row]:
        """See `Repository.list`."""
        return await self._call(self._database.page, task, after, limit)

    async def tasks(self) -> Sequence[str]:
        """See `Repository.tasks`."""
        return await self._call(self._database.tasks)

    async def time(self) -> int | None:
        """See `Repository.time`."""
        return await self._call(self._database.time)

    async def close(self) -> None:
        """Closes every connection, once calls that are under way have ended, or have been ended."""
        patience = _CLOSE_SECONDS if self._patience < math.inf else math.inf
        with anyio.move_on_after(patience, shield=True):
            try:
                await self._call(self._database.close)
            except RepositoryError as error:
                logger.warning("the store could not be closed properly: %s", error)

    async def listen(self, wake: Callable[[int], None]) -> None:
        """See `Repository.listen`."""
        failures: tuple[type[Exception], ...] = (*self._database.errors, RepositoryError, OSError, ValueError)
        has_complained = False
        failed_at = math.inf
        while True:
            opening = _Opening(self._database)
            try:
                listener = await self._call(opening.open, limiter=self._listening_limiter)
                if listener is None:
                    return
                failed_at = math.inf
                # Whatever was announced while nobody listened.
                wake(EARLIEST)
                while True:
                    await anyio.wait_readable(listener.fileno())
                    for at in listener.drain():
                        wake(at)
            except failures as error:
                # A store that is gone is reported by whoever claims; this is about one that answers everything else.
                if failed_at < self._last_answer and not has_complained:
                    has_complained = True
                    logger.warning(
                        "cannot listen for what other processes schedule, will find it by polling until that works: %s",
                        self._told_by(error),
                    )
            finally:
                was_open = opening.close()
            if not was_open:
                failed_at = time.monotonic()
            await anyio.sleep(_LISTEN_AGAIN_SECONDS)

    async def _call(self, function: Callable[..., T], *args: object, limiter: anyio.CapacityLimiter | None = None) -> T:
        call = _Call()
        cuts = self._patience < math.inf

        def work() -> T:
            if not call.begin():
                raise RepositoryError("cancelled before it began")
            try:
                with nullcontext() if cuts else self._permits:
                    return function(*args)
            finally:
                call.end()

        try:
            with anyio.move_on_after(self._patience) as scope:
                try:
                    result = await anyio.to_thread.run_sync(
                        work, limiter=limiter or self._limiter, abandon_on_cancel=cuts
                    )
                except anyio.get_cancelled_exc_class():
                    timed_out = anyio.current_time() >= scope.deadline
                    await self._end(call, 0 if timed_out else _GRACE_SECONDS)
                    raise
                self._last_answer = time.monotonic()
                return result
        except self._database.errors as error:
            raise RepositoryError(f"{self.description}: {self._told_by(error)}") from error
        raise RepositoryError(f"{self.description}: no answer within {self._patience:g} s")

    def _told_by(self, error: Exception) -> str:
        # Some drivers spread their words over several lines.
        return in_one_line(" ".join(self._explain(error).split())) or type(error).__name__

    async def _end(self, call: _Call, grace: float) -> None:
        """Waits for the end of a call that was cancelled; after `grace` seconds its connection is cut."""
        if not call.drop():
            return
        with anyio.CancelScope(shield=True):
            if not await _ends_within(call, grace) and self._patience < math.inf:
                # In a thread, because it may have to ask the server for it.
                await anyio.to_thread.run_sync(call.abort, self._database, limiter=self._abort_limiter)
                await _ends_within(call, _GRACE_SECONDS)


async def _ends_within(call: _Call, seconds: float) -> bool:
    # Looked at again and again, since a thread cannot wake an event loop that may have ended. It is rarely needed.
    give_up_at = anyio.current_time() + seconds
    while not call.ended.is_set():
        if anyio.current_time() >= give_up_at:
            return False
        await anyio.sleep(0.005)
    return True
