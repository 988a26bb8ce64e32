"""Instances that are changed while they run, from outside and by their own bodies."""

from __future__ import annotations

from datetime import timedelta

import anyio
import pytest

from anyscheduler import (
    Context,
    ExecutionMode,
    FailureMode,
    TaskLockedError,
)
from tests.loop.scene import Stopwatch, WatchedRepository, running, shared, virtual, virtual_app


@virtual
async def test_unscheduled_while_it_runs_the_body_ends_and_its_commit_does_nothing() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    now = Stopwatch()
    ends: list[float] = []

    @app.dynamic_task()
    async def hello(context: Context) -> None:
        await anyio.sleep(5)
        ends.append(now())

    async with running(app) as app_context:
        await app_context.schedule_task(hello, "it", interval=timedelta(seconds=10))
        await anyio.sleep(12)
        await app_context.unschedule_task(hello, "it")
        await anyio.sleep(30)

    assert ends == [15]
    assert await repository.keys() == set()


@pytest.mark.parametrize("mode", FailureMode)
@virtual
async def test_a_body_may_unschedule_itself_whatever_comes_after_it(mode: FailureMode) -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    starts: list[str] = []

    @app.dynamic_task(failure_mode=mode)
    async def hello(context: Context) -> None:
        starts.append(context.task.name)
        await context.app_context.unschedule_task(context.task)
        raise OSError("no luck")

    async with running(app) as app_context:
        await app_context.schedule_task(hello, "it", interval=timedelta(seconds=10))
        await anyio.sleep(100)

    assert starts == ["it"]
    assert await repository.keys() == set()


@virtual
async def test_a_body_reschedules_itself_with_force_and_is_refused_without() -> None:
    app = virtual_app()
    now = Stopwatch()
    events: list[tuple[float, int]] = []

    @app.dynamic_task()
    async def hello(context: Context) -> None:
        number = context.args["number"]
        events.append((now(), number))
        again = {"interval": timedelta(seconds=number + 1), "number": number + 1}
        with pytest.raises(TaskLockedError):
            await context.app_context.schedule_task(hello, context.task.name, **again)
        await context.app_context.schedule_task(hello, context.task.name, force=True, **again)

    async with running(app) as app_context:
        await app_context.schedule_task(hello, "it", interval=timedelta(seconds=1), number=1)
        await anyio.sleep(11)

    assert events == [(1, 1), (3, 2), (6, 3), (10, 4)]


@virtual
async def test_at_most_once_a_body_may_reschedule_itself_without_force() -> None:
    app = virtual_app()
    now = Stopwatch()
    starts: list[float] = []

    @app.dynamic_task(execution_mode=ExecutionMode.AT_MOST_ONCE)
    async def hello(context: Context) -> None:
        starts.append(now())
        await context.app_context.schedule_task(hello, context.task.name, interval=timedelta(seconds=5 * len(starts)))

    async with running(app) as app_context:
        await app_context.schedule_task(hello, "it", interval=timedelta(seconds=1))
        await anyio.sleep(40)

    assert starts == [1, 6, 16, 31]
