"""What is claimed while that of the claim before is being started, and for which tasks."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from anyscheduler.loop import _AT_A_TIME
from tests.loop.scene import (
    START,
    WatchedRepository,
    micros,
    run_for,
    running,
    shared,
    store_outages,
    virtual,
    virtual_app,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyscheduler import AppContext, Context, Scheduler, Task

BATCH = 250


class Flood:
    """An app with many once-offs that are due, two batches and a half.

    Attributes:
        started: How many bodies have begun.
        started_before: The same at each claim.
        failing: The numbers of the claims that fail, from 1 on.
        body: What each of them does.
    """

    def __init__(self, **options: Any) -> None:
        self.started = 0
        self.started_before: list[int] = []
        self.failing: set[int] = set()
        self.repository = WatchedRepository()
        self.repository.before["claim"] = self._before_claim
        options = {"batch_size": BATCH, "concurrency_limit": 10 * BATCH} | options
        self.app: Scheduler = virtual_app(repository_factory=shared(self.repository), **options)
        self.body: Callable[[], Any] = anyio.lowlevel.checkpoint

        @self.app.dynamic_task(lease_duration=timedelta(hours=1))
        async def work(context: Context) -> None:
            self.started += 1
            await self.body()

        self._task: Task = work

    async def fill(self, context: AppContext) -> None:
        for number in range(5 * BATCH // 2):
            await context.schedule_task(self._task, str(number), execute_at=START)

    async def run(self) -> None:
        """Runs the app for a second."""
        async with self.app.create() as context:
            await self.fill(context)
            async with anyio.create_task_group() as group:
                await group.start(context.run)
                await anyio.sleep(1)
                context.shutdown()

    def _before_claim(self) -> None:
        self.started_before.append(self.started)
        self.repository.failing = {"claim"} if len(self.started_before) in self.failing else set()


@virtual
async def test_the_next_claim_is_sent_while_the_rows_of_the_one_before_are_being_started() -> None:
    flood = Flood()

    await flood.run()

    assert flood.started == 5 * BATCH // 2
    assert flood.repository.claimed[:3] == [BATCH, BATCH, BATCH // 2]
    assert flood.started_before[1] <= _AT_A_TIME
    assert flood.started_before[2] <= BATCH + _AT_A_TIME
    assert await flood.repository.keys() == set()


@virtual
async def test_it_is_not_while_less_than_a_whole_batch_has_free_slots() -> None:
    flood = Flood(concurrency_limit=2 * BATCH - 1)
    flood.body = lambda: anyio.sleep(1)

    async with flood.app.create() as context:
        await flood.fill(context)
        async with anyio.create_task_group() as group:
            await group.start(context.run)
            await anyio.sleep(0.5)
            assert flood.repository.claimed == [BATCH, BATCH - 1]
            # On trio bodies begin in any order, and after whoever was woken with them.
            assert flood.started_before[0] == 0
            assert flood.started_before[1] >= BATCH - _AT_A_TIME
            assert flood.started == 2 * BATCH - 1
            await anyio.sleep(10)
            context.shutdown()

    assert flood.started == 5 * BATCH // 2


@pytest.mark.parametrize("hard", [False, True], ids=["gracefully", "hard"])
@virtual
async def test_an_app_that_stops_meanwhile_gives_back_what_comes(hard: bool) -> None:
    flood = Flood()
    flood.repository.slow_replies["claim"] = 0.5
    flood.body = lambda: anyio.sleep(60)

    async with flood.app.create() as context:
        await flood.fill(context)
        async with anyio.create_task_group() as group:
            await group.start(context.run)
            # The first batch runs, and the second one is on its way.
            await anyio.sleep(0.75)
            assert flood.started == BATCH
            assert len(await flood.repository.leased(micros(0.75))) == 2 * BATCH
            if hard:
                group.cancel_scope.cancel()
            else:
                context.shutdown()
                await anyio.sleep(1)
                # Others can have them at once, and need not wait for the bodies.
                assert len(await flood.repository.leased(micros(1.75))) == BATCH

    assert flood.started == BATCH
    assert flood.repository.claimed == [BATCH, BATCH]
    assert await flood.repository.leased(micros(90)) == set()


@virtual
async def test_a_claim_ahead_that_fails_is_waited_for_as_any_other_and_holds_up_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    flood = Flood()
    flood.failing = {2, 3}

    async with flood.app.create() as context:
        await flood.fill(context)
        async with anyio.create_task_group() as group:
            await group.start(context.run)
            await anyio.sleep(0.01)
            assert flood.started == BATCH
            assert flood.repository.calls["claim"] == 2
            await anyio.sleep(10)
            context.shutdown()

    assert flood.started == 5 * BATCH // 2
    assert store_outages(caplog) == ["gone", "back"]


def _static(app: Scheduler, count: int, every: timedelta = timedelta(seconds=10)) -> list[str]:
    ran: list[str] = []

    async def body(context: Context) -> None:
        ran.append(context.task.name)

    for number in range(count):
        app.task(name=f"task {number}", interval=every)(body)
    return ran


@virtual
async def test_where_many_tasks_are_due_together_each_is_looked_at_a_few_times() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository), batch_size=10)
    ran = _static(app, 100)

    async with running(app):
        await anyio.sleep(5)
        repository.asked.clear()
        repository.claimed.clear()
        await anyio.sleep(5.5)

    assert sorted(ran) == sorted(f"task {number}" for number in range(100))
    assert sum(repository.claimed) == 100
    full = repository.claimed.index(10)
    # The first one cannot know; each of the following begins where that one has stopped, and the last one looks at all.
    assert repository.asked[full : full + 10] == [100] + [13] * 9
    assert set(repository.asked[full + 10 :]) == {13, 100}
    assert repository.asked[-1] == 100


@virtual
async def test_a_few_that_are_due_among_many_that_are_not_are_found_all_the_same() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository), batch_size=10)
    often = _static(app, 30, timedelta(seconds=1))

    async def rare(context: Context) -> None: ...

    for number in range(100):
        app.task(name=f"rare {number}", interval=timedelta(hours=1))(rare)

    await run_for(app, 20.5)

    assert {often.count(name) for name in set(often)} == {20}


@virtual
async def test_a_task_with_a_long_backlog_has_every_claim_ask_for_all_tasks() -> None:
    flood = Flood(concurrency_limit=BATCH)
    _static(flood.app, 100)

    await flood.run()

    assert flood.started == 5 * BATCH // 2
    assert set(flood.repository.asked) == {101}


@virtual
async def test_one_slot_that_is_freed_at_a_time_costs_one_claim_each() -> None:
    flood = Flood(concurrency_limit=1)
    _static(flood.app, 100)

    await flood.run()

    assert flood.started == 5 * BATCH // 2
    assert len(flood.repository.claimed) <= flood.started + 3
