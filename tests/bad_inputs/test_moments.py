"""Calls at the wrong moment: a second `run`, a context that is closed, a definition that comes too late."""

from __future__ import annotations

from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from anyscheduler import AppContext, Context, Scheduler, TaskLockedError, TaskNotFoundError
from anyscheduler.lease import Change, Row
from tests.bad_inputs.refusals import DAILY, NewApp, body

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

pytestmark = pytest.mark.anyio

SOON = timedelta(milliseconds=20)


async def test_a_second_run_is_an_error_and_the_first_goes_on_on_every_store(new_app: NewApp) -> None:
    app = new_app()
    ran = anyio.Event()

    @app.task(interval=SOON)
    async def tick(context: Context) -> None:
        ran.set()

    async with app.create() as app_context, anyio.create_task_group() as group:
        await group.start(app_context.run)
        with pytest.raises(RuntimeError, match=r"^run\(\) was called while it is running already$"):
            await app_context.run()
        with anyio.fail_after(10):
            await ran.wait()
        app_context.shutdown()


CALLS: dict[str, Callable[[AppContext, Any], Awaitable[Any]]] = {
    "run": lambda app_context, _: app_context.run(),
    "schedule_task": lambda app_context, task: app_context.schedule_task(task, "x", **DAILY),
    "schedule_tasks": lambda app_context, task: app_context.schedule_tasks(task, [("x", DAILY)]),
    "unschedule_task": lambda app_context, task: app_context.unschedule_task(task, "x"),
    "get_task": lambda app_context, task: app_context.get_task(task, "x"),
    "list_tasks": lambda app_context, task: app_context.list_tasks(task),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_a_context_that_is_closed_says_so(new_app: NewApp, call: Callable[[AppContext, Any], Any]) -> None:
    app = new_app()
    task = app.dynamic_task()(body)
    async with app.create() as app_context:
        pass
    with pytest.raises(RuntimeError, match="this app context is closed"):
        await call(app_context, task)
    with pytest.raises(RuntimeError, match="this app context is closed"):
        app_context.add_to_context("name", 1)


async def fixture(app_context: AppContext) -> AsyncIterator[None]:
    yield


LATE: dict[str, Callable[[Scheduler], object]] = {
    "task": lambda app: app.task(**DAILY)(body),
    "dynamic_task": lambda app: app.dynamic_task()(body),
    "partitioned_task": lambda app: app.partitioned_task(partition_count=2)(body),
    "fixture": lambda app: app.fixture()(fixture),
    "middleware": lambda app: app.middleware(lambda _, proceed: proceed()),
    "shutdown_timeout": lambda app: app.set_shutdown_timeout(SOON),
}


@pytest.mark.parametrize("define", LATE.values(), ids=LATE)
async def test_a_definition_that_comes_after_create_is_an_error(define: Callable[[Scheduler], object]) -> None:
    app = Scheduler()
    async with app.create():
        with pytest.raises(RuntimeError, match="the app has been created; define its tasks"):
            define(app)
    define(app)


async def test_a_task_of_another_app_is_not_found(new_app: NewApp) -> None:
    app, other = new_app(), new_app()
    task = app.dynamic_task(name="task")(body)
    foreign = other.dynamic_task(name="task")(body)
    async with app.create() as app_context:
        await app_context.schedule_task(task, "x", **DAILY)
        for call in CALLS.values():
            if call is not CALLS["run"]:
                with pytest.raises(TaskNotFoundError, match="task 'task' was not defined by this app"):
                    await call(app_context, foreign)
        assert await app_context.get_task(task, "x") is not None


async def test_what_is_being_executed_is_locked_to_itself_unless_it_forces_it_on_every_store(new_app: NewApp) -> None:
    app = new_app()
    seen: list[str] = []
    over = anyio.Event()

    @app.dynamic_task()
    async def task(context: Context) -> None:
        if seen:
            over.set()
            return
        with pytest.raises(TaskLockedError):
            await context.app_context.schedule_task(task, "x", execute_at=datetime.now(UTC))
        seen.append("refused")
        await context.app_context.schedule_task(task, "x", execute_at=datetime.now(UTC), force=True)
        seen.append("forced")

    async with app.create() as app_context, anyio.create_task_group() as group:
        group.start_soon(app_context.run)
        await app_context.schedule_task(task, "x", execute_at=datetime.now(UTC))
        with anyio.fail_after(10):
            await over.wait()
        app_context.shutdown()
    assert seen == ["refused", "forced"]


async def test_what_is_unscheduled_while_it_runs_ends_and_is_not_there_any_more_on_every_store(new_app: NewApp) -> None:
    app = new_app()
    seen: list[str] = []
    over = anyio.Event()

    @app.dynamic_task()
    async def task(context: Context) -> None:
        await context.app_context.unschedule_task(task, "x")
        seen.append("ended")
        over.set()

    async with AsyncExitStack() as stack:
        app_context = await stack.enter_async_context(app.create())
        group = await stack.enter_async_context(anyio.create_task_group())
        group.start_soon(app_context.run)
        await app_context.schedule_task(task, "x", interval=SOON)
        with anyio.fail_after(10):
            await over.wait()
        await anyio.sleep(0.1)
        assert await app_context.get_task(task, "x") is None
        app_context.shutdown()
    assert seen == ["ended"]


async def test_a_row_that_is_due_beyond_the_year_9999_ends_and_keeps_nobody_from_running(new_app: NewApp) -> None:
    app = new_app()
    ran = anyio.Event()

    @app.dynamic_task()
    async def task(context: Context) -> None:
        ran.set()

    async with app.create() as app_context, anyio.create_task_group() as group:
        repository = app_context._repository
        last = datetime(9999, 12, 28, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
        row = Row(
            "task:last", "task", last // timedelta(microseconds=1), 5, "0", '{"v":1,"interval":3000000000000000}', ""
        )
        assert await repository.write([Change(row.key, None, row)]) == [True]
        group.start_soon(app_context.run)
        with anyio.fail_after(10):
            await ran.wait()
            while await app_context.get_task(task, "last") is not None:
                await anyio.sleep(0.01)
        app_context.shutdown()
