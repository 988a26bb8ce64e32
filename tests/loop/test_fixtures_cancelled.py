"""Fixtures of an app that is cancelled, and fixtures that hold a task group."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import anyio

from tests.loop.scene import Stopwatch, run_for, virtual, virtual_app

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyio.abc import TaskGroup

    from anyscheduler import AppContext, Context, Scheduler


@virtual
async def test_when_the_app_is_cancelled_the_teardowns_can_still_await() -> None:
    app = virtual_app()
    now = Stopwatch()
    events: list[tuple[str, float]] = []

    for name in ("first", "second"):

        async def fixture(app_context: AppContext, name: str = name) -> AsyncIterator[None]:
            try:
                yield
            finally:
                await anyio.sleep(1)
                events.append((name, now()))

        app.use_fixture(name, fixture)

    with anyio.move_on_after(10):
        async with app.create() as app_context:
            await app_context.run()

    assert events == [("second", 11), ("first", 12)]


@virtual
async def test_when_the_app_is_cancelled_endless_teardowns_are_given_up_after_five_seconds() -> None:
    app = virtual_app()
    now = Stopwatch()
    reached: list[str] = []

    for name in ("first", "second"):

        async def fixture(app_context: AppContext, name: str = name) -> AsyncIterator[None]:
            try:
                yield
            finally:
                reached.append(name)
                await anyio.sleep_forever()

        app.use_fixture(name, fixture)

    with anyio.move_on_after(10):
        async with app.create() as app_context:
            await app_context.run()

    assert reached == ["second", "first"]
    assert now() == 15


@virtual
async def test_cancelled_during_set_up_what_is_up_is_torn_down() -> None:
    app = virtual_app()
    events: list[str] = []

    @app.fixture()
    async def first(app_context: AppContext) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await anyio.sleep(1)
            events.append("first down")

    @app.fixture()
    async def endless(app_context: AppContext) -> AsyncIterator[None]:
        await anyio.sleep_forever()
        yield

    with anyio.move_on_after(3):
        async with app.create():
            events.append("created")

    assert events == ["first down"]


def _add_group(app: Scheduler, events: list[tuple[str, float]], now: Stopwatch) -> None:
    async def work() -> None:
        try:
            await anyio.sleep(5)
        finally:
            events.append(("work ended", now()))

    @app.fixture()
    async def background(app_context: AppContext) -> AsyncIterator[TaskGroup]:
        async with anyio.create_task_group() as group:
            yield group
        events.append(("group closed", now()))

    @app.task(interval=timedelta(seconds=1))
    async def starts_work(context: Context) -> None:
        if not events:
            events.append(("work started", now()))
            context.background.start_soon(work)


@virtual
async def test_a_fixture_may_hold_a_task_group_whose_work_is_waited_for() -> None:
    app = virtual_app()
    now = Stopwatch()
    events: list[tuple[str, float]] = []
    _add_group(app, events, now)

    await run_for(app, 3)

    assert events == [("work started", 1), ("work ended", 6), ("group closed", 6)]


@virtual
async def test_a_task_group_of_a_fixture_is_cancelled_with_the_app() -> None:
    app = virtual_app()
    now = Stopwatch()
    events: list[tuple[str, float]] = []
    _add_group(app, events, now)

    with anyio.move_on_after(3):
        async with app.create() as app_context:
            await app_context.run()

    assert events[:2] == [("work started", 1), ("work ended", 3)]
