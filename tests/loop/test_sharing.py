"""Several instances of one app on one store."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import anyio
import pytest

from anyscheduler import Context, ExecutionMode, Scheduler
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


@pytest.mark.parametrize("mode", ExecutionMode)
@virtual
async def test_two_apps_share_the_work_and_nothing_is_doubled_or_lost(mode: ExecutionMode) -> None:
    repository = WatchedRepository()
    clock = VirtualClock(START)
    runs: Counter[tuple[str, float]] = Counter()
    workers: Counter[str] = Counter()

    def make(name: str) -> Scheduler:
        app = virtual_app(clock=clock, repository_factory=shared(repository), concurrency_limit=10)

        async def body(context: Context) -> None:
            runs[context.task.name, seconds(context.scheduled_at)] += 1
            workers[name] += 1
            await anyio.sleep(0.9)

        for number in range(20):
            app.task(name=str(number), interval=timedelta(seconds=10), execution_mode=mode)(body)
        return app

    async with anyio.create_task_group() as group:
        group.start_soon(run_for, make("a"), 95)
        group.start_soon(run_for, make("b"), 95)

    assert runs == Counter({(str(task), 10 * number): 1 for task in range(20) for number in range(1, 10)})
    assert min(workers["a"], workers["b"]) >= 20


@virtual
async def test_a_claim_that_is_long_on_its_way_gets_a_greater_fence_than_what_was_executed_meanwhile() -> None:
    near, far = WatchedRepository(), WatchedRepository()
    far.inner = near.inner
    near.slow["claim"], far.slow["claim"] = 0.05, 0.33
    clock = VirtualClock(START)
    executions: list[tuple[str, str]] = []

    def make(name: str, repository: WatchedRepository) -> Scheduler:
        app = virtual_app(clock=clock, repository_factory=shared(repository))

        @app.task(interval=timedelta(seconds=1))
        async def tick(context: Context) -> None:
            executions.append((context.fence, name))
            await anyio.sleep(0.1)

        return app

    await run_for(make("near", near), 0.5)
    await anyio.sleep(20)
    async with anyio.create_task_group() as group:
        group.start_soon(run_for, make("near", near), 5)
        group.start_soon(run_for, make("far", far), 5)

    assert {name for _, name in executions} == {"near", "far"}
    assert executions == sorted(executions)


@virtual
async def test_a_lease_that_a_dead_process_left_is_taken_over_when_it_ends() -> None:
    repository = WatchedRepository()
    clock = VirtualClock(START)
    now = Stopwatch()
    starts: list[tuple[str, float]] = []

    def make(name: str) -> Scheduler:
        app = virtual_app(clock=clock, repository_factory=shared(repository))

        @app.task(interval=timedelta(seconds=100))
        async def work(context: Context) -> None:
            starts.append((name, now()))
            if name == "dies":
                # What a process that was killed writes: nothing any more.
                repository.slow["write"] = 1_000_000
                await anyio.sleep_forever()

        return app

    with anyio.move_on_after(110):
        await run_for(make("dies"), 1000)
    repository.slow.clear()
    await run_for(make("lives"), 100)

    assert starts == [("dies", 100), ("lives", 160), ("lives", 200)]


@virtual
async def test_cancelled_its_work_goes_to_the_other_at_once() -> None:
    repository = WatchedRepository()
    clock = VirtualClock(START)
    now = Stopwatch()
    starts: list[tuple[str, float]] = []

    def make(name: str) -> Scheduler:
        app = virtual_app(clock=clock, repository_factory=shared(repository))

        @app.task(interval=timedelta(seconds=100))
        async def work(context: Context) -> None:
            starts.append((name, now()))
            await anyio.sleep(30)

        return app

    async def cancelled() -> None:
        with anyio.move_on_after(110):
            await run_for(make("first"), 1000)

    async with anyio.create_task_group() as group:
        group.start_soon(cancelled)
        await anyio.sleep(105)
        group.start_soon(run_for, make("second"), 50)

    assert starts[:1] == [("first", 100)]
    assert starts[1][0] == "second"
    # At its next look at the store.
    assert 110 <= starts[1][1] <= 111


@virtual
async def test_what_one_app_schedules_another_runs_within_a_poll_interval() -> None:
    repository = WatchedRepository()
    clock = VirtualClock(START)
    now = Stopwatch()
    starts: list[float] = []

    def make() -> Scheduler:
        app = virtual_app(clock=clock, repository_factory=shared(repository))

        @app.dynamic_task(name="hello")
        async def hello(context: Context) -> None:
            starts.append(now())

        return app

    client = make()
    async with running(make()), client.create() as app_context:
        await anyio.sleep(10.5)
        (task,) = app_context._plan.defined
        await app_context.schedule_task(task, "it", execute_at=START)
        await anyio.sleep(5)

    assert len(starts) == 1
    assert 10.5 <= starts[0] <= 11.5


@virtual
async def test_two_apps_that_start_at_the_same_instant_register_everything_once() -> None:
    repository = WatchedRepository()
    clock = VirtualClock(START)
    due: list[float] = []

    def make() -> Scheduler:
        app = virtual_app(clock=clock, repository_factory=shared(repository))

        @app.task(interval=timedelta(seconds=10))
        async def tick(context: Context) -> None:
            due.append(seconds(context.scheduled_at))

        return app

    repository.slow = {"read": 0.1, "write": 0.1}
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(run_for, make(), 25)

    assert len(due) == 2
    assert await repository.keys() == {"tick"}


@virtual
async def test_two_apps_schedule_one_name_at_the_same_instant_and_both_succeed() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    seen: list[int] = []

    @app.dynamic_task()
    async def hello(context: Context) -> None:
        seen.append(context.args["number"])

    repository.slow = {"read": 0.1, "write": 0.1}
    async with running(app) as app_context:

        async def schedule(number: int) -> None:
            await app_context.schedule_task(hello, "it", interval=timedelta(seconds=10), number=number)

        async with anyio.create_task_group() as group:
            for number in range(5):
                group.start_soon(schedule, number)
        await anyio.sleep(15)

    assert len(seen) == 1


@virtual
async def test_deployments_with_other_tasks_leave_each_others_schedules_alone() -> None:
    repository = WatchedRepository()
    clock = VirtualClock(START)
    ran: Counter[str] = Counter()

    def make(*names: str) -> Scheduler:
        app = virtual_app(clock=clock, repository_factory=shared(repository))

        async def body(context: Context) -> None:
            ran[context.task.name] += 1

        for name in names:
            app.task(name=name, interval=timedelta(seconds=10))(body)
        return app

    async with anyio.create_task_group() as group:
        group.start_soon(run_for, make("old", "both"), 95)
        group.start_soon(run_for, make("new", "both"), 95)

    assert ran == {"old": 9, "both": 9, "new": 9}
