"""What bodies may be, and what they may do without ending the app."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import anyio
import pytest

from anyscheduler import Context, FailureMode, Scheduler
from anyscheduler.testing import run_virtual
from tests.loop.scene import RAISED, Stopwatch, name_of, run_for, virtual, virtual_app


@pytest.mark.parametrize("heartbeat", [False, True], ids=["plain", "heartbeat"])
@pytest.mark.parametrize("error", RAISED, ids=name_of)
@virtual
async def test_whatever_a_body_raises_it_has_failed_and_the_app_goes_on(
    error: BaseException, heartbeat: bool, caplog: pytest.LogCaptureFixture
) -> None:
    app = virtual_app(poll_interval=timedelta(seconds=2))
    now = Stopwatch()
    failing: list[float] = []
    other: list[float] = []

    @app.task(interval=timedelta(seconds=10), failure_mode=FailureMode.UNLOCK, heartbeat=heartbeat)
    async def raises(context: Context) -> None:
        failing.append(now())
        if len(failing) == 1:
            raise error

    @app.task(interval=timedelta(seconds=5))
    async def works(context: Context) -> None:
        other.append(now())

    await run_for(app, 23)

    assert failing == [10, 12, 20]
    assert other == [5, 10, 15, 20]
    assert len([record for record in caplog.records if "failed" in record.message]) == 1


def test_a_body_that_cancels_its_own_asyncio_task_has_failed_and_the_app_goes_on() -> None:
    starts: list[float] = []

    async def scene() -> None:
        app = virtual_app(poll_interval=timedelta(seconds=2))
        now = Stopwatch()

        @app.task(interval=timedelta(seconds=10), failure_mode=FailureMode.UNLOCK)
        async def cancels_itself(context: Context) -> None:
            starts.append(now())
            if len(starts) == 1:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
                await anyio.sleep(1)

        await run_for(app, 23)

    run_virtual(scene)

    assert starts == [10, 12, 20]


def test_a_body_that_cancels_its_own_asyncio_task_and_returns_does_not_end_the_app() -> None:
    starts: list[float] = []

    async def scene() -> None:
        app = virtual_app()
        now = Stopwatch()

        @app.task(interval=timedelta(seconds=10))
        async def cancels_itself(context: Context) -> None:
            starts.append(now())
            if len(starts) == 1:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()

        await run_for(app, 25)

    run_virtual(scene)

    assert starts == [10, 20]


@virtual
async def test_a_body_that_cancels_a_scope_of_its_own_has_simply_ended() -> None:
    app = virtual_app()
    now = Stopwatch()
    starts: list[float] = []

    @app.task(interval=timedelta(seconds=10))
    async def gives_up(context: Context) -> None:
        starts.append(now())
        with anyio.move_on_after(1):
            await anyio.sleep_forever()

    await run_for(app, 25)

    assert starts == [10, 20]


@virtual
async def test_an_async_callable_object_can_be_a_body() -> None:
    app = virtual_app()
    calls: list[str] = []

    class Greeter:
        async def __call__(self, context: Context) -> None:
            calls.append(context.task.name)

    app.task(name="greeter", interval=timedelta(seconds=1))(Greeter())

    await run_for(app, 2.5)

    assert calls == ["greeter", "greeter"]


def test_calling_a_task_calls_its_body() -> None:
    app = Scheduler()
    calls: list[object] = []

    @app.task(interval=timedelta(seconds=1))
    def plain(context: Context) -> None:
        calls.append(context)

    plain("anything")

    assert calls == ["anything"]
