"""Attempts to break the engine: errors and cancellation where nobody expects them."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

import anyio
import pytest

from anyscheduler import Context, ExecutionMode, FailureMode, Scheduler, trigger
from anyscheduler.testing import VirtualClock, run_virtual
from tests.loop.scene import (
    START,
    Stopwatch,
    WatchedRepository,
    micros,
    run_for,
    running,
    seconds,
    shared,
    virtual,
    virtual_app,
)


@pytest.mark.parametrize("mode", ExecutionMode)
@virtual
async def test_whenever_it_is_cancelled_no_lease_is_left_and_no_finished_run_is_repeated(mode: ExecutionMode) -> None:
    slowness = {"claim": 0.3, "write": 0.2}
    for tenth in range(45, 90):
        repository = WatchedRepository()
        clock = VirtualClock(START)
        started: list[float] = []
        finished: list[float] = []

        def make(
            repository: WatchedRepository = repository,
            clock: VirtualClock = clock,
            started: list[float] = started,
            finished: list[float] = finished,
        ) -> Scheduler:
            app = virtual_app(clock=clock, repository_factory=shared(repository))

            @app.task(interval=timedelta(seconds=5), execution_mode=mode)
            async def tick(context: Context) -> None:
                started.append(seconds(context.scheduled_at))
                await anyio.sleep(1)
                finished.append(seconds(context.scheduled_at))

            return app

        with anyio.move_on_after(tenth / 10 + 0.05):
            async with make().create() as app_context, anyio.create_task_group() as group:
                await group.start(app_context.run)
                repository.slow = slowness
                repository.slow_replies = slowness
        repository.slow, repository.slow_replies = {}, {}
        left = await repository.row("tick")
        assert left.claimable_at <= left.due_at, tenth
        await run_for(make(), 14)
        if mode is ExecutionMode.AT_MOST_ONCE:
            assert len(started) == len(set(started)), tenth
        assert len(finished) == len(set(finished)), tenth
        assert {5, 10} <= set(started), tenth


@pytest.mark.parametrize("heartbeat", [False, True])
@virtual
async def test_whenever_it_is_stopped_gracefully_every_start_is_finished_and_settled(heartbeat: bool) -> None:
    slowness = {"claim": 0.3, "write": 0.2}
    for tenth in range(45, 80):
        repository = WatchedRepository()
        app = virtual_app(repository_factory=shared(repository))
        started: list[float] = []
        finished: list[float] = []

        @app.task(interval=timedelta(seconds=5), heartbeat=heartbeat, lease_duration=timedelta(seconds=2.5))
        async def tick(context: Context, started: list[float] = started, finished: list[float] = finished) -> None:
            started.append(seconds(context.scheduled_at))
            await anyio.sleep(1.5)
            finished.append(seconds(context.scheduled_at))

        async with running(app):
            repository.slow = repository.slow_replies = slowness
            await anyio.sleep(tenth / 10 + 0.05)
        left = await repository.row("tick")
        assert left.claimable_at <= left.due_at, tenth
        assert started == finished, tenth
        assert left.due_at == micros(5 + 5 * len(started)), tenth


def test_cancelling_the_asyncio_task_of_run_during_a_claim_leaves_no_lease() -> None:
    async def scene() -> None:
        repository = WatchedRepository()
        app = virtual_app(repository_factory=shared(repository))
        starts: list[float] = []

        @app.task(interval=timedelta(seconds=10))
        async def tick(context: Context) -> None:
            starts.append(seconds(context.scheduled_at))

        async with app.create() as app_context:
            task = asyncio.create_task(app_context.run())
            await anyio.sleep(9.5)
            repository.slow_replies["claim"] = 2
            await anyio.sleep(1.5)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        row = await repository.row("tick")
        assert starts == []
        assert row.due_at == row.claimable_at == micros(10)

    run_virtual(scene)


def test_cancelling_the_asyncio_task_of_run_releases_what_it_runs() -> None:
    async def scene() -> None:
        repository = WatchedRepository()
        app = virtual_app(repository_factory=shared(repository))

        @app.task(interval=timedelta(seconds=10))
        async def endless(context: Context) -> None:
            await anyio.sleep_forever()

        async with app.create() as app_context:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(app_context.run(), 15)
        row = await repository.row("endless")
        assert row.due_at == row.claimable_at == micros(10)

    run_virtual(scene)


@virtual
async def test_a_trigger_that_raises_sets_its_own_row_aside_and_delays_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = virtual_app()
    starts: list[tuple[str, float]] = []
    now = Stopwatch()
    next_due = trigger.next_due

    def broken(which: trigger.Trigger, due_at: int, *args: Any, **options: Any) -> int | None:
        if isinstance(which, trigger.CronTrigger) and due_at > START.timestamp() * 1e6:
            raise ZeroDivisionError("a bug in the calendar")
        return next_due(which, due_at, *args, **options)

    monkeypatch.setattr(trigger, "next_due", broken)

    @app.task(schedule="* * * * * */10")
    async def cron(context: Context) -> None:
        starts.append(("cron", now()))

    @app.task(interval=timedelta(seconds=20))
    async def other(context: Context) -> None:
        starts.append(("other", now()))

    await run_for(app, 65)

    assert [start for start in starts if start[0] == "other"] == [("other", 20), ("other", 40), ("other", 60)]
    assert [start for start in starts if start[0] == "cron"] == [("cron", 10)]
    assert [record for record in caplog.records if "cron: set aside" in record.message]


@virtual
async def test_a_cron_at_the_end_of_time_ends_and_is_no_exception_in_the_loop() -> None:
    repository = WatchedRepository()
    clock = VirtualClock(datetime.fromisoformat("9999-12-28T23:59:50+00:00"))
    app = virtual_app(clock=clock, repository_factory=shared(repository))
    starts: list[str] = []

    @app.task(schedule="0 0 * * *")
    async def daily(context: Context) -> None:
        starts.append(context.scheduled_at.isoformat())

    @app.task(interval=timedelta(days=30_000))
    async def rare(context: Context) -> None:
        starts.append("rare")

    await run_for(app, 60)

    assert "rare" not in starts


@virtual
async def test_a_body_that_stops_the_app_and_fails_is_settled_by_its_failure_mode() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))

    @app.task(interval=timedelta(seconds=10), failure_mode=FailureMode.UNLOCK)
    async def stops(context: Context) -> None:
        context.app_context.shutdown()
        raise OSError("no luck")

    async with app.create() as app_context:
        await app_context.run()

    row = await repository.row("stops")
    assert (row.due_at, row.claimable_at) == (micros(10), micros(11))


@virtual
async def test_all_tasks_unscheduled_and_rescheduled_by_each_other_end_in_a_sound_store() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository), concurrency_limit=5)
    starts: list[str] = []
    repository.slow = {"write": 0.01, "read": 0.01}

    @app.dynamic_task(failure_mode=FailureMode.UNLOCK)
    async def chaos(context: Context) -> None:
        starts.append(context.task.name)
        own = int(context.task.name)
        neighbour = str((own + 1) % 20)
        if own % 3 == 0:
            await context.app_context.unschedule_task(chaos, neighbour)
        elif own % 3 == 1:
            soon = timedelta(seconds=1 + own % 4)
            await context.app_context.schedule_task(chaos, neighbour, interval=soon, force=True)
        else:
            await anyio.sleep(0.5)
            raise OSError("no luck")

    async with running(app) as app_context:
        for number in range(20):
            await app_context.schedule_task(chaos, str(number), interval=timedelta(seconds=1 + number % 4))
        await anyio.sleep(120)
        page = await app_context.list_tasks(chaos)

    assert len(starts) > 200
    assert [state.error for state in page.tasks] == [None] * len(page.tasks)
    assert await repository.leased(micros(10_000)) == set()


@virtual
async def test_an_unscheduled_instance_between_claim_and_start_delays_nobody() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    starts: list[str] = []

    @app.dynamic_task(execution_mode=ExecutionMode.AT_MOST_ONCE)
    async def once(context: Context) -> None:
        starts.append(context.task.name)

    async with running(app) as app_context:
        for name in ("a", "b", "c"):
            await app_context.schedule_task(once, name, execute_at=START + timedelta(seconds=5))
        await anyio.sleep(4.5)
        repository.slow_replies["claim"] = 1
        await anyio.sleep(1)
        await app_context.unschedule_task(once, "b")
        await anyio.sleep(5)

    assert sorted(starts) == ["a", "c"]
    assert await repository.keys() == set()


@virtual
async def test_an_app_without_tasks_runs_and_stops() -> None:
    app = virtual_app()
    now = Stopwatch()

    await run_for(app, 100)

    assert now() == 100
