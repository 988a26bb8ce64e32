"""Group commit: what finishes while one write is under way goes with the next one, all together.

Knows: `Change`, repositories that may fail for a while. Must not know: why a change is made.

No timer is involved and no latency added: an idle settler writes at once, a busy one collects meanwhile. What an
outcome means is worked out as it is written: whatever can start is started first, and one reading of the clock and one
token serve for a whole batch.
"""

from __future__ import annotations

import math
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

import anyio

from anyscheduler.backoff import Backoff, Outage
from anyscheduler.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from anyscheduler.lease import Change, Row
    from anyscheduler.repository import Repository
    from anyscheduler.tokens import TokenSource

logger = get_logger(__name__)

_BATCH = 500
"""Changes per write. Measured on SQLite and PostgreSQL: larger batches gain little, and hold locks for longer."""

_FIRST_AGAIN = 0.1
_MOST_AGAIN = 2.0
"""After how many seconds, doubling from the first, what could not be written beside the rest is tried again."""


class Pending(Protocol):
    """A change that waits to be written."""

    @property
    def key(self) -> str:
        """What it changes."""
        ...

    @property
    def announce(self) -> bool:
        """Whether other processes should learn of it at once."""
        ...

    def work_out(self, now: int, token: str, /) -> Change:
        """Returns the change; called once, with the time in microseconds since the epoch and a new token.

        It must not raise.
        """
        ...

    def worth_until(self) -> int:
        """Returns the end of the lease it settles, in microseconds since the epoch.

        An extension that is written before it moves that. A write that fails is repeated until then; afterwards
        somebody else may have the occurrence, and the change is given up.
        """
        ...

    def done(self, change: Change, applied: bool | None, /) -> None:
        """Takes note of whether the change applied; None if it was given up. Called once."""
        ...


class Entry(NamedTuple):
    """A `Pending` that is put together of functions."""

    key: str
    work_out: Callable[[int, str], Change]
    worth_until: Callable[[], int]
    done: Callable[[Change, bool | None], None]
    announce: bool = False


_Write: TypeAlias = tuple[Pending, "Change"]
"""What waited until its turn had come, and its change. A bare tuple: one is made for every execution."""


class Settlement:
    """The queue of changes and the one task that writes them."""

    def __init__(
        self, repository: Repository, *, now: Callable[[], int], new_token: TokenSource, outage: Outage
    ) -> None:
        self._repository = repository
        self._now = now
        self._token = new_token
        self._queue: deque[Pending] = deque()
        self._doubtful: dict[str, _Write] = {}
        """What was tried, and may or may not have been applied."""
        self._again_after = 0.0
        self._again_at = -math.inf
        self._wake = anyio.Event()
        self._closed = False
        self._held_back = 0
        """How many ask for that at the moment."""
        self._writing = False
        self.finished = anyio.Event()
        """Set when `run` has returned."""
        self._scope = anyio.CancelScope(shield=True)
        self._backoff = Backoff("writing outcomes", outage)

    @property
    def is_idle(self) -> bool:
        """Whether everything that was queued is written."""
        return not (self._queue or self._doubtful or self._writing)

    def submit(self, entry: Pending) -> None:
        """Queues a change. Changes to one key are written in the order in which they came."""
        self._queue.append(entry)
        if not self._held_back:
            self._wake.set()

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """Begins no write meanwhile; what is queued waits for the end."""
        self._held_back += 1
        try:
            yield
        finally:
            self._held_back -= 1
            if self._queue and not self._held_back:
                self._wake.set()

    async def run(self) -> None:
        """Writes what is queued until `close` is called and nothing is left; cancelling it has no effect."""
        with self._scope:
            while not (self._closed and self.is_idle):
                with anyio.CancelScope(deadline=self._again_at if self._doubtful else math.inf):
                    await self._wake.wait()
                self._wake = anyio.Event()
                self._writing = True
                await self._write(self._next_batch())
                self._writing = False
                # What waits for another try of its key waits for that one's time as well.
                if any(entry.key not in self._doubtful for entry in self._queue):
                    self._wake.set()
        self.finished.set()

    def close(self, patience: float = math.inf) -> None:
        """Lets `run` return once everything queued is written, or after `patience` seconds."""
        self._closed = True
        self._wake.set()
        self._scope.deadline = anyio.current_time() + patience

    def _next_batch(self) -> dict[str, _Write]:
        batch: dict[str, _Write] = {}
        if anyio.current_time() >= self._again_at:
            self._doubtful = self._still_worth_it(self._doubtful)
            batch.update(self._doubtful)
        later: list[Pending] = []
        queue = self._queue
        now, token = self._now(), self._token()
        while queue and len(batch) < _BATCH:
            entry = queue.popleft()
            # No store has to say in which order two changes of one key in one statement apply.
            if entry.key in batch or entry.key in self._doubtful:
                later.append(entry)
            else:
                batch[entry.key] = entry, entry.work_out(now, token)
        queue.extendleft(reversed(later))
        return batch

    async def _write(self, batch: dict[str, _Write]) -> None:
        if not batch:
            return
        changes = [change for _, change in batch.values()]
        announce = any(entry.announce for entry, _ in batch.values())
        try:
            applied = await self._repository.write(changes, announce=announce)
            applied = await self._recognise(batch, applied)
        except Exception as error:  # noqa: BLE001  # whatever a store raises, the outcomes must not be lost with it
            self._doubtful = self._still_worth_it(self._doubtful | batch)
            await anyio.sleep(self._backoff.failed(error))
            self._doubtful = self._still_worth_it(self._doubtful)
            self._again_at = -math.inf
            if self._doubtful:
                self._wake.set()
            else:
                self._backoff.given_up()
            return
        self._backoff.succeeded()
        untried = self._doubtful.keys() - batch.keys()
        for (key, (entry, change)), result in zip(batch.items(), applied, strict=True):
            if result is None:
                self._doubtful[key] = entry, change
            else:
                self._doubtful.pop(key, None)
                entry.done(change, result)
        if untried:
            # Their time stays: put off by each write of something else, it would never come.
            return
        # A row that somebody else has locked, or a node that is away, holds up nothing but itself.
        self._again_after = min(_MOST_AGAIN, 2 * self._again_after or _FIRST_AGAIN) if self._doubtful else 0.0
        self._again_at = anyio.current_time() + self._again_after

    async def _recognise(self, batch: dict[str, _Write], applied: Sequence[bool | None]) -> Sequence[bool | None]:
        """Corrects a False that only means that an earlier try went through and its reply was lost."""
        refused = {key for key, result in zip(batch, applied, strict=True) if result is False and key in self._doubtful}
        if not refused:
            return applied
        stored = await self._repository.read(list(refused))
        now = self._now()
        return [
            _is_stored(batch[key], stored.get(key), now) if key in refused else result
            for key, result in zip(batch, applied, strict=True)
        ]

    def _still_worth_it(self, writes: dict[str, _Write]) -> dict[str, _Write]:
        now = self._now()
        kept: dict[str, _Write] = {}
        for key, (entry, change) in writes.items():
            if entry.worth_until() > now:
                kept[key] = entry, change
            else:
                entry.done(change, None)
        return kept


def _is_stored(write: _Write, stored: Row | None, now: int) -> bool:
    """Tells whether an earlier try of a write has made of the row what the store has now.

    A row that is gone does not say who has removed it. Until the lease ends nobody else can have settled it; after that
    whoever has claimed it may be executing it.
    """
    entry, change = write
    return stored == change.row and (stored is not None or entry.worth_until() > now)
