"""What is claimed a moment before it is due: by whom it is held until then, and what becomes of it."""

from __future__ import annotations

import asyncio
import gc
import inspect
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import anyio
import pytest

from anyscheduler import ExecutionMode
from anyscheduler.lease import HEAD_START, Change, locked_until
from anyscheduler.testing import VirtualClock, run_virtual
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
    from anyscheduler import Context, Scheduler

TEN = timedelta(seconds=10)
HEAD = HEAD_START / 1e6


class Clock:
    """Virtual time that can be set, and stopped.

    Attributes:
        ahead: By how much it is ahead.
        stopped: What it shows for ever; None while it goes on.
    """

    def __init__(self) -> None:
        self._clock = VirtualClock(START)
        self.ahead = timedelta()
        self.stopped: datetime | None = None

    def __call__(self) -> datetime:
        return self.stopped or self._clock() + self.ahead


def ticking(repository: WatchedRepository, starts: list[float], **options: object) -> Scheduler:
    """Returns an app with a task every ten seconds, which notes when it starts."""
    app = virtual_app(repository_factory=shared(repository), **options)
    clock = VirtualClock(START)

    @app.task(interval=TEN)
    async def tick(context: Context) -> None:
        starts.append(seconds(clock()))

    return app


@pytest.mark.parametrize("mode", ExecutionMode)
@virtual
async def test_a_static_task_is_claimed_a_moment_early_and_starts_when_it_is_due(mode: ExecutionMode) -> None:
    repository = WatchedRepository()
    repository.slow = repository.slow_replies = {"claim": 0.004}
    app = virtual_app(repository_factory=shared(repository))
    now = Stopwatch()
    starts: list[float] = []

    @app.task(interval=TEN, execution_mode=mode)
    async def tick(context: Context) -> None:
        starts.append(now())

    async with running(app):
        await anyio.sleep(9.995)
        row = await repository.row("tick")
        assert starts == []
        assert locked_until(row, micros(9.995)) is not None, "it is held by now"
        await anyio.sleep(11)

    assert starts == [10, 20]
    assert (await repository.row("tick")).due_at == micros(30)


@virtual
async def test_what_the_store_answers_late_starts_as_soon_as_the_answer_is_there() -> None:
    repository = WatchedRepository()
    repository.slow_replies["claim"] = 0.2
    starts: list[float] = []

    await run_for(ticking(repository, starts), 11)

    assert starts == [pytest.approx(10 - HEAD + 0.2)]


@virtual
async def test_two_that_were_claimed_together_start_each_at_its_time() -> None:
    app = virtual_app()
    now = Stopwatch()
    starts: list[tuple[str, float]] = []

    for name, interval in (("second", 10.006), ("first", 10.002)):

        @app.task(name=name, interval=timedelta(seconds=interval))
        async def tick(context: Context) -> None:
            starts.append((context.task.name, now()))

    await run_for(app, 15)

    assert starts == [("first", 10.002), ("second", 10.006)]


@virtual
async def test_an_instance_is_not_claimed_before_it_is_due_so_that_removing_it_until_then_counts() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    starts: list[str] = []

    @app.task(interval=TEN)
    async def tick(context: Context) -> None:
        starts.append("tick")

    @app.dynamic_task()
    async def work(context: Context) -> None:
        starts.append("work")

    async with running(app) as context:
        await context.schedule_task(work, "it", execute_at=START + TEN)
        await anyio.sleep(9.999)
        row = await repository.row("work:it")
        assert row.claimable_at == row.due_at == micros(10)
        await context.unschedule_task(work, "it")
        await anyio.sleep(1)

    assert starts == ["tick"]


@virtual
async def test_an_instance_that_is_due_meanwhile_does_not_wait_for_what_is_held() -> None:
    app = virtual_app()
    now = Stopwatch()
    starts: list[tuple[str, float]] = []

    @app.task(interval=TEN)
    async def tick(context: Context) -> None:
        starts.append(("tick", now()))

    @app.dynamic_task()
    async def work(context: Context) -> None:
        starts.append(("work", now()))

    async with running(app) as context:
        await context.schedule_task(work, "it", execute_at=START + TEN - timedelta(milliseconds=5))
        await anyio.sleep(11)

    assert starts == [("work", 9.995), ("tick", 10)]


@pytest.mark.parametrize("hard", [False, True], ids=["gracefully", "hard"])
@virtual
async def test_an_app_that_stops_meanwhile_gives_it_back_and_another_runs_it_in_time(hard: bool) -> None:
    repository = WatchedRepository()
    first: list[float] = []
    second: list[float] = []

    async with ticking(repository, first).create() as context, anyio.create_task_group() as group:
        await group.start(context.run)
        await anyio.sleep(9.995)
        if hard:
            group.cancel_scope.cancel()
        else:
            context.shutdown()
    row = await repository.row("tick")

    assert (row.due_at, row.claimable_at) == (micros(10), micros(10))
    await run_for(ticking(repository, second, clock=VirtualClock(START + TEN)), 5)
    assert first == []
    assert len(second) == 1


@virtual
async def test_what_is_held_takes_a_slot() -> None:
    app = virtual_app(concurrency_limit=1)
    now = Stopwatch()
    starts: list[tuple[str, float]] = []

    for name in ("one", "other"):

        @app.task(name=name, interval=TEN)
        async def tick(context: Context) -> None:
            starts.append((context.task.name, now()))
            await anyio.sleep(2)

    await run_for(app, 15)

    assert [at for _, at in starts] == [10, 12]
    assert {name for name, _ in starts} == {"one", "other"}


@virtual
async def test_a_damaged_one_that_is_held_gives_its_slot_back_at_once() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository), concurrency_limit=1, poll_interval=timedelta(hours=1))
    now = Stopwatch()
    starts: list[float] = []

    @app.task(interval=TEN)
    async def damaged(context: Context) -> None:
        raise AssertionError

    @app.task(interval=timedelta(seconds=10.001))
    async def sound(context: Context) -> None:
        starts.append(now())

    async with running(app):
        row = await repository.row("damaged")
        await repository.inner.write([Change(row.key, row.token, row._replace(state="{}"))])
        await anyio.sleep(12)

    assert starts == [10.001]


@virtual
async def test_what_somebody_made_claimable_long_before_it_is_due_starts_then() -> None:
    repository = WatchedRepository()
    starts: list[float] = []

    async with running(ticking(repository, starts)):
        row = await repository.row("tick")
        await repository.inner.write([Change(row.key, row.token, row._replace(claimable_at=micros(3)))])
        await anyio.sleep(11)

    row = await repository.row("tick")
    assert (row.due_at, row.claimable_at) == free(20)
    assert starts == [pytest.approx(3)]


@pytest.mark.parametrize("how", ["set back by an hour", "stopped"])
@virtual
async def test_a_clock_that_is_set_back_or_stops_meanwhile_has_it_given_back_and_does_not_hold_up_the_end(
    how: str,
) -> None:
    repository = WatchedRepository()
    clock = Clock()
    now = Stopwatch()
    starts: list[float] = []

    async with running(ticking(repository, starts, clock=clock)):
        await anyio.sleep(9.995)
        if how == "stopped":
            clock.stopped = clock()
        else:
            clock.ahead = -timedelta(hours=1)
        await anyio.sleep(0.1)

    row = await repository.row("tick")
    assert starts == []
    assert now() < 12
    assert (row.due_at, row.claimable_at) == (micros(10), micros(10))


@virtual
async def test_a_clock_that_is_set_back_while_the_store_answers_has_it_wait() -> None:
    repository = WatchedRepository()
    repository.slow_replies["claim"] = 0.004
    clock = Clock()
    starts: list[float] = []
    app = virtual_app(repository_factory=shared(repository), clock=clock)

    @app.task(interval=TEN)
    async def tick(context: Context) -> None:
        starts.append(seconds(clock()))

    async with running(app):
        await anyio.sleep(9.992)
        clock.ahead = -timedelta(seconds=2)
        await anyio.sleep(5)

    (at,) = starts
    assert 10 <= at < 10.01


@pytest.mark.parametrize("hard", [False, True], ids=["gracefully", "hard"])
@virtual
async def test_a_clock_that_stops_holds_up_the_end_by_a_second_however_many_instants_are_waited_for(hard: bool) -> None:
    repository = WatchedRepository()
    clock = Clock()
    now = Stopwatch()
    app = virtual_app(repository_factory=shared(repository), clock=clock)

    for number in range(50):

        @app.task(name=f"tick-{number}", interval=TEN + timedelta(microseconds=100 * number))
        async def tick(context: Context) -> None:
            raise AssertionError

    repository.slow["claim"] = 0.006
    async with app.create() as context, anyio.create_task_group() as group:
        await group.start(context.run)
        await anyio.sleep(9.9965)
        clock.stopped = clock()
        await anyio.sleep(0.001)
        if hard:
            group.cancel_scope.cancel()
        else:
            context.shutdown()

    assert max(repository.claimed) > 40
    assert now() < 11.1
    assert await repository.leased(micros(20)) == set()


@virtual
async def test_a_slot_that_is_free_because_one_was_given_back_is_used_at_once() -> None:
    clock = Clock()
    app = virtual_app(clock=clock, concurrency_limit=1, poll_interval=timedelta(hours=1))
    now = Stopwatch()
    starts: list[float] = []

    @app.task(interval=TEN)
    async def tick(context: Context) -> None:
        pass

    @app.dynamic_task()
    async def work(context: Context) -> None:
        starts.append(now())

    async with running(app) as context:
        await anyio.sleep(9.992)
        clock.ahead = -timedelta(hours=1)
        await context.schedule_task(work, "it", execute_at=clock() + timedelta(seconds=0.5))
        await anyio.sleep(100)

    assert len(starts) == 1
    assert starts[0] < 12


@pytest.mark.filterwarnings("ignore:coroutine 'EarlyRows._wait' was never awaited")  # which is what the body does to it
@pytest.mark.parametrize("begun", [False, True], ids=["before it began", "in its sleep"])
def test_a_body_that_cancels_the_wait_of_another_task_leaves_no_lease_behind(begun: bool) -> None:
    async def scene() -> None:
        repository = WatchedRepository()
        app = virtual_app(repository_factory=shared(repository))
        clock = VirtualClock(START)
        cancelled: list[str] = []

        @app.task(interval=TEN)
        async def tick(context: Context) -> None:
            raise AssertionError

        @app.dynamic_task()
        async def meddle(context: Context) -> None:
            await anyio.sleep(9.99 - seconds(clock()) - 0.0005)
            await anyio.sleep(0.0005)
            for _ in range(3000):
                for task in asyncio.all_tasks():
                    has_begun = inspect.getcoroutinestate(task.get_coro()) != inspect.CORO_CREATED  # type: ignore[arg-type]
                    if "EarlyRows" in task.get_name() and not cancelled and has_begun is begun:
                        cancelled.append(task.get_name())
                        task.cancel()
                if cancelled:
                    return
                await anyio.sleep(0)

        async with running(app) as context:
            # Of several, one has its turn between the claim and the wait.
            for number in range(5):
                await context.schedule_task(meddle, str(number), execute_at=START + timedelta(seconds=9 + number / 10))
            await anyio.sleep(10.5)

        gc.collect()  # while the warning is expected
        assert cancelled
        assert await repository.leased(micros(11)) == set()

    run_virtual(scene, backend="asyncio")


@virtual
async def test_what_it_has_settled_is_claimed_early_again() -> None:
    repository = WatchedRepository()
    starts: list[float] = []

    await run_for(ticking(repository, starts), 15)

    row = await repository.row("tick")
    assert (row.due_at, row.claimable_at) == free(20)


@virtual
async def test_the_shutdown_timeout_counts_while_what_was_held_is_given_back() -> None:
    repository = WatchedRepository()
    now = Stopwatch()

    async with running(ticking(repository, [], shutdown_timeout=timedelta(seconds=7))):
        await anyio.sleep(9.995)
        repository.failing.add("write")

    # After that a hard stop gives the store two seconds more.
    assert now() == pytest.approx(9.995 + 7 + 2, abs=0.01)
