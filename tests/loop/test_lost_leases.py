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
from tests.loop.scene import (
    Stopwatch,
    run_for,
    running,
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
