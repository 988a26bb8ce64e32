"""What a hard stop cuts off, and what user code does with it, changes nothing about the outcome."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from anyscheduler import AppContext, Context, FailureMode
from anyscheduler.testing import run_virtual
from tests.loop.scene import START, WatchedRepository, run_for, running, shared, virtual, virtual_app

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable


@pytest.mark.parametrize("heartbeat", [False, True])
@virtual
async def test_a_middleware_that_swallows_a_cancellation_does_not_commit_a_body_that_was_cut_off(
    heartbeat: bool,
) -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))

    @app.middleware
    async def swallows(context: Context, next: Callable[[], Awaitable[None]]) -> None:
        with contextlib.suppress(BaseException):  # as user code may, rightly or not
            await next()

    @app.dynamic_task(heartbeat=heartbeat)
    async def long(context: Context) -> None:
        await anyio.sleep(30)

    async with app.create() as app_context:
        await app_context.schedule_task(long, "x", execute_at=START)
        with anyio.move_on_after(3):
            await app_context.run()

    row = await repository.row("long:x")
    assert row.claimable_at == row.due_at


@virtual
async def test_a_heartbeating_body_that_has_returned_is_settled_whenever_the_app_is_cancelled() -> None:
    for instant in range(10):
        repository = WatchedRepository()
        app = virtual_app(repository_factory=shared(repository))
        ended: list[str] = []

        @app.dynamic_task(heartbeat=True)
        async def short(context: Context, ended: list[str] = ended) -> None:
            for _ in range(3):
                await anyio.lowlevel.checkpoint()
            ended.append(context.task.name)

        async with app.create() as app_context:
            await app_context.schedule_task(short, "x", execute_at=START)
            async with anyio.create_task_group() as group:
                group.start_soon(app_context.run)
                for _ in range(5 + instant):
                    await anyio.lowlevel.checkpoint()
                group.cancel_scope.cancel()

        assert (await repository.keys() == set()) is (ended == ["x"]), instant


@pytest.mark.parametrize("name", ["scheduled_at", "task", "app_context"])
@virtual
async def test_what_a_body_does_to_its_context_ends_neither_the_app_nor_its_own_retries(name: str) -> None:
    app = virtual_app()
    starts = []

    @app.task(interval=timedelta(seconds=10), failure_mode=FailureMode.COMMIT)
    async def spoils(context: Context) -> None:
        starts.append(1)
        setattr(context, name, None)
        raise SystemExit

    await run_for(app, 35)

    assert len(starts) == 3


@virtual
async def test_a_fixture_is_torn_down_whole_when_the_task_group_of_one_before_it_crashes() -> None:
    app = virtual_app()
    events: list[str] = []

    async def crash() -> None:
        await anyio.sleep(2)
        raise OSError("the connection is gone")

    @app.fixture()
    async def first(app_context: AppContext) -> AsyncIterator[Any]:
        async with anyio.create_task_group() as group:
            group.start_soon(crash)
            yield group

    @app.fixture()
    async def second(app_context: AppContext) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await anyio.sleep(1)
            events.append("second is down")

    with pytest.raises(ExceptionGroup) as raised:
        await run_for(app, 10)

    assert raised.group_contains(OSError, match="the connection is gone")
    assert events == ["second is down"]


def test_leaving_create_while_run_goes_on_ends_that_before_the_fixtures_come_down() -> None:
    events: list[str] = []

    async def scene() -> None:
        app = virtual_app()

        @app.fixture()
        async def up(app_context: AppContext) -> AsyncIterator[None]:
            yield
            events.append("down")

        @app.task(interval=timedelta(seconds=1))
        async def body(context: Context) -> None:
            try:
                await anyio.sleep(60)
            finally:
                events.append("body ended")

        async with app.create() as app_context:
            task = asyncio.create_task(app_context.run())
            await anyio.sleep(2)
        await asyncio.wait([task])

    run_virtual(scene)

    assert events == ["body ended", "down"]


@virtual
async def test_with_one_slot_a_body_that_is_always_longer_than_its_lease_still_moves_on() -> None:
    app = virtual_app(concurrency_limit=1)
    due = []

    @app.task(interval=timedelta(seconds=10), lease_duration=timedelta(seconds=2))
    async def long(context: Context) -> None:
        due.append(context.scheduled_at)
        await anyio.sleep(3)

    async with running(app):
        await anyio.sleep(45)

    assert due == sorted(set(due))
    assert len(due) == 4
