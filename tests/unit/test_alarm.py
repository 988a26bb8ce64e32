"""The last millisecond of a long sleep on a real clock; what an alarm does otherwise is shown by `tests/loop`."""

from __future__ import annotations

import time
from itertools import count
from typing import TYPE_CHECKING

import anyio
import pytest

from anyscheduler.alarm import AT_ONCE, Alarm

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

pytestmark = pytest.mark.anyio

HOUR = 3_600.0
LONG = 150_000
"""Microseconds, of which the end is waited for precisely."""


def now() -> int:
    return time.time_ns() // 1_000


async def test_a_long_sleep_does_not_end_before_its_instant() -> None:
    alarm = Alarm(now, HOUR)
    for extra in range(0, 1_000, 125):
        at = now() + LONG + extra
        alarm.set_for(at)
        await alarm.sleep()
        assert now() >= at
        assert alarm.rang


async def test_a_short_sleep_behind_a_long_one_does_not_end_before_its_instant_either() -> None:
    alarm = Alarm(now, HOUR)
    alarm.set_for(now() + LONG)
    await alarm.sleep()
    for wait in (300, 2_000):
        at = now() + wait
        alarm.set_for(at)
        await alarm.sleep()
        assert now() >= at


async def _in_its_last_millisecond(group: TaskGroup) -> tuple[Alarm, list[int]]:
    """Starts a sleep whose clock then goes to and fro by a microsecond, half a millisecond before the end."""
    readings, ticks = [now()], count()
    alarm = Alarm(lambda: readings[0] + next(ticks) % 2, HOUR)
    alarm.set_for(readings[0] + LONG)
    group.start_soon(alarm.sleep)
    await anyio.wait_all_tasks_blocked()
    readings[0] += LONG - 500
    await anyio.sleep(2 * LONG / 1e6)
    return alarm, readings


async def test_others_have_their_turn_in_the_last_millisecond() -> None:
    async with anyio.create_task_group() as group:
        alarm, readings = await _in_its_last_millisecond(group)
        for _ in range(4):
            readings[0] += 100
            await anyio.sleep(0.01)
            assert not alarm.rang
        readings[0] += 100
    assert alarm.rang


async def test_a_closer_wish_ends_the_last_millisecond() -> None:
    async with anyio.create_task_group() as group:
        alarm, _ = await _in_its_last_millisecond(group)
        assert not alarm.rang
        alarm.set_for(AT_ONCE)
    assert alarm.rang


async def test_a_cancelled_sleeper_leaves_the_last_millisecond() -> None:
    async with anyio.create_task_group() as group:
        alarm, _ = await _in_its_last_millisecond(group)
        group.cancel_scope.cancel()
    assert not alarm.rang


async def test_a_clock_that_stands_still_is_looked_at_again_after_a_sleep() -> None:
    # As with virtual time, where to go on without waiting would be for ever.
    alarm = Alarm(lambda: 0, HOUR)
    alarm.set_for(LONG)
    await alarm.sleep()
    assert not alarm.rang


async def test_a_sleep_that_nobody_wants_to_end_does_not_go_by_turns() -> None:
    readings = 0

    def counted() -> int:
        nonlocal readings
        readings += 1
        return now()

    await Alarm(counted, 0.2).sleep()
    assert readings <= 6


async def test_a_clock_that_is_set_back_in_the_last_leg_ends_the_turns() -> None:
    readings, ticks = [now()], count()
    alarm = Alarm(lambda: readings[0] + next(ticks) % 2, HOUR)
    async with anyio.create_task_group() as group:
        alarm.set_for(readings[0] + LONG)
        group.start_soon(alarm.sleep)
        await anyio.wait_all_tasks_blocked()
        readings[0] -= LONG
        await anyio.sleep(2 * LONG / 1e6)
        before = next(ticks)
        await anyio.sleep(0.05)
        assert next(ticks) - before < 5
        alarm.set_for(AT_ONCE)
