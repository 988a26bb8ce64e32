"""Executions share a task of the event loop while their bodies do not wait, and notice nothing of each other there."""

from __future__ import annotations

import asyncio
import gc
import inspect
import time
from contextvars import ContextVar
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest

from anyscheduler import AppContext, ExecutionMode, Scheduler
from anyscheduler.testing import run_virtual
from tests.loop.scene import START, Stopwatch, WatchedRepository, micros, run_for, shared, virtual, virtual_app

if TYPE_CHECKING:
    from anyscheduler import Context
    from tests.loop.scene import Backend

COUNT = 40

variable: ContextVar[object] = ContextVar("variable", default="unset")


class Contrary:
    """What cannot be compared, as arrays cannot."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("nobody can tell")

    __hash__ = None  # type: ignore[assignment]  # nor is it hashed


def define(app: Scheduler, body: Any, count: int = COUNT, **given: Any) -> None:
    """Defines so many tasks with the same body, which are due at the same instant."""
    for number in range(count):
        app.task(name=f"task-{number:02}", interval=timedelta(seconds=10), **given)(body)


def current() -> object:
    """Returns what tells this task of the event loop from all others, also from those that came and went."""
    return anyio.get_current_task().coro


@virtual
async def test_bodies_that_end_without_waiting_share_tasks() -> None:
    app = virtual_app()
    tasks: list[object] = []

    async def body(context: Context) -> None:
        tasks.append(current())

    define(app, body)
    await run_for(app, 11)

    assert len(tasks) == COUNT
    assert len(set(tasks)) < COUNT / 4


@virtual
async def test_bodies_that_wait_have_tasks_of_their_own_and_wait_at_the_same_time() -> None:
    app = virtual_app()
    now = Stopwatch()
    tasks: list[object] = []
    ends: list[float] = []

    async def body(context: Context) -> None:
        tasks.append(current())
        await anyio.sleep(3)
        ends.append(now())

    define(app, body)
    await run_for(app, 14)

    assert len(set(tasks)) == COUNT
    assert ends == [13] * COUNT


@virtual
async def test_a_body_that_waits_keeps_none_waiting_that_comes_after_it() -> None:
    app = virtual_app()
    now = Stopwatch()
    starts: list[float] = []
    waited: list[str] = []

    async def body(context: Context) -> None:
        starts.append(now())
        if context.task.name.endswith("7"):
            await anyio.sleep(5)
            waited.append(context.task.name)

    define(app, body)
    await run_for(app, 16)

    assert starts == [10] * COUNT
    assert sorted(waited) == ["task-07", "task-17", "task-27", "task-37"]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_bodies_that_take_long_without_waiting_let_the_rest_of_the_event_loop_have_turns(backend: Backend) -> None:
    app = Scheduler()
    turns = 0
    seen: list[int] = []

    @app.dynamic_task()
    async def busy(context: Context) -> None:
        seen.append(turns)
        time.sleep(0.0005)  # as a computation would
        if len(seen) == COUNT:
            context.app_context.shutdown()

    async def rest() -> None:
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1

    async def main() -> None:
        async with app.create() as app_context, anyio.create_task_group() as group:
            await app_context.schedule_tasks(busy, ((str(number), {"execute_at": START}) for number in range(COUNT)))
            group.start_soon(rest)
            await app_context.run()
            group.cancel_scope.cancel()

    anyio.run(main, backend=backend)

    assert len(seen) == COUNT
    assert len(set(seen)) >= COUNT // 16


@virtual
async def test_a_context_variable_that_a_body_sets_is_not_seen_by_another_one() -> None:
    app = virtual_app()
    seen: list[object] = []

    async def body(context: Context) -> None:
        seen.append(variable.get())
        variable.set(context.task.name if context.task.name < "task-20" else Contrary())

    define(app, body)
    await run_for(app, 11)

    assert seen == ["unset"] * COUNT


@virtual
async def test_a_context_variable_that_a_body_replaces_by_its_equal_is_not_seen_by_another_one() -> None:
    app = virtual_app()
    seen: list[object] = []
    everybodys: list[int] = []

    async def body(context: Context) -> None:
        seen.append(variable.get())
        variable.set([])

    define(app, body)
    token = variable.set(everybodys)
    await run_for(app, 11)
    variable.reset(token)

    assert len(seen) == COUNT
    assert all(value is everybodys for value in seen)


@virtual
async def test_a_context_variable_that_is_set_back_leaves_the_task_as_it_was() -> None:
    app = virtual_app()
    seen: list[object] = []

    async def body(context: Context) -> None:
        seen.append(variable.get())
        variable.reset(variable.set(context.task.name))

    define(app, body)
    await run_for(app, 11)

    assert seen == ["unset"] * COUNT


def test_a_body_that_cancels_its_own_asyncio_task_cancels_no_other_body() -> None:
    ended: list[str] = []
    counts: list[int] = []

    async def scene() -> None:
        app = virtual_app()

        async def body(context: Context) -> None:
            task = asyncio.current_task()
            assert task is not None
            counts.append(task.cancelling())
            if context.task.name.endswith("5"):
                task.cancel()
            ended.append(context.task.name)

        define(app, body)
        await run_for(app, 11)

    run_virtual(scene, backend="asyncio")

    assert ended == [f"task-{number:02}" for number in range(COUNT)]
    assert counts == [0] * COUNT


@virtual
async def test_at_most_so_many_run_at_a_time_as_the_limit_says_when_some_wait_and_some_do_not() -> None:
    app = virtual_app(concurrency_limit=3)
    now = Stopwatch()
    opened = most = 0
    ends: list[float] = []

    async def body(context: Context) -> None:
        nonlocal opened, most
        opened += 1
        most = max(most, opened)
        if int(context.task.name[-1]) % 2:
            await anyio.sleep(1)
        opened -= 1
        ends.append(now())

    define(app, body, 12)
    await run_for(app, 18)

    assert len(ends) == 12
    assert most == 3
    assert max(ends) <= 12


@pytest.mark.parametrize("count", [8, 16, 40])
@virtual
async def test_what_runs_at_most_once_is_written_in_one_round_trip_before_it_starts(count: int) -> None:
    repository = WatchedRepository()
    repository.slow["write"] = 0.05
    app = virtual_app(repository_factory=shared(repository))
    now = Stopwatch()
    starts: list[float] = []

    async def body(context: Context) -> None:
        starts.append(now())

    define(app, body, count, execution_mode=ExecutionMode.AT_MOST_ONCE)
    async with app.create() as app_context, anyio.create_task_group() as group:
        await group.start(app_context.run)
        repository.written.clear()
        began = now()
        await anyio.sleep(21 - began)
        app_context.shutdown()

    assert repository.written == [count, count]
    assert len(set(starts)) == 2


@virtual
async def test_once_a_task_was_seen_to_wait_each_execution_of_it_has_a_task_of_its_own_with_its_name() -> None:
    app = virtual_app()
    names: list[str | None] = []

    @app.dynamic_task()
    async def waits(context: Context) -> None:
        names.append(anyio.get_current_task().name)
        await anyio.sleep(1)

    async with app.create() as app_context, anyio.create_task_group() as group:
        await group.start(app_context.run)
        for name in ("one", "another"):
            await schedule(app_context, waits, 1, name)
        await anyio.sleep(5)
        names.clear()
        for number in range(COUNT):
            await schedule(app_context, waits, 10, str(number))
        await anyio.sleep(15)
        app_context.shutdown()

    assert sorted(map(str, names)) == sorted(f"waits:{number}" for number in range(COUNT))


async def schedule(app_context: AppContext, task: Any, second: float, name: str) -> None:
    """Schedules an instance for once."""
    await app_context.schedule_task(task, name, execute_at=START + timedelta(seconds=second))


# anyio does not come to await the coroutine inside of it.
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_a_body_that_cancels_a_task_of_the_engine_leaves_no_lease_behind() -> None:
    repository = WatchedRepository()
    cancelled: list[asyncio.Task[Any]] = []

    async def scene() -> None:
        app = virtual_app(repository_factory=shared(repository))

        async def body(context: Context) -> None:
            for task in asyncio.all_tasks():
                if not cancelled and inspect.getcoroutinestate(task.get_coro()) == inspect.CORO_CREATED:  # type: ignore[arg-type]
                    cancelled.append(task)
                    task.cancel()
            await anyio.sleep(1)

        define(app, body, 12)
        await run_for(app, 13)

    run_virtual(scene, backend="asyncio")
    assert cancelled
    cancelled.clear()
    gc.collect()

    async def leased() -> set[str]:
        return await repository.leased(micros(20))

    assert anyio.run(leased) == set()
