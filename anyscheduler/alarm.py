"""Waiting: a sleep whose end can be moved closer while it lasts, and a watch on clocks that are set.

Knows: the clock and anyio's timers. Must not know: what is waited for.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import anyio
import anyio.lowlevel

if TYPE_CHECKING:
    from collections.abc import Callable

NEVER: Final = 2**63 - 1
AT_ONCE: Final = -(2**63)

_LAST_LEG: Final = 0.05
"""How many seconds before its end a long sleep is interrupted for a precise one."""

_TICK: Final = 0.0011
"""How many seconds before its end a wait is too short for an event loop: it counts in milliseconds, rounded up."""

_READINGS: Final = 20
"""After how many readings a clock that counts microseconds has gone on; they take three."""

_TOLERANCE: Final = 1.0
"""By how many seconds the wall clock may leave the monotonic one between two looks before it counts as set."""


class Alarm:
    """Wakes one sleeper at the earliest instant that anybody asked for, but `longest` seconds from now at the latest.

    The limit makes the sleeper look at the clock again: wall clocks are set, and machines are suspended.

    Args:
        now: The time, in microseconds since the epoch.
        longest: How many seconds to sleep at most.
    """

    def __init__(self, now: Callable[[], int], longest: float) -> None:
        self._now = now
        self._longest = longest
        self._latest = -math.inf
        self._was_long = False
        self._margin = 0.0
        self._at = NEVER
        self._scope: anyio.CancelScope | None = None
        self.rang = False
        """Whether the last sleep ended at an instant that was asked for, and not because of `longest`."""

    def set_for(self, at: int) -> None:
        """Asks to be woken at `at` (microseconds since the epoch) or earlier, in this sleep or else in the next one."""
        if at < self._at:
            self._at = at
            if self._scope is not None:
                self._scope.deadline = min(self._scope.deadline, self._deadline())

    async def sleep(self) -> float:
        """Sleeps until the earliest instant that was asked for since the last sleep ended.

        Returns by how many seconds it woke up too late.
        """
        self._latest = anyio.current_time() + self._longest
        late = 0.0
        # Linux may end a wait late by a thousandth of its length, so a long one ends with a short one.
        # Source: select_estimate_accuracy() in the kernel's fs/select.c. Measured: 1 ms after 1 s, 0.1 ms after 50 ms.
        is_long = self._remaining() > 2 * _LAST_LEG
        # So is the next one, because a store's clock may show a little less than it was taken to show.
        may_be_precise = is_long or self._was_long
        self._was_long = is_long
        if is_long:
            late = await self._sleep_until_before(_LAST_LEG)
        is_precise = may_be_precise and self._wish_comes_first() and _goes_on(self._now)
        if is_precise:
            late = max(late, await self._sleep_until_before(_TICK))
            # Everybody else has their turn meanwhile. Once after a sleep as long as that it is no burden, and a
            # millisecond is what a hundred executions take.
            while 0 < self._remaining() < 2 * _TICK:
                await anyio.lowlevel.checkpoint()
        # There is something left if the clock was set back meanwhile.
        if not is_precise or self._remaining() > 0:
            late = max(late, await self._sleep_until_before(0.0))
            # uvloop rounds a wait to milliseconds, down as well as up.
            while 0 < self._remaining() < _TICK and _goes_on(self._now):
                await anyio.lowlevel.checkpoint()
        self.rang = self._at <= self._now()
        self._at = NEVER
        return late

    async def _sleep_until_before(self, margin: float) -> float:
        """Sleeps until so many seconds before the end, which may come closer; returns by how many it was too late."""
        self._margin = margin
        with anyio.CancelScope(deadline=self._deadline()) as scope:
            self._scope = scope
            try:
                await anyio.sleep_forever()
            finally:
                self._scope = None
        return max(0.0, anyio.current_time() - scope.deadline - margin)

    def _deadline(self) -> float:
        return anyio.current_time() + max(0.0, self._remaining() - self._margin)

    def _wish_comes_first(self) -> bool:
        return (self._at - self._now()) / 1e6 < self._latest - anyio.current_time()

    def _remaining(self) -> float:
        if self._at == AT_ONCE:
            return -math.inf
        return min(self._latest - anyio.current_time(), (self._at - self._now()) / 1e6)


async def sleep_until(at: int, now: Callable[[], int]) -> None:
    """Sleeps until `now` returns `at` (microseconds since the epoch) or later, to the turn of the event loop.

    For a few milliseconds: it sleeps half of what is left, again and again, because an event loop may end a wait nearly
    two too late. asyncio rounds up to milliseconds twice, and 9 * 1e-3 is more than 9 of them.
    """
    while (remaining := (at - now()) / 1e6) > 0:
        if remaining > _TICK:
            await anyio.sleep(remaining / 2)
        elif _goes_on(now):
            await anyio.lowlevel.checkpoint()
        else:
            await anyio.sleep(remaining)


def _goes_on(now: Callable[[], int]) -> bool:
    """Tells whether the clock goes on while nobody waits, as no virtual one does."""
    shown = now()
    return any(now() != shown for _ in range(_READINGS))


class ClockWatch:
    """Notices a wall clock that was set, or stood still with the machine, by comparing it with the monotonic one."""

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self._wall, self._monotonic = now(), anyio.current_time()

    def jump(self) -> float:
        """Returns by how many seconds the clock was set since the last call: ahead if positive, 0.0 if it was not."""
        wall, monotonic = self._now(), anyio.current_time()
        jump = (wall - self._wall) / 1e6 - (monotonic - self._monotonic)
        self._wall, self._monotonic = wall, monotonic
        return jump if abs(jump) > _TOLERANCE else 0.0
