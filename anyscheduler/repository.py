"""The contract between the engine and a store: what each operation must do, in prose.

Knows: `Row` and `Change`. Must not know: leases, failure modes, triggers; and no store needs to know them either.

Every instant is an int in microseconds since the epoch, UTC. Every operation is atomic on its own: another process sees
all of it or nothing. An operation that cannot be carried out raises `RepositoryError` from the driver's own error, and
may then have been carried out all the same (a lost reply); the engine knows how to repeat it. A cancelled operation has
either not begun, or runs to its end; only one that the store does not answer is given up.

A row's key is its task, or its task, a colon and more; the task itself holds no colon. So all instances of a task lie
side by side when rows are ordered by key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    from anyscheduler.lease import Change, Row


class ClaimRequest(NamedTuple):
    """Asks for due rows of one task.

    Attributes:
        task: The `Row.task` to claim.
        lease: How long a claimed row stays leased, in microseconds.
    """

    task: str
    lease: int


class Claimed(NamedTuple):
    """What a claim brought.

    Attributes:
        rows: The rows as they are now stored, under their lease.
        next_claimable: The earliest `claimable_at` among the requested tasks after the claim, or None if they have no
            rows. It may lie in the past when due rows were left behind.
        now: The instant that was asked for, or what the store's own clock shows, whatever `not_after` says.
    """

    rows: list[Row]
    next_claimable: int | None
    now: int


class Repository(Protocol):
    """A store of schedules."""

    description: str
    """What it is and where, for people; it never holds a password."""

    async def claim(
        self, requests: Sequence[ClaimRequest], limit: int, now: int | None, token: str, not_after: int | None = None
    ) -> Claimed:
        """Leases up to `limit` claimable rows of the requested tasks, in one round trip.

        A row is eligible when all of these hold:

        1. its task is among the requests; rows of other tasks are neither returned nor changed nor in the way;
        2. its `claimable_at` is `now` or earlier;
        3. no other claim takes it: two claims at the same instant never return the same row.

        With None for `now` the store's own clock decides; only a store whose `time()` is not None takes that. It is
        then taken to be `not_after` at most, so that a clock that was set ahead does not end everybody's leases.

        A claimed row gets `claimable_at = now + request.lease` and `token`, made later where the row has had a later
        one (`lease.later_token`); nothing else in it changes.

        Inside a task the earliest `claimable_at` comes first. Between tasks the claim is fair: while the limit lasts,
        each task with eligible rows gets one in the order of the requests, then each a second one, and so on. The cost
        may grow with the number of requests and of claimed rows, and not with the rows that are stored.
        """
        ...

    async def write(self, changes: Sequence[Change], *, announce: bool = False) -> Sequence[bool | None]:
        """Applies each change whose `expected` token is still the stored one, in one round trip.

        Returns for each change, in their order: False if it did not apply, because the row carries another token, or is
        gone, or (`expected=None`) exists; None if that cannot be told now, because somebody else has locked the row, or
        the part of the store that it lies in is away. Neither holds up another change. No key occurs twice, and no
        change gives a stored key another task.

        With `announce` those who `listen`, in any process, learn of the earliest `claimable_at` that was applied.
        """
        ...

    async def read(self, keys: Sequence[str]) -> dict[str, Row]:
        """Returns the stored rows among `keys`, by key."""
        ...

    async def list(self, task: str, after: str, limit: int) -> Sequence[Row]:
        """Returns up to `limit` rows of `task` whose key sorts after `after` by code point, in that order.

        The last key is the next page's `after`, so that paging shows every row that was there throughout.
        """
        ...

    async def tasks(self) -> Sequence[str]:
        """Returns the distinct `Row.task` values in the store, at a cost of one index look-up each."""
        ...

    async def time(self) -> int | None:
        """Returns what the store's own clock shows; None if it goes by the clock of the machine that it is used on."""
        ...

    async def listen(self, wake: Callable[[int], None]) -> None:
        """Calls `wake` with each instant that a write announces, until it is cancelled.

        After announcements may have been missed it calls `wake` with the earliest int there is. It returns at once if
        the store cannot tell, and raises no error: whoever relies on it looks at the store now and then anyway.
        """
        ...


RepositoryFactory: TypeAlias = Callable[..., AbstractAsyncContextManager[Repository]]
"""Opens a store. Called with its own options by keyword, it returns a context manager around a `Repository`.

The call itself validates the options (`ConfigurationError`) and opens nothing; entering the context manager does. The
scheduler finds out which options exist from the factory's signature.
"""
