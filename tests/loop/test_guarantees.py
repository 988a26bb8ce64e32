"""Failure modes, leases, take-over, fences."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import anyio

from anyscheduler import Context, FailureMode
from anyscheduler.lease import HEAD_START
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
async def test_while_it_runs_a_task_is_leased_for_sixty_seconds_and_free_once_it_succeeded() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))

    @app.task(interval=timedelta(seconds=10))
    async def tick(context: Context) -> None:
        await anyio.sleep(3)

    async with running(app):
        await anyio.sleep(11)
        during = await repository.row("tick")
        await anyio.sleep(4)
        after = await repository.row("tick")

    assert (during.due_at, during.claimable_at) == (micros(10), micros(70))
    assert (after.due_at, after.claimable_at) == free(20)


@virtual
async def test_a_failure_is_tried_again_when_the_lease_ends_by_default() -> None:
    app = virtual_app()
    now = Stopwatch()
    starts: list[tuple[float, float]] = []

    @app.task(interval=timedelta(seconds=100))
    async def fails_twice(context: Context) -> None:
        starts.append((seconds(context.scheduled_at), now()))
        await anyio.sleep(5)
        if len(starts) < 3:
            raise OSError("no luck")

    await run_for(app, 330)

    # The second occurrence was missed meanwhile, and follows at once.
    assert starts == [(100, 100), (100, 160), (100, 220.01), (200, 225.01), (300, 300)]


@virtual
async def test_the_lease_duration_of_the_task_sets_when_a_failure_is_tried_again() -> None:
    app = virtual_app()
    now = Stopwatch()
    starts: list[float] = []

    @app.task(interval=timedelta(seconds=100), lease_duration=timedelta(seconds=7))
    async def fails(context: Context) -> None:
        starts.append(now())
        raise OSError("no luck")

    await run_for(app, 122)

    assert starts == [100, 107, 114.01, 121.02]


@virtual
async def test_unlock_tries_again_one_poll_interval_after_the_failure() -> None:
    app = virtual_app(poll_interval=timedelta(seconds=3))
    now = Stopwatch()
    starts: list[float] = []

    @app.task(interval=timedelta(seconds=100), failure_mode=FailureMode.UNLOCK)
    async def fails_three_times(context: Context) -> None:
        starts.append(now())
        await anyio.sleep(0.5)
        if len(starts) < 4:
            raise OSError("no luck")

    await run_for(app, 205)

    assert starts == [100, 103.5, 107, 110.5, 200]


@virtual
async def test_unlock_of_a_body_that_fails_at_once_is_no_hot_loop() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    now = Stopwatch()
    starts: list[float] = []

    @app.task(interval=timedelta(seconds=1), failure_mode=FailureMode.UNLOCK)
    async def fails(context: Context) -> None:
        starts.append(now())
        raise OSError("no luck")

    await run_for(app, 10.5)

    assert starts == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    assert repository.calls["claim"] <= 25


@virtual
async def test_after_unlock_nothing_is_shown_as_locked() -> None:
    app = virtual_app(poll_interval=timedelta(seconds=10))

    @app.task(interval=timedelta(seconds=5), failure_mode=FailureMode.UNLOCK)
    async def fails(context: Context) -> None:
        raise OSError("no luck")

    async with running(app) as app_context:
        await anyio.sleep(6)
        state = await app_context.get_task(fails)

    assert state is not None
    assert (state.locked_until, state.locked_by) == (None, None)
    assert seconds(state.scheduled_at) == 5


@virtual
async def test_commit_takes_a_failure_for_a_success() -> None:
    app = virtual_app()
    now = Stopwatch()
    starts: list[float] = []

    @app.task(interval=timedelta(seconds=10), failure_mode=FailureMode.COMMIT)
    async def fails(context: Context) -> None:
        starts.append(now())
        raise OSError("no luck")

    await run_for(app, 35)

    assert starts == [10, 20, 30]


@virtual
async def test_a_failure_is_logged_once_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    app = virtual_app()

    @app.task(interval=timedelta(seconds=10), pin="hunter2")
    async def fails(context: Context) -> None:
        raise OSError("no luck")

    await run_for(app, 11)

    records = [record for record in caplog.records if record.name.startswith("anyscheduler")]
    assert [record.levelname for record in records] == ["WARNING"]
    assert "fails" in records[0].message
    assert records[0].exc_info is not None
    assert "hunter2" not in caplog.text


@virtual
async def test_a_failure_of_one_task_leaves_the_others_alone() -> None:
    app = virtual_app()
    now = Stopwatch()
    starts: list[float] = []

    @app.task(interval=timedelta(seconds=1), failure_mode=FailureMode.UNLOCK)
    async def fails(context: Context) -> None:
        raise OSError("no luck")

    @app.task(interval=timedelta(seconds=2))
    async def works(context: Context) -> None:
        starts.append(now())

    await run_for(app, 9)

    assert starts == [2, 4, 6, 8]


@virtual
async def test_longer_than_its_lease_a_second_execution_starts_and_the_late_result_is_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    now = Stopwatch()
    events: list[tuple[str, int, float]] = []

    @app.task(interval=timedelta(seconds=100), lease_duration=timedelta(seconds=10))
    async def overruns(context: Context) -> None:
        number = len([event for event in events if event[0] == "start"])
        events.append(("start", number, now()))
        await anyio.sleep(15 if number == 0 else 8)
        events.append(("end", number, now()))

    async with running(app):
        await anyio.sleep(116)
        between = await repository.row("overruns")
        await anyio.sleep(10)
        after = await repository.row("overruns")

    assert events == [("start", 0, 100), ("start", 1, 110), ("end", 0, 115), ("end", 1, 118)]
    assert (between.due_at, between.claimable_at) == (micros(100), micros(120) + HEAD_START)
    assert (after.due_at, after.claimable_at) == free(200)
    assert [record.message for record in caplog.records if "late result was refused" in record.message]


@virtual
async def test_a_late_failure_does_not_release_what_somebody_else_holds() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    now = Stopwatch()
    starts: list[float] = []

    @app.task(interval=timedelta(seconds=100), lease_duration=timedelta(seconds=10), failure_mode=FailureMode.UNLOCK)
    async def overruns(context: Context) -> None:
        starts.append(now())
        if len(starts) == 1:
            await anyio.sleep(15)
            raise OSError("no luck")
        await anyio.sleep(9)

    await run_for(app, 150)

    assert starts == [100, 110]


@virtual
async def test_the_result_of_an_expired_lease_counts_while_nobody_else_took_it() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    due: list[float] = []

    @app.task(interval=timedelta(seconds=100), lease_duration=timedelta(seconds=10))
    async def overruns(context: Context) -> None:
        due.append(seconds(context.scheduled_at))
        repository.failing.add("claim")
        await anyio.sleep(50)

    async with running(app):
        await anyio.sleep(151)
        repository.failing.clear()
        await anyio.sleep(55)

    assert due == [100, 200]


@virtual
async def test_the_fence_of_each_execution_is_greater_than_the_one_before() -> None:
    app = virtual_app()
    fences: list[str] = []

    @app.task(interval=timedelta(seconds=10), failure_mode=FailureMode.UNLOCK)
    async def tick(context: Context) -> None:
        fences.append(context.fence)
        if len(fences) % 3 == 0:
            raise OSError("no luck")

    await run_for(app, 105)

    assert len(fences) > 10
    assert fences == sorted(set(fences))


@virtual
async def test_fences_grow_also_when_occurrences_are_caught_up_within_one_tick_of_the_clock() -> None:
    clock = VirtualClock(START)
    app = virtual_app(clock=clock)
    fences: list[str] = []

    @app.task(interval=timedelta(seconds=1))
    async def tick(context: Context) -> None:
        fences.append(context.fence)

    async with running(app):
        clock.ahead = timedelta(seconds=50)
        await anyio.sleep(5)

    assert len(fences) > 50
    assert fences == sorted(set(fences))
