"""What becomes of stored schedules when the code that defines them has changed."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import anyio

from anyscheduler.testing import VirtualClock
from tests.loop.scene import START, Stopwatch, WatchedRepository, micros, run_for, shared, virtual, virtual_app

if TYPE_CHECKING:
    import pytest

    from anyscheduler import Context, Scheduler


class Deployments:
    """Apps of one name and other definitions, one after the other on the same store."""

    def __init__(self) -> None:
        self.repository = WatchedRepository()
        self.clock = VirtualClock(START)
        self.now = Stopwatch()
        self.starts: list[float] = []
        self.takes = 0.0

    def app(self, **options: Any) -> Scheduler:
        app = virtual_app(clock=self.clock, repository_factory=shared(self.repository))
        if options:
            app.task(name="it", **options)(self._body)
        return app

    async def _body(self, _context: Context) -> None:
        self.starts.append(self.now())
        await anyio.sleep(self.takes)


@virtual
async def test_a_changed_interval_counts_anew_from_the_last_run() -> None:
    deployments = Deployments()

    await run_for(deployments.app(interval=timedelta(seconds=10)), 25)
    await run_for(deployments.app(interval=timedelta(seconds=7)), 20)

    assert deployments.starts == [10, 20, 27, 34, 41]


@virtual
async def test_a_changed_schedule_of_a_task_that_never_ran_counts_from_its_registration() -> None:
    deployments = Deployments()

    await run_for(deployments.app(interval=timedelta(hours=1)), 5)
    await run_for(deployments.app(interval=timedelta(seconds=30)), 40)

    assert deployments.starts == [30]


@virtual
async def test_a_longer_schedule_takes_effect_too() -> None:
    deployments = Deployments()

    await run_for(deployments.app(interval=timedelta(seconds=10)), 15)
    await run_for(deployments.app(schedule="* * * * *"), 60)

    assert deployments.starts == [10, 60]


@virtual
async def test_an_unchanged_schedule_keeps_its_next_run_over_a_restart() -> None:
    deployments = Deployments()

    for _ in range(6):
        await run_for(deployments.app(interval=timedelta(seconds=10)), 4)

    assert deployments.starts == [10, 20]
    assert (await deployments.repository.row("it")).due_at == micros(30)


@virtual
async def test_a_schedule_that_is_changed_and_changed_back_runs_on() -> None:
    deployments = Deployments()

    await run_for(deployments.app(interval=timedelta(seconds=10)), 12)
    await run_for(deployments.app(interval=timedelta(seconds=60)), 4)
    await run_for(deployments.app(interval=timedelta(seconds=10)), 16)

    assert deployments.starts == [10, 20, 30]


@virtual
async def test_a_changed_schedule_of_a_task_that_is_being_executed_respects_the_lease() -> None:
    deployments = Deployments()
    deployments.takes = 20

    async with anyio.create_task_group() as group:
        group.start_soon(run_for, deployments.app(interval=timedelta(seconds=10)), 12)
        await anyio.sleep(11)
        group.start_soon(run_for, deployments.app(interval=timedelta(seconds=5)), 65)

    # The first result is refused: 70 is the end of its lease.
    assert deployments.starts[:2] == [10, 70]


@virtual
async def test_a_changed_schedule_that_has_ended_removes_the_row_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    deployments = Deployments()

    await run_for(deployments.app(interval=timedelta(seconds=10)), 15)
    await run_for(deployments.app(schedule="0 0 1 1 * 0 2025"), 60)

    assert deployments.starts == [10]
    assert await deployments.repository.keys() == set()
    assert [record for record in caplog.records if "has ended, it will not run" in record.message]


@virtual
async def test_a_task_that_is_gone_from_the_code_stays_in_the_store_and_is_reported_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    deployments = Deployments()

    await run_for(deployments.app(interval=timedelta(seconds=10)), 15)
    before = await deployments.repository.row("it")
    await run_for(deployments.app(), 600)

    assert await deployments.repository.row("it") == before
    assert [record.message for record in caplog.records] == [
        "the store has schedules of tasks that this app does not define; they are left untouched: it"
    ]


@virtual
async def test_a_task_that_comes_back_to_the_code_catches_up() -> None:
    deployments = Deployments()

    await run_for(deployments.app(interval=timedelta(seconds=10)), 15)
    await run_for(deployments.app(), 20)
    await run_for(deployments.app(interval=timedelta(seconds=10)), 10)

    assert deployments.starts == [10, 35, 35, 40]


@virtual
async def test_a_disabled_task_is_not_run_and_stays_in_the_store_as_it_is() -> None:
    deployments = Deployments()

    await run_for(deployments.app(interval=timedelta(seconds=10)), 15)
    before = await deployments.repository.row("it")
    await run_for(deployments.app(interval=timedelta(seconds=10), enabled=False), 30)
    after = await deployments.repository.row("it")

    assert deployments.starts == [10]
    assert after == before


@virtual
async def test_a_disabled_task_is_not_registered_and_not_reported(caplog: pytest.LogCaptureFixture) -> None:
    deployments = Deployments()

    await run_for(deployments.app(interval=timedelta(seconds=10), enabled=False), 30)

    assert deployments.starts == []
    assert await deployments.repository.keys() == set()
    assert caplog.records == []


@virtual
async def test_enabled_may_be_set_before_the_app_runs() -> None:
    deployments = Deployments()
    app = deployments.app(interval=timedelta(seconds=10), enabled=False)
    async with app.create() as app_context, anyio.create_task_group() as group:
        (task,) = app_context._plan.defined
        task.enabled = True
        await group.start(app_context.run)
        await anyio.sleep(15)
        app_context.shutdown()

    assert deployments.starts == [10]


@virtual
async def test_instances_of_a_disabled_dynamic_task_wait_in_the_store() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    starts: list[str] = []

    @app.dynamic_task(enabled=False)
    async def hello(context: Context) -> None:
        starts.append(context.task.name)

    async with app.create() as app_context, anyio.create_task_group() as group:
        await group.start(app_context.run)
        await app_context.schedule_task(hello, "it", execute_at=START)
        await anyio.sleep(100)
        app_context.shutdown()

    assert starts == []
    assert (await repository.row("hello:it")).claimable_at == micros(0)
