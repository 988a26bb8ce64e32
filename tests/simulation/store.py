"""The store that all simulated processes share, and the network between it and each of them.

The store keeps its rows in memory, goes by a clock of its own, and writes down all that it does. The network loses
requests and replies, delays them until the client has given up, and delivers a request twice.
"""

from __future__ import annotations

import contextvars
import enum
import math
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar

import trio

from anyscheduler.errors import RepositoryError
from anyscheduler.memory import MemoryRepository
from tests.simulation.machine import true_now

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable, Sequence

    from anyscheduler.lease import Change, Row
    from anyscheduler.repository import Claimed, ClaimRequest
    from tests.simulation.history import History

T = TypeVar("T")

_GRACE: Final = 0.5
"""For how many seconds a call that was cancelled is still waited for."""


class Store:
    """The server.

    Args:
        history: Where it writes down what it does.
        nursery: Where requests are carried out, whatever becomes of those who sent them.
        has_clock: Whether its own clock decides what is due, as that of a server does and that of a file does not.
    """

    def __init__(self, history: History, nursery: trio.Nursery, *, has_clock: bool) -> None:
        self.inner = MemoryRepository()
        self.history = history
        self.listeners: dict[str, trio.MemorySendChannel[int]] = {}
        self._has_clock = has_clock
        self._nursery = nursery
        self._context = contextvars.copy_context()

    def carry_out(self, request: Callable[[], Awaitable[None]]) -> None:
        """Begins to carry out a request, apart from the process that sent it."""
        self._context.copy().run(self._nursery.start_soon, request)

    @property
    def rows(self) -> dict[str, Row]:
        """The rows, by key."""
        return self.inner._rows

    async def claim(
        self,
        who: str,
        requests: Sequence[ClaimRequest],
        limit: int,
        *,
        now: int | None,
        token: str,
        not_after: int | None,
    ) -> Claimed:
        """See `Repository.claim`."""
        shown = true_now()
        before = self.rows.copy()
        at = now if now is not None else shown if not_after is None else min(shown, not_after)
        claimed = await self.inner.claim(requests, limit, at, token)
        for row in claimed.rows:
            self.history.note(who, "grant", row.key, due=row.due_at, token=token, before=before[row.key], after=row)
        return claimed._replace(now=shown) if now is None else claimed

    async def write(self, who: str, changes: Sequence[Change], *, announce: bool) -> list[bool]:
        """See `Repository.write`."""
        before = self.rows.copy()
        applied = await self.inner.write(changes)
        for change, applies in zip(changes, applied, strict=True):
            if applies:
                self.history.note(who, "write", change.key, before=before.get(change.key), after=change.row)
        written = [change.row for change, applies in zip(changes, applied, strict=True) if applies]
        if announce:
            self._announce(min((row.claimable_at for row in written if row is not None), default=None))
        return applied

    async def time(self) -> int | None:
        """See `Repository.time`."""
        return true_now() if self._has_clock else None

    def _announce(self, earliest: int | None) -> None:
        if earliest is not None:
            for listener in self.listeners.values():
                listener.send_nowait(earliest)


class Fault(enum.StrEnum):
    """What can happen to a request."""

    NONE = enum.auto()
    DROPPED = enum.auto()
    """It never arrives, and the client gives up after a while."""
    REFUSED = enum.auto()
    """It fails before anything is done."""
    BROKEN = enum.auto()
    """It is carried out, and an error comes back."""
    LOST = enum.auto()
    """It is carried out, and nothing comes back."""
    SLOW = enum.auto()
    """It, or its reply, takes long; now and then it arrives when the client has given up."""
    REPEATED = enum.auto()
    """It is carried out twice; the first reply comes back."""


_FAULTS: Final = tuple(Fault)[1:]


class Weather:
    """What the network does to requests.

    Args:
        random: Decides.
        rate: How probably something happens to a request.
        patience: After how many seconds a client gives up.
    """

    def __init__(self, random: random.Random, rate: float, patience: float) -> None:
        self.random = random
        self.rate = rate
        self.patience = patience

    def fault(self) -> Fault:
        """Decides what happens to a request."""
        return self.random.choice(_FAULTS) if self.random.random() < self.rate else Fault.NONE

    def latency(self, fault: Fault) -> float:
        """Decides how many seconds one way takes."""
        if fault is Fault.SLOW:
            return self.random.uniform(0, self.patience) * self.random.choice((0.2, 1.0, 1.5))
        return self.random.uniform(0.001, 0.015)


class _Answer(Generic[T]):
    def __init__(self) -> None:
        self.arrived = trio.Event()
        self.error: RepositoryError | None = None
        self.value: T | None = None


class Client(NamedTuple):
    """The process that a connection belongs to.

    Attributes:
        name: "slot.incarnation".
        is_dead: Tells whether it was killed, and so neither sends nor hears anything any more.
    """

    name: str
    is_dead: Callable[[], bool]


class Connection:
    """A `Repository`: the store, as one process reaches it."""

    description = "a simulated store"

    def __init__(self, store: Store, client: Client, weather: Weather) -> None:
        self._store = store
        self._client = client
        self._weather = weather

    async def claim(
        self, requests: Sequence[ClaimRequest], limit: int, now: int | None, token: str, not_after: int | None = None
    ) -> Claimed:
        self._store.history.note(self._client.name, "asks to claim", token=token)
        asked = tuple(requests)

        def carry_out() -> Awaitable[Claimed]:
            return self._store.claim(self._client.name, asked, limit, now=now, token=token, not_after=not_after)

        return await self._ask("claim", carry_out)

    async def write(self, changes: Sequence[Change], *, announce: bool = False) -> Sequence[bool | None]:
        asked = tuple(changes)
        return await self._ask("write", lambda: self._store.write(self._client.name, asked, announce=announce))

    async def read(self, keys: Sequence[str]) -> dict[str, Row]:
        asked = tuple(keys)
        return await self._ask("read", lambda: self._store.inner.read(asked))

    async def list(self, task: str, after: str, limit: int) -> Sequence[Row]:
        return await self._ask("list", lambda: self._store.inner.list(task, after, limit))

    async def tasks(self) -> Sequence[str]:
        return await self._ask("tasks", self._store.inner.tasks)

    async def time(self) -> int | None:
        return await self._ask("time", self._store.time)

    async def listen(self, wake: Callable[[int], None]) -> None:
        send, receive = trio.open_memory_channel[int](math.inf)
        self._store.listeners[self._client.name] = send
        try:
            async for at in receive:
                wake(at)
        finally:
            del self._store.listeners[self._client.name]

    async def _ask(self, operation: str, carry_out: Callable[[], Awaitable[T]]) -> T:
        await trio.lowlevel.checkpoint()  # cancelled before it has begun
        if self._client.is_dead():
            await trio.sleep_forever()
        fault = self._weather.fault()
        if fault is not Fault.NONE:
            self._store.history.note(self._client.name, "fault", detail=f"{operation} {fault}")
        answer: _Answer[T] = _Answer()
        self._store.carry_out(lambda: self._deliver(fault, carry_out, answer))
        try:
            with trio.fail_after(self._weather.patience):
                await answer.arrived.wait()
        except trio.TooSlowError:
            raise RepositoryError("no answer") from None
        except trio.Cancelled:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _GRACE):
                await answer.arrived.wait()
            raise
        if self._client.is_dead():
            await trio.sleep_forever()
        if answer.error is not None:
            raise answer.error
        return answer.value  # type: ignore[return-value]  # it was answered without an error

    async def _deliver(self, fault: Fault, carry_out: Callable[[], Awaitable[T]], answer: _Answer[T]) -> None:
        await trio.sleep(self._weather.latency(fault))
        if fault is Fault.DROPPED:
            return
        if fault is not Fault.REFUSED:
            answer.value = await carry_out()
            if fault is Fault.REPEATED:
                await carry_out()
        await trio.sleep(self._weather.latency(fault))
        if fault in {Fault.REFUSED, Fault.BROKEN}:
            answer.error = RepositoryError(f"the connection broke: {fault}")
        if fault is not Fault.LOST:
            answer.arrived.set()
