"""Leases that are lost while the body runs, and who gets to know."""

from __future__ import annotations

from datetime import timedelta

import anyio
import pytest

from anyscheduler import (
    AppContext,
    Context,
    LeaseLostError,
    Scheduler,
    with_heartbeat,
)
from anyscheduler.testing import VirtualClock
from tests.loop.scene import (
    START,
    Stopwatch,
    WatchedRepository,
    micros,
    run_for,
    running,
    shared,
    virtual,
    virtual_app,
)

LEASE = timedelta(seconds=10)


@virtual
async def test_a_heartbeat_after_a_take_over_raises_lease_lost_and_so_does_each_one_after_it() -> None:
    app = virtual_app()
    now = Stopwatch()
    events: list[tuple[str, float]] = []

    @app.task(interval=timedelta(seconds=100), lease_duration=LEASE)
    async def overruns(context: Context) -> None:
        events.append(("start", now()))
        if len(events) > 1:
            return
        await anyio.sleep(15)
        for _ in range(2):
            with pytest.raises(LeaseLostError) as caught:
                await context.heartbeat()
            events.append((f"lost {caught.value.task}", now()))

    await run_for(app, 150)

    assert events == [("start", 100), ("start", 110), ("lost overruns", 115), ("lost overruns", 115)]


@virtual
async def test_a_body_that_passes_the_lease_lost_error_on_changes_nothing_in_the_store(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = virtual_app()
    starts: list[float] = []
    now = Stopwatch()

    @app.task(interval=timedelta(seconds=100), lease_duration=LEASE)
    async def overruns(context: Context) -> None:
        starts.append(now())
        await anyio.sleep(15 if len(starts) == 1 else 7)
        await context.heartbeat()

    await run_for(app, 205)

    assert starts == [100, 110, 200]
    assert len([record for record in caplog.records if "after its lease was lost" in record.message]) == 1


async def _lose_the_lease(app: Scheduler, how: str) -> AppContext:
    async with running(app) as app_context:
        (task,) = app_context._plan.defined
        await app_context.schedule_task(task, "it", interval=timedelta(seconds=100))
        await anyio.sleep(112)
        if how == "unscheduled":
            await app_context.unschedule_task(task, "it")
        else:
            await app_context.schedule_task(task, "it", interval=timedelta(seconds=100), force=True)
        await anyio.sleep(30)
    return app_context


@pytest.mark.parametrize("how", ["unscheduled", "replaced"])
@virtual
async def test_with_heartbeat_true_a_body_is_cancelled_when_its_lease_is_lost(how: str) -> None:
    app = virtual_app()
    now = Stopwatch()
    events: list[tuple[str, float]] = []

    @app.dynamic_task(lease_duration=LEASE, heartbeat=True)
    async def long(context: Context) -> None:
        try:
            await anyio.sleep(60)
            events.append(("finished", now()))
        finally:
            events.append(("ended", now()))

    await _lose_the_lease(app, how)

    assert events == [("ended", 115)]


@pytest.mark.parametrize(
    ("cancels", "expected"), [(True, [("ended", 115)]), (False, [("finished", 160), ("ended", 160)])]
)
@virtual
async def test_with_heartbeat_cancels_the_body_only_if_asked_to(
    cancels: bool, expected: list[tuple[str, float]]
) -> None:
    app = virtual_app()
    now = Stopwatch()
    events: list[tuple[str, float]] = []

    @app.dynamic_task(lease_duration=LEASE)
    @with_heartbeat(cancel_on_lease_lost=cancels)
    async def long(context: Context) -> None:
        try:
            await anyio.sleep(60)
            events.append(("finished", now()))
        finally:
            events.append(("ended", now()))

    await _lose_the_lease(app, "unscheduled")

    assert events == expected


@virtual
async def test_what_was_claimed_and_comes_back_after_its_lease_does_not_run_if_somebody_else_has_it() -> None:
    slow, quick = WatchedRepository(), WatchedRepository()
    quick.inner = slow.inner
    slow.slow_replies["claim"] = 12
    clock = VirtualClock(START)
    starts: list[str] = []

    def make(name: str, repository: WatchedRepository) -> Scheduler:
        app = virtual_app(clock=clock, repository_factory=shared(repository))

        @app.task(interval=timedelta(seconds=100), lease_duration=LEASE)
        async def work(context: Context) -> None:
            starts.append(name)
            await anyio.sleep(5)

        return app

    async with anyio.create_task_group() as group:
        group.start_soon(run_for, make("slow", slow), 130)
        await anyio.sleep(109)
        await run_for(make("quick", quick), 21)

    assert starts == ["quick"]


@virtual
async def test_a_lease_of_which_much_was_lost_on_the_way_is_made_whole_before_the_body_starts() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository), poll_interval=timedelta(hours=1))
    now = Stopwatch()
    leases: list[tuple[float, float]] = []

    @app.task(interval=timedelta(seconds=100), lease_duration=LEASE)
    async def work(context: Context) -> None:
        row = await repository.row("work")
        leases.append((now(), (row.claimable_at - micros(0)) / 1e6))

    async with running(app):
        await anyio.sleep(50)
        for delay in (1, 5):
            repository.slow_replies["claim"] = delay
            await anyio.sleep(100)

    # An occurrence is claimed a hundredth of a second before it is due, and its body starts when the reply has come.
    assert leases == [(100.99, 110), (204.99, 214.99)]


@virtual
async def test_a_lease_of_its_own_is_counted_from_when_it_is_written() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    now = Stopwatch()
    leases: list[tuple[float, float]] = []

    @app.task(interval=timedelta(seconds=100))
    async def before(context: Context) -> None:
        pass

    @app.dynamic_task(lease_duration=timedelta(minutes=1))
    async def work(context: Context) -> None:
        row = await repository.row("work:it")
        leases.append((now(), (row.claimable_at - micros(0)) / 1e6))

    async with running(app) as app_context:
        await app_context.schedule_task(
            work, "it", execute_at=START + timedelta(seconds=101), lease_duration=timedelta(seconds=5)
        )
        await anyio.sleep(50)
        repository.slow["write"] = 4
        await anyio.sleep(55)
        repository.slow.clear()
        await anyio.sleep(20)

    # The lease is written as soon as the commit of the other task is, which the store has from 100 to 104.
    assert leases == [(108, 109)]


@virtual
async def test_a_lease_that_was_over_when_the_store_answered_is_written_again_before_the_body_starts() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    now = Stopwatch()
    leases: list[tuple[float, float]] = []

    @app.dynamic_task(lease_duration=timedelta(minutes=1))
    async def work(context: Context) -> None:
        row = await repository.row("work:it")
        leases.append((now(), (row.claimable_at - micros(0)) / 1e6))

    async with running(app) as app_context:
        await app_context.schedule_task(work, "it", execute_at=START + timedelta(seconds=100), lease_duration=LEASE)
        repository.slow_replies["write"] = 12
        await anyio.sleep(110)
        repository.slow_replies.clear()
        await anyio.sleep(20)

    assert leases == [(112, 122)]
