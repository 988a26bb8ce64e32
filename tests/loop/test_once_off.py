"""Once-off schedules: overdue, in the future, in local time, gone after success."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import anyio
import pytest

from anyscheduler import (
    ConfigurationError,
    Context,
)
from anyscheduler.testing import VirtualClock
from tests.loop.scene import START, Stopwatch, WatchedRepository, running, seconds, shared, virtual, virtual_app


@pytest.mark.parametrize(
    "execute_at",
    [START.date(), "2026-01-01", 5, datetime.max.replace(tzinfo=timezone(-timedelta(hours=5)))],
    ids=["date", "text", "number", "overflow"],
)
@virtual
async def test_an_execute_at_that_is_no_instant_is_refused(execute_at: object) -> None:
    app = virtual_app()

    @app.dynamic_task()
    async def hello(context: Context) -> None: ...

    async with app.create() as app_context:
        with pytest.raises(ConfigurationError, match="execute_at"):
            await app_context.schedule_task(hello, "it", execute_at=execute_at)


@virtual
async def test_a_once_off_runs_at_its_instant_and_is_gone() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    now = Stopwatch()
    starts: list[tuple[float, datetime]] = []

    @app.dynamic_task()
    async def once(context: Context) -> None:
        starts.append((now(), context.scheduled_at))

    at = START + timedelta(seconds=42.5)
    async with running(app) as app_context:
        await app_context.schedule_task(once, "it", execute_at=at)
        await anyio.sleep(100)

    assert starts == [(42.5, at)]
    assert await repository.keys() == set()


@virtual
async def test_an_overdue_once_off_runs_at_once() -> None:
    app = virtual_app()
    now = Stopwatch()
    starts: list[tuple[float, float]] = []

    @app.dynamic_task()
    async def once(context: Context) -> None:
        starts.append((now(), seconds(context.scheduled_at)))

    async with running(app) as app_context:
        await anyio.sleep(10.3)
        await app_context.schedule_task(once, "overdue", execute_at=START - timedelta(days=1))
        await anyio.sleep(5)

    assert starts == [(10.3, -86_400)]


@virtual
async def test_a_naive_execute_at_is_local_time() -> None:
    now_local = datetime.now().replace(microsecond=0)
    app = virtual_app(clock=VirtualClock(now_local.astimezone(UTC)))
    now = Stopwatch()
    starts: list[float] = []

    @app.dynamic_task()
    async def once(context: Context) -> None:
        starts.append(now())

    async with running(app) as app_context:
        await app_context.schedule_task(once, "soon", execute_at=now_local + timedelta(seconds=30))
        await app_context.schedule_task(once, "tomorrow", execute_at=now_local + timedelta(days=1))
        await anyio.sleep(60)

    assert starts == [30]


@virtual
async def test_a_once_off_beyond_2038_waits_quietly() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))

    @app.dynamic_task()
    async def once(context: Context) -> None: ...

    async with running(app) as app_context:
        instance = await app_context.schedule_task(
            once, "y2k38", execute_at=datetime(2038, 1, 19, 3, 14, 7, tzinfo=UTC)
        )
        await anyio.sleep(10)

    assert instance.execute_at == datetime(2038, 1, 19, 3, 14, 7, tzinfo=UTC)
    assert await repository.keys() == {"once:y2k38"}


@virtual
async def test_a_once_off_that_fails_is_tried_again_until_it_succeeds() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    now = Stopwatch()
    starts: list[float] = []

    @app.dynamic_task(lease_duration=timedelta(seconds=20))
    async def once(context: Context) -> None:
        starts.append(now())
        if len(starts) < 3:
            raise OSError("no luck")

    async with running(app) as app_context:
        await app_context.schedule_task(once, "it", execute_at=START + timedelta(seconds=5))
        await anyio.sleep(100)

    assert starts == [5, 25, 45]
    assert await repository.keys() == set()


@virtual
async def test_a_once_off_can_schedule_its_own_name_again() -> None:
    app = virtual_app()
    now = Stopwatch()
    starts: list[float] = []

    @app.dynamic_task()
    async def once(context: Context) -> None:
        starts.append(now())
        at = context.scheduled_at + timedelta(seconds=10)
        await context.app_context.schedule_task(once, context.task.name, execute_at=at, force=True)

    async with running(app) as app_context:
        await app_context.schedule_task(once, "it", execute_at=START + timedelta(seconds=5))
        await anyio.sleep(31)

    assert starts == [5, 15, 25]
