"""Graceful stop, hard stop, and what they leave in the store."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import anyio

from tests.loop.scene import (
    START,
    Stopwatch,
    WatchedRepository,
    free,
    micros,
    run_for,
    running,
    shared,
    virtual,
    virtual_app,
)

if TYPE_CHECKING:
    from anyscheduler import Context


@virtual
async def test_an_idle_app_stops_at_once() -> None:
    app = virtual_app(poll_interval=timedelta(hours=1))
    now = Stopwatch()

    async with app.create() as app_context, anyio.create_task_group() as group:
        await group.start(app_context.run)
        await anyio.sleep(100)
        app_context.shutdown()

    assert now() == 100


@virtual
async def test_a_graceful_stop_waits_for_what_runs_starts_nothing_more_and_leaves_no_lease() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    now = Stopwatch()
    ends: list[float] = []

    @app.task(interval=timedelta(seconds=10))
    async def slow(context: Context) -> None:
        await anyio.sleep(20)
        ends.append(now())

    @app.task(interval=timedelta(seconds=1))
    async def quick(context: Context) -> None:
        ends.append(now())

    await run_for(app, 10.5)
    row = await repository.row("slow")

    assert ends == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 30]
    assert now() == 30
    assert (row.due_at, row.claimable_at) == free(20)
    assert await repository.leased(micros(1000)) == set()


@virtual
async def test_shutdown_before_run_makes_run_return_at_once() -> None:
    app = virtual_app()
    now = Stopwatch()
    starts: list[float] = []

    @app.dynamic_task()
    async def work(context: Context) -> None:
        starts.append(now())

    async with app.create() as app_context:
        await app_context.schedule_task(work, "it", execute_at=START)
        app_context.shutdown()
        await app_context.run()

    assert now() == 0
    assert starts == []


@virtual
async def test_a_body_may_stop_the_app_and_shutdown_twice_is_once() -> None:
    app = virtual_app()
    now = Stopwatch()
    ends: list[float] = []

    @app.task(interval=timedelta(seconds=10))
    async def stops(context: Context) -> None:
        context.app_context.shutdown()
        context.app_context.shutdown()
        await anyio.sleep(3)
        ends.append(now())

    async with app.create() as app_context:
        await app_context.run()

    assert ends == [13]
    assert now() == 13


@virtual
async def test_a_stop_during_a_claim_releases_what_it_brings() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    starts: list[str] = []

    @app.dynamic_task()
    async def work(context: Context) -> None:
        starts.append(context.task.name)

    async with running(app) as app_context:
        await app_context.schedule_task(work, "it", execute_at=START + timedelta(seconds=10))
        repository.slow["claim"] = repository.slow_replies["claim"] = 1
        await anyio.sleep(11.5)
        app_context.shutdown()

    row = await repository.row("work:it")
    assert starts == []
    assert row.due_at == row.claimable_at == micros(10)


@virtual
async def test_shutdown_while_the_store_is_away_at_the_start_is_not_held_up() -> None:
    repository = WatchedRepository()
    repository.failing |= {"claim", "write", "read", "tasks"}
    app = virtual_app(repository_factory=shared(repository))
    now = Stopwatch()

    @app.task(interval=timedelta(seconds=10))
    async def tick(context: Context) -> None: ...

    async with app.create() as app_context, anyio.create_task_group() as group:
        group.start_soon(app_context.run)
        await anyio.sleep(60)
        app_context.shutdown()

    assert now() == 60


@virtual
async def test_shutdown_while_the_store_is_away_is_not_held_up_when_nothing_runs() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    now = Stopwatch()

    async with running(app):
        repository.failing |= {"claim", "write", "read", "tasks"}
        await anyio.sleep(60)

    assert now() == 60


@virtual
async def test_an_app_can_run_again_after_it_was_cancelled() -> None:
    app = virtual_app()
    now = Stopwatch()
    starts: list[float] = []

    @app.task(interval=timedelta(seconds=10))
    async def tick(context: Context) -> None:
        starts.append(now())

    async with app.create() as app_context:
        for _ in range(3):
            with anyio.move_on_after(15):
                await app_context.run()

    assert starts == [10, 20, 30, 40]


@virtual
async def test_scheduling_goes_on_while_a_graceful_stop_waits() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))

    @app.dynamic_task()
    async def later(context: Context) -> None: ...

    @app.task(interval=timedelta(seconds=10))
    async def slow(context: Context) -> None:
        await anyio.sleep(10)
        await context.app_context.schedule_task(later, "it", execute_at=START)

    await run_for(app, 11)

    row = await repository.row("later:it")
    assert row.due_at == row.claimable_at == micros(0)
