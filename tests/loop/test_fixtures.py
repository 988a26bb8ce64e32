"""Fixtures: set up before the first tick, torn down after the last execution."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import anyio
import pytest

from tests.loop.scene import Stopwatch, run_for, virtual, virtual_app

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyscheduler import AppContext, Context, Scheduler


def _add(app: Scheduler, name: str, events: list[str]) -> None:
    async def fixture(app_context: AppContext) -> AsyncIterator[str]:
        events.append(f"{name} up")
        try:
            yield f"value of {name}"
        finally:
            events.append(f"{name} down")

    app.use_fixture(name, fixture)


@virtual
async def test_fixtures_are_set_up_in_order_before_the_first_tick_and_torn_down_in_reverse() -> None:
    app = virtual_app()
    events: list[str] = []
    _add(app, "first", events)
    _add(app, "second", events)

    @app.task(interval=timedelta(seconds=1))
    async def tick(context: Context) -> None:
        events.append("tick")

    await run_for(app, 1.5)

    assert events == ["first up", "second up", "tick", "second down", "first down"]


@virtual
async def test_a_body_finds_each_fixture_under_the_name_of_its_function_or_the_one_given() -> None:
    app = virtual_app()
    seen: list[tuple[str, str]] = []

    @app.fixture()
    async def db(app_context: AppContext) -> AsyncIterator[str]:
        yield "the database"

    @app.fixture(name="super_log_file")
    async def logfile(app_context: AppContext) -> AsyncIterator[str]:
        yield "the file"

    @app.task(interval=timedelta(seconds=1))
    async def tick(context: Context) -> None:
        seen.append((context.db, context.super_log_file))
        with pytest.raises(AttributeError, match="logfile"):
            print(context.logfile)

    await run_for(app, 1.5)

    assert seen == [("the database", "the file")]


@virtual
async def test_a_fixture_can_schedule_and_use_what_was_set_up_before_it() -> None:
    app = virtual_app()
    seen: list[str] = []

    @app.dynamic_task()
    async def hello(context: Context) -> None:
        seen.append(context.args["username"])

    @app.fixture()
    async def schedules(app_context: AppContext) -> AsyncIterator[None]:
        await app_context.schedule_task(hello, "bill", interval=timedelta(seconds=1), username="bill")
        yield
        await app_context.unschedule_task(hello, "bill")

    await run_for(app, 2.5)

    assert seen == ["bill", "bill"]


@virtual
async def test_teardown_waits_for_the_last_execution() -> None:
    app = virtual_app()
    now = Stopwatch()
    events: list[tuple[str, float]] = []

    @app.fixture()
    async def db(app_context: AppContext) -> AsyncIterator[None]:
        yield
        events.append(("down", now()))

    @app.task(interval=timedelta(seconds=1))
    async def slow(context: Context) -> None:
        await anyio.sleep(30)
        events.append(("end", now()))

    await run_for(app, 1.5)

    assert events == [("end", 31), ("down", 31)]


@virtual
async def test_a_set_up_that_fails_stops_the_start_with_its_own_exception_after_the_others_are_down() -> None:
    app = virtual_app()
    events: list[str] = []
    _add(app, "first", events)

    @app.fixture()
    async def broken(app_context: AppContext) -> AsyncIterator[None]:
        raise ZeroDivisionError("no database")
        yield  # type: ignore[unreachable]  # it makes this a generator

    _add(app, "never", events)

    with pytest.raises(ZeroDivisionError, match="no database"):
        async with app.create():
            events.append("created")

    assert events == ["first up", "first down"]


@virtual
async def test_a_teardown_that_fails_is_raised_and_does_not_keep_the_others_from_theirs() -> None:
    app = virtual_app()
    events: list[str] = []
    _add(app, "first", events)

    @app.fixture()
    async def broken(app_context: AppContext) -> AsyncIterator[None]:
        yield
        raise ZeroDivisionError("no disk")

    _add(app, "last", events)

    with pytest.raises(ZeroDivisionError, match="no disk"):
        async with app.create():
            pass

    assert events == ["first up", "last up", "last down", "first down"]


@virtual
async def test_an_error_in_the_block_reaches_the_fixtures_and_passes_through() -> None:
    app = virtual_app()
    seen: list[str] = []

    @app.fixture()
    async def transaction(app_context: AppContext) -> AsyncIterator[None]:
        try:
            yield
        except ZeroDivisionError as error:
            seen.append(str(error))
            raise

    with pytest.raises(ZeroDivisionError, match="mine"):
        async with app.create():
            raise ZeroDivisionError("mine")

    assert seen == ["mine"]
