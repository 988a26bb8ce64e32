"""At most once: the next occurrence is written first, then the body runs, and nothing brings it back."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import anyio

from anyscheduler import Context, ExecutionMode, Scheduler, Task
from anyscheduler.lease import Change, Row
from anyscheduler.testing import VirtualClock
from tests.loop.scene import (
    START,
    Stopwatch,
    WatchedRepository,
    free,
    micros,
    run_for,
    running,
    seconds,
    shared,
    virtual,
    virtual_app,
)

if TYPE_CHECKING:
    import pytest


@virtual
async def test_at_most_once_has_its_next_occurrence_written_before_the_body_starts() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    seen: list[tuple[int, int]] = []

    @app.task(interval=timedelta(seconds=10), execution_mode=ExecutionMode.AT_MOST_ONCE)
    async def ping(context: Context) -> None:
        row = await repository.row("ping")
        seen.append((row.due_at, row.claimable_at))

    await run_for(app, 25)

    assert seen == [free(20), free(30)]


@virtual
async def test_at_most_once_never_tries_a_failed_occurrence_again() -> None:
    app = virtual_app()
    due: list[float] = []

    @app.task(interval=timedelta(seconds=100), execution_mode=ExecutionMode.AT_MOST_ONCE)
    async def fails(context: Context) -> None:
        due.append(seconds(context.scheduled_at))
        raise OSError("no luck")

    await run_for(app, 350)

    assert due == [100, 200, 300]


@virtual
async def test_at_most_once_runs_may_overlap() -> None:
    app = virtual_app()
    now = Stopwatch()
    runs: list[tuple[float, float]] = []

    @app.task(interval=timedelta(seconds=10), execution_mode=ExecutionMode.AT_MOST_ONCE)
    async def slow(context: Context) -> None:
        start = now()
        await anyio.sleep(25)
        runs.append((start, now()))

    await run_for(app, 35)

    assert runs == [(10, 35), (20, 45), (30, 55)]


@virtual
async def test_at_most_once_does_not_start_while_the_store_does_not_take_the_next_occurrence() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    now = Stopwatch()
    runs: list[tuple[float, float]] = []

    @app.task(interval=timedelta(seconds=10), execution_mode=ExecutionMode.AT_MOST_ONCE)
    async def ping(context: Context) -> None:
        runs.append((seconds(context.scheduled_at), now()))

    async with running(app):
        await anyio.sleep(5)
        repository.failing.add("write")
        await anyio.sleep(20)
        assert runs == []
        repository.failing.clear()
        await anyio.sleep(10)

    assert [due for due, _ in runs] == [10, 20, 30]
    assert 25 <= runs[0][1] <= 31


@virtual
async def test_at_most_once_with_a_lost_reply_runs_exactly_once() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    due: list[float] = []

    @app.task(interval=timedelta(seconds=10), execution_mode=ExecutionMode.AT_MOST_ONCE)
    async def ping(context: Context) -> None:
        due.append(seconds(context.scheduled_at))

    async with running(app):
        await anyio.sleep(9)
        repository.losing.add("write")
        await anyio.sleep(3)
        repository.losing.clear()
        await anyio.sleep(20)

    assert due == [10, 20, 30]


@virtual
async def test_at_most_once_a_once_off_that_another_process_has_taken_over_and_removed_is_not_started_again() -> None:
    ours, theirs = WatchedRepository(), WatchedRepository()
    theirs.inner = ours.inner
    clock = VirtualClock(START)
    starts: list[str] = []

    def make(name: str, repository: WatchedRepository) -> tuple[Scheduler, Task]:
        app = virtual_app(clock=clock, repository_factory=shared(repository))

        @app.dynamic_task(execution_mode=ExecutionMode.AT_MOST_ONCE)
        async def once(context: Context) -> None:
            starts.append(name)

        return app, once

    app, once = make("ours", ours)
    async with running(app) as app_context:
        await app_context.schedule_task(once, "it", execute_at=START + timedelta(seconds=100))
        await anyio.sleep(90)
        # Its start is tried for as long as the lease lives, to 160, and arrives once more after that.
        ours.failing.add("write")
        await anyio.sleep(60)
        ours.failing = {"claim"}
        ours.slow["write"] = 15
        await run_for(make("theirs", theirs)[0], 30)

    assert starts == ["theirs"]


@virtual
async def test_at_most_once_that_is_cancelled_before_it_started_is_given_back() -> None:
    repository = WatchedRepository()
    clock = VirtualClock(START)
    due: list[float] = []

    def make() -> Scheduler:
        app = virtual_app(clock=clock, repository_factory=shared(repository))

        @app.task(interval=timedelta(seconds=10), execution_mode=ExecutionMode.AT_MOST_ONCE)
        async def ping(context: Context) -> None:
            due.append(seconds(context.scheduled_at))

        return app

    async with make().create() as app_context, anyio.create_task_group() as group:
        await group.start(app_context.run)
        repository.slow["write"] = 1
        await anyio.sleep(10.5)
        group.cancel_scope.cancel()
    assert due == []
    given_back = await repository.row("ping")
    repository.slow.clear()
    await run_for(make(), 5)

    assert given_back.due_at == given_back.claimable_at == micros(10)
    assert due == [10]


@virtual
async def test_at_most_once_a_once_off_is_given_back_only_once(caplog: pytest.LogCaptureFixture) -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    given_back: list[Row] = []

    @app.dynamic_task(execution_mode=ExecutionMode.AT_MOST_ONCE)
    async def once(context: Context) -> None:
        raise AssertionError("it is cancelled before it starts")

    async def execute_elsewhere() -> None:
        await anyio.sleep(11.25)
        row = await repository.row("once:it")
        given_back.append(row)
        await repository.inner.write([Change(row.key, row.token, None)])

    async with anyio.create_task_group() as elsewhere, app.create() as app_context:
        elsewhere.start_soon(execute_elsewhere)
        await app_context.schedule_task(once, "it", execute_at=START + timedelta(seconds=10))
        async with anyio.create_task_group() as group:
            await group.start(app_context.run)
            repository.slow_replies["write"] = 1
            await anyio.sleep(10.5)
            # The reply that tells that it may start comes at 11, when it is too late for that.
            group.cancel_scope.cancel()
            repository.before["write"] = lambda: repository.losing.add("write")
            repository.slow_replies["write"] = 0.5

    assert [row.due_at for row in given_back] == [micros(10)]
    assert await repository.keys() == set()
    assert "once:it: not started, and the store did not take it back" in caplog.messages


@virtual
async def test_at_most_once_that_is_cancelled_while_it_runs_is_not_given_back() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    started: list[float] = []

    @app.task(interval=timedelta(seconds=10), execution_mode=ExecutionMode.AT_MOST_ONCE)
    async def ping(context: Context) -> None:
        started.append(seconds(context.scheduled_at))
        await anyio.sleep(100)

    async with app.create() as app_context, anyio.create_task_group() as group:
        await group.start(app_context.run)
        await anyio.sleep(11)
        group.cancel_scope.cancel()

    assert started == [10]
    assert (await repository.row("ping")).due_at == micros(20)
