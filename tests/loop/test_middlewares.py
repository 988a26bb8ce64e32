"""The onion around every body."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeAlias

import anyio
import pytest

from anyscheduler import Context, FailureMode, MiddlewareError
from tests.loop.scene import Stopwatch, run_for, seconds, virtual, virtual_app

Next: TypeAlias = Callable[[], Awaitable[None]]


@virtual
async def test_the_first_middleware_defined_is_the_outermost() -> None:
    app = virtual_app()
    events: list[str] = []

    @app.middleware
    async def outer(context: Context, next: Next) -> None:
        events.append("outer before")
        await next()
        events.append("outer after")

    async def inner(context: Context, next: Next) -> None:
        events.append("inner before")
        await next()
        events.append("inner after")

    app.use_middleware(inner)

    @app.task(interval=timedelta(seconds=1))
    async def body(context: Context) -> None:
        events.append("body")

    await run_for(app, 1.5)

    assert events == ["outer before", "inner before", "body", "inner after", "outer after"]


@virtual
async def test_not_calling_next_skips_the_body_settles_the_occurrence_and_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", logger="anyscheduler")
    app = virtual_app()
    due: list[float] = []
    bodies: list[float] = []

    @app.middleware
    async def skip(context: Context, next: Next) -> None:
        due.append(seconds(context.scheduled_at))
        if len(due) != 2:
            await next()

    @app.task(interval=timedelta(seconds=10))
    async def body(context: Context) -> None:
        bodies.append(seconds(context.scheduled_at))

    await run_for(app, 35)

    assert due == [10, 20, 30]
    assert bodies == [10, 30]
    assert (
        len([record for record in caplog.records if "skipped, a middleware did not call next()" in record.message]) == 1
    )


@virtual
async def test_an_exception_reaches_a_middleware_with_what_the_body_was_handling() -> None:
    app = virtual_app()
    caught: list[BaseException] = []

    @app.middleware
    async def fall_back(context: Context, next: Next) -> None:
        try:
            {"a": 1}.pop("b")
        except LookupError:
            try:
                await next()
            except KeyError as error:
                caught.append(error)

    @app.task(interval=timedelta(seconds=100))
    async def body(context: Context) -> None:
        try:
            [1].index(2)
        except ValueError:
            {"a": 1}.pop("c")

    await run_for(app, 101)

    [error] = caught
    assert isinstance(error.__context__, ValueError)
    assert isinstance(error.__context__.__context__, KeyError)


@virtual
async def test_a_second_next_is_an_error_raised_in_the_middleware_that_called_it() -> None:
    app = virtual_app()
    events: list[object] = []

    @app.middleware
    async def outer(context: Context, next: Next) -> None:
        try:
            await next()
        except Exception as error:
            events.append(type(error))
            raise

    @app.middleware
    async def retry(context: Context, next: Next) -> None:
        for _ in range(2):
            await next()

    @app.task(interval=timedelta(seconds=100), failure_mode=FailureMode.COMMIT)
    async def body(context: Context) -> None:
        events.append("body")

    await run_for(app, 101)

    assert events == ["body", MiddlewareError]


@virtual
async def test_the_seeds_retry_middleware_fails_the_task_instead_of_running_it_again() -> None:
    app = virtual_app(poll_interval=timedelta(seconds=5))
    now = Stopwatch()
    starts: list[float] = []

    @app.middleware
    async def retry(context: Context, next: Next) -> None:
        for _ in range(5):
            with contextlib.suppress(Exception):
                await next()
                return
        raise RuntimeError("failed too many times")

    @app.task(interval=timedelta(seconds=100), failure_mode=FailureMode.UNLOCK)
    async def body(context: Context) -> None:
        starts.append(now())
        if len(starts) < 3:
            raise OSError("no luck")

    await run_for(app, 150)

    assert starts == [100, 105, 110]


@virtual
async def test_a_middleware_sees_the_exception_of_the_body_and_may_swallow_it() -> None:
    app = virtual_app()
    now = Stopwatch()
    seen: list[tuple[str, float]] = []

    @app.middleware
    async def swallow(context: Context, next: Next) -> None:
        try:
            await next()
        except OSError as error:
            seen.append((str(error), now()))

    @app.task(interval=timedelta(seconds=10))
    async def body(context: Context) -> None:
        raise OSError("no luck")

    await run_for(app, 25)

    assert seen == [("no luck", 10), ("no luck", 20)]


@pytest.mark.parametrize("where", ["before", "after"])
@virtual
async def test_a_middleware_that_raises_has_failed_the_execution_whether_the_body_ran_or_not(where: str) -> None:
    app = virtual_app(poll_interval=timedelta(seconds=2))
    now = Stopwatch()
    attempts: list[float] = []
    bodies: list[float] = []

    @app.middleware
    async def breaks_once(context: Context, next: Next) -> None:
        attempts.append(now())
        if len(attempts) == 1 and where == "before":
            raise OSError("no luck")
        await next()
        if len(attempts) == 1:
            raise OSError("no luck")

    @app.task(interval=timedelta(seconds=10), failure_mode=FailureMode.UNLOCK)
    async def body(context: Context) -> None:
        bodies.append(now())

    await run_for(app, 15)

    assert attempts == [10, 12]
    assert bodies == ([12] if where == "before" else [10, 12])


@virtual
async def test_what_a_middleware_puts_into_the_context_reaches_the_body_of_this_execution_only() -> None:
    app = virtual_app()
    seen: list[tuple[bool, object]] = []

    @app.middleware
    async def number(context: Context, next: Next) -> None:
        before = hasattr(context, "number")
        context.number = seconds(context.scheduled_at)
        await next()
        seen.append((before, context.number))

    @app.task(interval=timedelta(seconds=1))
    async def body(context: Context) -> None:
        context.number *= -1

    await run_for(app, 2.5)

    assert seen == [(False, -1), (False, -2)]


@virtual
async def test_a_middleware_that_is_no_coroutine_function_fails_executions_and_not_the_app() -> None:
    app = virtual_app()
    calls: list[str] = []

    def plain(context: Context, next: Next) -> None:
        calls.append(context.task.name)

    app.use_middleware(plain)  # type: ignore[arg-type]  # the mistake under test

    @app.task(interval=timedelta(seconds=10), failure_mode=FailureMode.COMMIT)
    async def body(context: Context) -> None:
        calls.append("body")

    await run_for(app, 25)

    assert calls == ["body", "body"]


@virtual
async def test_a_middleware_that_waits_holds_only_its_own_execution_up() -> None:
    app = virtual_app()
    now = Stopwatch()
    starts: list[tuple[str, float]] = []

    @app.middleware
    async def wait(context: Context, next: Next) -> None:
        if context.task.name == "waited":
            await anyio.sleep(30)
        await next()

    @app.task(interval=timedelta(seconds=10))
    async def waited(context: Context) -> None:
        starts.append(("waited", now()))

    @app.task(interval=timedelta(seconds=20))
    async def other(context: Context) -> None:
        starts.append(("other", now()))

    await run_for(app, 45)

    assert starts[:1] == [("other", 20)]
    assert sorted(starts[1:3]) == [("other", 40), ("waited", 40)]
