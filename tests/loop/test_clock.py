"""A wall clock that is set while the app runs."""

from __future__ import annotations

from datetime import timedelta

import anyio
import pytest

from anyscheduler import Context, FailureMode, Scheduler
from anyscheduler.testing import VirtualClock
from tests.loop.scene import (
    START,
    Stopwatch,
    WatchedRepository,
    run_for,
    running,
    seconds,
    shared,
    virtual,
    virtual_app,
)

HOUR = timedelta(hours=1)
YEAR = timedelta(days=365)


def _jumps(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if "the clock was set" in record.message]


@pytest.mark.parametrize("fast_forward", [False, True])
@virtual
async def test_set_back_an_hour_while_a_body_runs_nothing_runs_early_or_twice(
    fast_forward: bool, caplog: pytest.LogCaptureFixture
) -> None:
    clock = VirtualClock(START)
    app = virtual_app(clock=clock)
    runs: list[tuple[float, float]] = []

    @app.task(interval=timedelta(minutes=10), fast_forward=fast_forward)
    async def tick(context: Context) -> None:
        runs.append((seconds(context.scheduled_at), seconds(clock())))
        await anyio.sleep(20)

    async with running(app):
        await anyio.sleep(605)
        clock.ahead = -HOUR
        await anyio.sleep(3600 + 1200)

    assert [due for due, _ in runs] == [600, 1200, 1800]
    assert all(start >= due for due, start in runs)
    assert _jumps(caplog) == ["the clock was set back by 3600.0 s"]


@pytest.mark.parametrize("jump", [HOUR, YEAR], ids=["an hour", "a year"])
@virtual
async def test_set_ahead_while_a_body_runs_it_is_not_overtaken(
    jump: timedelta, caplog: pytest.LogCaptureFixture
) -> None:
    clock = VirtualClock(START)
    app = virtual_app(clock=clock)
    now = Stopwatch()
    events: list[tuple[str, float, float]] = []

    @app.task(interval=timedelta(minutes=10), fast_forward=True)
    async def slow(context: Context) -> None:
        events.append(("start", seconds(context.scheduled_at), now()))
        await anyio.sleep(20)
        events.append(("end", seconds(context.scheduled_at), now()))

    async with running(app):
        await anyio.sleep(605)
        clock.ahead = jump
        await anyio.sleep(500)

    # The next one lies in the future of the clock as it was set.
    assert events[:2] == [("start", 600, 600), ("end", 600, 620)]
    assert [due for kind, due, _ in events if kind == "start"] == [600]
    assert len(_jumps(caplog)) == 1
    assert "ahead" in _jumps(caplog)[0]


@virtual
async def test_set_ahead_an_hour_what_was_missed_is_caught_up_once_each() -> None:
    clock = VirtualClock(START)
    app = virtual_app(clock=clock)
    due: list[float] = []

    @app.task(interval=timedelta(minutes=10))
    async def tick(context: Context) -> None:
        due.append(seconds(context.scheduled_at))

    async with running(app):
        await anyio.sleep(605)
        clock.ahead = HOUR
        await anyio.sleep(500)

    assert due == [600 * number for number in range(1, 8)]


@pytest.mark.parametrize("limit", [1, 100], ids=["no slot is free", "slots are free"])
@virtual
async def test_set_ahead_two_apps_on_one_store_do_not_take_each_others_leases(limit: int) -> None:
    repository = WatchedRepository()
    clock = VirtualClock(START)
    now = Stopwatch()
    starts: list[tuple[float, float]] = []

    def make() -> Scheduler:
        app = virtual_app(clock=clock, repository_factory=shared(repository), concurrency_limit=limit)

        @app.task(interval=timedelta(minutes=10), fast_forward=True)
        async def slow(context: Context) -> None:
            starts.append((seconds(context.scheduled_at), now()))
            await anyio.sleep(30)

        return app

    async with anyio.create_task_group() as group:
        group.start_soon(run_for, make(), 700)
        await anyio.sleep(0.4)
        group.start_soon(run_for, make(), 700)
        await anyio.sleep(605)
        clock.ahead = YEAR

    assert starts == [(600, 600)]


@virtual
async def test_set_ahead_whoever_is_woken_meanwhile_leaves_the_others_their_leases() -> None:
    repository = WatchedRepository()
    clock = VirtualClock(START)
    now = Stopwatch()
    starts: list[float] = []

    def make(*, is_busy: bool) -> Scheduler:
        app = virtual_app(clock=clock, repository_factory=shared(repository))

        @app.task(interval=timedelta(minutes=10), fast_forward=True)
        async def slow(context: Context) -> None:
            starts.append(now())
            await anyio.sleep(30)

        if is_busy:
            # What it writes at the end of each body wakes it.
            for length in (0.3, 0.5):

                @app.task(interval=timedelta(seconds=1), name=f"busy for {length}")
                async def busy(context: Context, length: float = length) -> None:
                    await anyio.sleep(length)

        return app

    async with anyio.create_task_group() as group:
        group.start_soon(run_for, make(is_busy=False), 640)
        await anyio.sleep(600.2)
        group.start_soon(run_for, make(is_busy=True), 35)
        await anyio.sleep(5.1)
        clock.ahead = timedelta(hours=1)

    assert starts == [600]


@virtual
async def test_set_ahead_while_the_loop_is_woken_at_once_a_running_body_is_not_overtaken() -> None:
    clock = VirtualClock(START)
    app = virtual_app(clock=clock)
    now = Stopwatch()
    starts: list[float] = []

    @app.task(interval=timedelta(minutes=10), fast_forward=True)
    async def slow(context: Context) -> None:
        starts.append(now())
        await anyio.sleep(30)

    @app.dynamic_task()
    async def soon(context: Context) -> None: ...

    async with running(app) as app_context:
        await anyio.sleep(605)
        clock.ahead = YEAR
        await app_context.schedule_task(soon, "it", execute_at=START)
        await anyio.sleep(60)

    assert starts == [600]


@virtual
async def test_set_back_and_ahead_again_a_day_of_runs_is_complete() -> None:
    clock = VirtualClock(START)
    app = virtual_app(clock=clock, poll_interval=timedelta(minutes=1))
    due: list[float] = []

    @app.task(schedule="0 * * * *", failure_mode=FailureMode.UNLOCK)
    async def hourly(context: Context) -> None:
        due.append(seconds(context.scheduled_at))

    async with running(app):
        for jump in (0, -1800, 1800, 7200, -7200, 0):
            clock.ahead = timedelta(seconds=jump)
            await anyio.sleep(4 * 3600)
        await anyio.sleep(60)

    assert due == [3600 * number for number in range(1, 25)]


@virtual
async def test_small_corrections_are_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    clock = VirtualClock(START)
    app = virtual_app(clock=clock)
    due: list[float] = []

    @app.task(interval=timedelta(seconds=10))
    async def tick(context: Context) -> None:
        due.append(seconds(context.scheduled_at))

    async with running(app):
        for step in range(20):
            clock.ahead = timedelta(seconds=0.5 * (step % 2))
            await anyio.sleep(5)

    assert due[:9] == [10 * number for number in range(1, 10)]
    assert _jumps(caplog) == []


@virtual
async def test_a_loop_that_was_held_up_says_so(caplog: pytest.LogCaptureFixture) -> None:
    import asyncio  # noqa: PLC0415  # how time is held up depends on the event loop

    import trio.lowlevel  # noqa: PLC0415

    app = virtual_app()

    @app.task(interval=timedelta(seconds=10))
    async def blocks(context: Context) -> None:
        # What a body that blocks does to virtual time: it goes on while nothing else runs.
        try:
            asyncio.get_running_loop()._jumping.elapsed += 30  # type: ignore[attr-defined]
        except RuntimeError:
            trio.lowlevel.current_clock().jump(30)  # type: ignore[attr-defined]

    await run_for(app, 45)

    assert [record for record in caplog.records if "woke up" in record.message]
