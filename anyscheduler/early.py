"""Rows that were claimed a moment before they are due, until they are.

Knows: rows, the time, a task group. Must not know: how a row is started or given back.
"""

from __future__ import annotations

from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Final

import anyio

from anyscheduler.alarm import sleep_until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from anyio.abc import TaskGroup

    from anyscheduler.lease import Row
    from anyscheduler.timekeeper import Timekeeper

_LONGEST: Final = 1_000_000
"""How many microseconds after its claim a row may be due that is held, and how long it is held at most.

No engine makes one claimable as early as that. Whoever did so in the store wants it to run.
"""

_due_at = attrgetter("due_at")


class EarlyRows:
    """Holds rows until they are due.

    Args:
        group: Where the waits are.
        now: The time; it says what is due for sure.
        start: Starts rows that are due, all of them at one instant.
        give_back: Takes rows that cannot be held any longer: the wait was cut off, or the clock was set back.
    """

    def __init__(
        self,
        group: TaskGroup,
        now: Timekeeper,
        start: Callable[[Sequence[Row]], Awaitable[object]],
        give_back: Callable[[Sequence[Row]], None],
    ) -> None:
        self._group = group
        self._now = now
        self._start = start
        self._give_back = give_back
        self._held: dict[Row, None] = {}

    def hold(self, rows: Sequence[Row], claimed_at: int) -> Sequence[Row]:
        """Holds those of the rows that are not due yet; returns the others, in their order.

        Args:
            rows: What a claim has brought.
            claimed_at: What the time was then. The clock may have been set back since.
        """
        now = self._now.surely()
        early = [row for row in rows if now < row.due_at <= claimed_at + _LONGEST]
        if not early:
            return rows
        self._held.update(dict.fromkeys(early))
        self._group.start_soon(self._wait, sorted(early, key=_due_at))
        return [row for row in rows if row not in self._held]

    def give_back_left(self) -> None:
        """Gives back what is held and will not be started any more, because the task group has ended."""
        self._give_back(self._taken(list(self._held)))

    async def _wait(self, rows: Sequence[Row]) -> None:
        try:
            # All of them together, however many times they have: a clock may stand still.
            with anyio.move_on_after(_LONGEST / 1e6):
                for due_at, group in groupby(rows, key=_due_at):
                    await sleep_until(due_at, self._now.surely)
                    await self._start(self._taken(group))
        finally:
            self._give_back(self._taken(rows))

    def _taken(self, rows: Iterable[Row]) -> list[Row]:
        """Returns those of the rows that are held, and holds them no longer."""
        taken = [row for row in rows if row in self._held]
        for row in taken:
            del self._held[row]
        return taken
