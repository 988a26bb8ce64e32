"""A `Database` to run in threads: the rules of the memory store behind a lock, calls that can be made to hang, sockets.

It is a store like the others, only that what servers do once in a while it does when it is told to.
"""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio

from anyscheduler.memory import MemoryRepository
from anyscheduler.threaded import ThreadedRepository

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Sequence

    from anyscheduler.lease import Change, Row
    from anyscheduler.repository import Claimed, ClaimRequest

T = TypeVar("T")

_INSTANT: Final = struct.Struct("!q")


GIVE_UP: Final = 10
"""Seconds after which a test gives up."""


class ShelfError(Exception):
    """What this driver raises."""


class ShelfListener:
    """One end of a pair of sockets, whose other end the shelf holds."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        connection.setblocking(False)

    def fileno(self) -> int:
        return self._connection.fileno()

    def drain(self) -> list[int]:
        heard = b""
        try:
            while data := self._connection.recv(4096):
                heard += data
        except BlockingIOError:
            return [at for (at,) in _INSTANT.iter_unpack(heard)]
        raise ShelfError("the connection was cut")

    def close(self) -> None:
        self._connection.close()

    @property
    def is_closed(self) -> bool:
        return self._connection.fileno() < 0


class Shelf:
    """Rows in memory, for several threads.

    Attributes:
        began: The names of the operations, in the order in which their calls began.
        ended: The same, of those that were carried out.
        most: How many calls were under way at the same time at most.
        aborted: The threads whose call was to be aborted.
        obeys: Whether a call that is aborted fails.
        fails_with: What every call raises; None if it works.
        can_listen: Whether there are listeners at all.
        refuses_listeners_with: What every attempt to get one raises; None if it works.
        listeners: Those that were made, in their order.
        closed: Whether `close` was called.
    """

    errors: Final = (ShelfError,)

    def __init__(self) -> None:
        self.began: list[str] = []
        self.ended: list[str] = []
        self.most = 0
        self.aborted: list[int] = []
        self.obeys = True
        self.fails_with: Exception | None = None
        self.can_listen = True
        self.refuses_listeners_with: Exception | None = None
        self.listeners: list[ShelfListener] = []
        self.closed = False
        self._rows = MemoryRepository()
        self._lock = threading.Lock()
        self._under_way: dict[int, threading.Event] = {}
        self._ears: list[socket.socket] = []
        self.answer()

    # What a test does to it.

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Lets calls that begin in the block hang, until it ends."""
        self._goes_on = goes_on = threading.Event()
        try:
            yield
        finally:
            # However the block ended: a thread that hung on would keep the event loop from its end.
            self.answer()
            goes_on.set()

    def answer(self) -> None:
        """Lets calls that begin from now on be carried out."""
        self._goes_on = threading.Event()
        self._goes_on.set()

    def announce(self, *instants: int) -> None:
        """Tells those who listen."""
        for ear in self._ears:
            ear.sendall(b"".join(map(_INSTANT.pack, instants)))

    def cut(self) -> None:
        """Cuts those off who listen."""
        for ear in self._ears:
            ear.close()
        self._ears.clear()

    # What it does as a store.

    def claim(
        self,
        requests: Sequence[ClaimRequest],
        limit: int,
        now: int | None,
        token: str,
        not_after: int | None = None,  # noqa: ARG002  # it goes by the clock of this machine
    ) -> Claimed:
        with self._call("claim"):
            return _run(self._rows.claim(requests, limit, now, token))

    def write(self, changes: Sequence[Change], *, announce: bool = False) -> Sequence[bool | None]:
        with self._call("announced write" if announce else "write"):
            return _run(self._rows.write(changes))

    def read(self, keys: Sequence[str]) -> dict[str, Row]:
        with self._call("read"):
            return _run(self._rows.read(keys))

    def page(self, task: str, after: str, limit: int) -> list[Row]:
        with self._call("page"):
            return list(_run(self._rows.list(task, after, limit)))

    def tasks(self) -> list[str]:
        with self._call("tasks"):
            return list(_run(self._rows.tasks()))

    def time(self) -> int | None:
        with self._call("time"):
            return 77

    def listener(self) -> ShelfListener | None:
        with self._call("listener"):
            if not self.can_listen:
                return None
            if self.refuses_listeners_with is not None:
                raise self.refuses_listeners_with
            ours, theirs = socket.socketpair()
            self._ears.append(ours)
            made = ShelfListener(theirs)
            self.listeners.append(made)
            return made

    def abort(self, thread: int) -> None:
        self.aborted.append(thread)
        if self.obeys:
            self._under_way[thread].set()

    def close(self) -> None:
        with self._call("close"):
            self.cut()
            self.closed = True

    @contextmanager
    def _call(self, name: str) -> Iterator[None]:
        goes_on, aborted = self._goes_on, threading.Event()
        me = threading.get_ident()
        with self._lock:
            self.began.append(name)
            self._under_way[me] = aborted
            self.most = max(self.most, len(self._under_way))
        try:
            while not goes_on.wait(0.001) and not aborted.is_set():
                pass
            if aborted.is_set():
                raise ShelfError("aborted")
            with self._lock:
                if self.fails_with is not None:
                    raise self.fails_with
                yield
                self.ended.append(name)
        finally:
            with self._lock:
                del self._under_way[me]


def _run(operation: Coroutine[Any, Any, T]) -> T:
    """Returns what a coroutine function that never waits returns."""
    try:
        operation.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError("the memory store never waits")


def over(shelf: Shelf, **options: Any) -> ThreadedRepository:
    """Returns the shelf as a repository."""
    return ThreadedRepository(shelf, "a shelf", **{"threads": 2, "patience": 30, **options})


async def until(condition: Callable[[], object]) -> None:
    """Waits for something that another thread does."""
    with anyio.fail_after(GIVE_UP):
        while not condition():
            await anyio.sleep(0.001)
