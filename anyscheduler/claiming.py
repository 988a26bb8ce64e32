"""Asking the store for due rows: which tasks are asked for, in which order, and what the reply tells about the time.

Knows: repositories, claim requests, the time. Must not know: what becomes of the rows.
"""

from __future__ import annotations

import math
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

import anyio

from anyscheduler.timekeeper import Timekeeper, steady

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from anyscheduler.repository import Claimed, ClaimRequest, Repository
    from anyscheduler.tokens import TokenSource

_MANY: Final = 8
"""Of how many tasks a claim has to give a row before that says something of others: a single free slot gives one."""

_MARGIN: Final = 1.25
"""For how many times as many tasks the next claim then asks as this one had to look at for each row."""


class Answer(NamedTuple):
    """What the store has answered.

    Attributes:
        claimed: The reply.
        is_complete: Whether nothing that it tells of was left behind: all tasks were asked for, and the limit was not
            reached.
    """

    claimed: Claimed
    is_complete: bool


class Claimer:
    """Claims for one engine.

    Args:
        repository: The store.
        requests: What this engine can execute.
        now: The time; learns what the store's clock shows.
        new_token: Draws fence tokens.
    """

    def __init__(
        self, repository: Repository, requests: Iterable[ClaimRequest], *, now: Timekeeper, new_token: TokenSource
    ) -> None:
        self._repository = repository
        self._requests = deque(requests)
        self._reach: float | None = None
        """For how many of the requests the next claim asks, for each row that it wants; None for all."""
        self._now = now
        self._token = new_token
        self._scope = anyio.CancelScope()

    async def claim(self, limit: int) -> Answer | None:
        """Claims up to `limit` due rows; cancelled, it still waits for the reply, and returns None if none comes.

        Raises:
            RepositoryError: The store failed.
        """
        count = None if self._reach is None else math.ceil(self._reach * limit)
        requests = tuple(islice(self._requests, count))
        now, not_after, asked = self._now.to_claim_at, self._now.not_after, steady()
        claimed = None
        # Shielded: a claim that was cut off would leave leases that nobody knows of.
        with anyio.CancelScope(shield=True) as self._scope:
            claimed = await self._repository.claim(requests, limit, now, self._token(), not_after)
        if claimed is None:
            return None
        if now is None:
            self._now.learn(claimed.now, asked)
        is_complete = len(claimed.rows) < limit and len(requests) == len(self._requests)
        was_cut_off = len(claimed.rows) == limit and len(self._requests) > 1
        self._reach = self._pass_on(requests, claimed) if was_cut_off else None
        return Answer(claimed, is_complete)

    def hurry(self, seconds: float) -> None:
        """Waits no longer than that for the reply to the claim that is under way."""
        self._scope.deadline = anyio.current_time() + seconds

    def _pass_on(self, requests: Sequence[ClaimRequest], claimed: Claimed) -> float | None:
        """Lets the next claim begin with the task behind the one that the limit stopped at.

        Returns for how many it asks, for each row. Where each of many tasks gave one row, as those do that are due at
        one second, these are the next few only: to look at each of a thousand for every hundred that are claimed would
        take longer than to execute them.
        """
        places = {request.task: place for place, request in enumerate(requests)}
        # A damaged row may be of a task that nobody asked for; it is its own affair.
        place = next((places[row.task] for row in reversed(claimed.rows) if row.task in places), None)
        if place is None:
            return None
        self._requests.rotate(-(place + 1))
        served = {row.task for row in claimed.rows}
        return _MARGIN * (place + 1) / len(served) if _MANY <= len(served) == len(claimed.rows) else None
