"""Keeping a lease alive, and noticing that it was lost."""

from __future__ import annotations

from datetime import timedelta

import anyio
import pytest

from anyscheduler import (
    ConfigurationError,
    Context,
    ExecutionMode,
    LeaseLostError,
    with_heartbeat,
)
from tests.loop.scene import (
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

LEASE = timedelta(seconds=10)


@virtual
async def test_context_heartbeat_extends_to_a_whole_lease_from_now() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    ends: list[int] = []

    @app.task(interval=timedelta(seconds=100), lease_duration=LEASE)
    async def beats(context: Context) -> None:
        for _ in range(4):
            await anyio.sleep(8)
            await context.heartbeat()
            ends.append((await repository.row("beats")).claimable_at)

    await run_for(app, 150)

    assert ends == [micros(118), micros(126), micros(134), micros(142)]
    assert (await repository.row("beats")).due_at == micros(200)


@virtual
async def test_a_heartbeat_keeps_the_fence() -> None:
    app = virtual_app()
    fences: list[str] = []

    @app.task(interval=timedelta(seconds=100), lease_duration=LEASE)
    async def beats(context: Context) -> None:
        fences.append(context.fence)
        await anyio.sleep(8)
        await context.heartbeat()
        fences.append(context.fence)

    await run_for(app, 150)

    assert len(fences) == 2
    assert fences[0] == fences[1]


@pytest.mark.parametrize("how", ["option", "decorator"])
@virtual
async def test_a_background_heartbeat_keeps_the_lease_for_as_long_as_the_body_runs(how: str) -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    starts: list[float] = []

    async def long(context: Context) -> None:
        starts.append(seconds(context.scheduled_at))
        await anyio.sleep(95)

    if how == "option":
        app.task(interval=timedelta(seconds=100), lease_duration=LEASE, heartbeat=True)(long)
    else:
        app.task(interval=timedelta(seconds=100), lease_duration=LEASE)(with_heartbeat()(long))
    async with running(app):
        await anyio.sleep(198)
        settled = await repository.row("long")

    assert starts == [100]
    assert (settled.due_at, settled.claimable_at) == free(200)


@virtual
async def test_with_heartbeat_extends_when_the_given_part_of_the_lease_is_left() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    ends: list[int] = []

    @app.task(interval=timedelta(seconds=100), lease_duration=LEASE)
    @with_heartbeat(lease_remaining_ratio=0.2)
    async def long(context: Context) -> None:
        for _ in range(3):
            await anyio.sleep(8.5)
            ends.append((await repository.row("long")).claimable_at)

    await run_for(app, 150)

    assert ends == [micros(118), micros(126), micros(134)]


@pytest.mark.parametrize("ratio", [0, 1, -0.5, 1.5, float("nan"), "half"])
def test_with_heartbeat_refuses_a_ratio_that_is_not_between_0_and_1(ratio: float) -> None:
    with pytest.raises(ConfigurationError, match="lease_remaining_ratio"):
        with_heartbeat(lease_remaining_ratio=ratio)


@virtual
async def test_the_exception_of_a_body_with_a_heartbeat_reaches_middlewares_as_it_is() -> None:
    app = virtual_app()
    seen: list[str] = []

    @app.middleware
    async def look(context: Context, next: object) -> None:
        try:
            await next()  # type: ignore[operator]
        except Exception as error:
            seen.append(repr(error))
            raise

    @app.task(interval=timedelta(seconds=100), heartbeat=True)
    async def fails(context: Context) -> None:
        raise ZeroDivisionError("mine")

    await run_for(app, 101)

    assert seen == ["ZeroDivisionError('mine')"]


@virtual
async def test_a_heartbeat_lasts_through_an_outage_of_the_store_that_is_shorter_than_the_lease() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    starts: list[float] = []
    ends: list[float] = []
    now = Stopwatch()

    @app.task(interval=timedelta(seconds=1000), lease_duration=timedelta(seconds=60), heartbeat=True)
    async def long(context: Context) -> None:
        starts.append(now())
        await anyio.sleep(300)
        ends.append(now())

    async with running(app):
        await anyio.sleep(1025)
        repository.failing |= {"claim", "write"}
        await anyio.sleep(20)
        repository.failing.clear()
        await anyio.sleep(300)
        settled = await repository.row("long")

    assert (starts, ends) == ([1000], [1300])
    assert settled.due_at == micros(2000)


@virtual
async def test_a_heartbeat_whose_lease_ended_while_the_store_was_away_raises_lease_lost() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    now = Stopwatch()
    lost: list[float] = []

    @app.task(interval=timedelta(seconds=1000), lease_duration=LEASE)
    async def beats(context: Context) -> None:
        repository.failing |= {"claim", "write"}
        with pytest.raises(LeaseLostError):
            await context.heartbeat()
        lost.append(now())
        repository.failing.clear()

    await run_for(app, 1030)

    assert len(lost) == 1
    assert 1010 <= lost[0] <= 1016


@virtual
async def test_under_at_most_once_a_heartbeat_has_no_effect() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    rows: list[tuple[int, int]] = []

    @app.task(interval=timedelta(seconds=100), execution_mode=ExecutionMode.AT_MOST_ONCE, heartbeat=True)
    async def ping(context: Context) -> None:
        await context.heartbeat()
        await anyio.sleep(50)
        row = await repository.row("ping")
        rows.append((row.due_at, row.claimable_at))

    await run_for(app, 160)

    assert rows == [free(200)]


@virtual
async def test_a_commit_waits_for_the_extension_in_flight() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))

    @app.task(interval=timedelta(seconds=100), lease_duration=LEASE, heartbeat=True)
    async def ends_while_it_is_extended(context: Context) -> None:
        repository.slow_replies["write"] = 3
        await anyio.sleep(6)

    async with running(app):
        await anyio.sleep(120)
        row = await repository.row("ends_while_it_is_extended")

    assert (row.due_at, row.claimable_at) == free(200)
