"""Functions of every wrong shape: bodies, fixtures, middlewares."""

from __future__ import annotations

import functools
import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from anyscheduler import AppContext, Context, FixtureError, Scheduler
from tests.bad_inputs.refusals import DAILY, body, label, refused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator


def generator(context: Context) -> Iterator[None]:
    yield


async def async_generator(context: Context) -> AsyncIterator[None]:
    yield


async def of_nothing() -> None: ...


async def of_two(context: Context, more: object) -> None: ...


async def by_keyword(*, context: Context) -> None: ...


async def with_more(context: Context, *, more: object) -> None: ...


class Callables:
    """Bodies that belong to a class, or are one."""

    async def __call__(self, context: Context) -> None: ...

    async def method(self, context: Context) -> None: ...

    async def without_context(self) -> None: ...

    def generating(self, context: Context) -> Iterator[object]:
        yield context

    @staticmethod
    async def static(context: Context) -> None: ...

    @classmethod
    async def of_class(cls, context: Context) -> None: ...


class Generating:
    def __call__(self, context: Context) -> Iterator[object]:
        yield context


class AsyncGenerating:
    async def __call__(self, context: Context) -> AsyncIterator[object]:
        yield context


# --- bodies -----------------------------------------------------------------------------------------------------------

A_FUNCTION = "an async function or a plain function that takes the context"
RETURNS = "a function that returns; a generator would never be run"
TAKES_ONE = "a function that can be called with the context as its only argument"

BAD_BODIES: list[tuple[Any, str]] = [
    (generator, RETURNS),
    (async_generator, RETURNS),
    (functools.partial(generator), RETURNS),
    (Generating(), RETURNS),
    (Callables, A_FUNCTION),
    (dict, A_FUNCTION),
    (None, A_FUNCTION),
    (5, A_FUNCTION),
    ("body", A_FUNCTION),
    ((body,), A_FUNCTION),
    # As many again.
    (AsyncGenerating(), RETURNS),
    (Callables().generating, RETURNS),
    (staticmethod(generator), RETURNS),
    (staticmethod(async_generator), RETURNS),
    (functools.partial(functools.partial(async_generator)), RETURNS),
    (lambda _context: (yield), RETURNS),
    (of_nothing, TAKES_ONE),
    (of_two, TAKES_ONE),
    (by_keyword, TAKES_ONE),
    (with_more, TAKES_ONE),
    (lambda: None, TAKES_ONE),
    (Callables.method, TAKES_ONE),
    (Callables().without_context, TAKES_ONE),
    (functools.partial(body, None), TAKES_ONE),  # type: ignore[arg-type]
    (functools.partial(of_two), TAKES_ONE),
    (generator(None), A_FUNCTION),  # type: ignore[arg-type]
    (property(body), A_FUNCTION),
    (classmethod(body), A_FUNCTION),  # type: ignore[arg-type]
    (functools.partialmethod(body), A_FUNCTION),
    (math, A_FUNCTION),
    (Exception, A_FUNCTION),
    (Exception("body"), A_FUNCTION),
    (Scheduler(), A_FUNCTION),
    (math.nan, A_FUNCTION),
    ("\0\U0001f600", A_FUNCTION),
    ({}, A_FUNCTION),
    (object(), A_FUNCTION),
]


@pytest.mark.parametrize(("func", "reason"), BAD_BODIES, ids=range(len(BAD_BODIES)))
def test_a_body_that_could_never_run_is_refused_when_the_task_is_defined(func: Any, reason: str) -> None:
    app = Scheduler()
    for define in (app.task, app.dynamic_task, functools.partial(app.partitioned_task, partition_count=2)):
        with refused("the body=", reason):
            define(name="x", **DAILY)(func)
    assert app._tasks == {}


@pytest.mark.parametrize(
    "func",
    [
        Callables(),
        Callables().method,
        Callables().of_class,
        Callables.static,
        staticmethod(body),
        functools.partial(of_two, more=1),
        print,
        lambda *_: None,
    ],
    ids=range(8),
)
def test_an_odd_body_that_takes_the_context_is_accepted(func: Any) -> None:
    assert Scheduler().task(name="x", **DAILY)(func).func is func


# --- fixtures ---------------------------------------------------------------------------------------------------------


async def fixture(app_context: AppContext) -> AsyncIterator[int]:
    yield 1


class FixtureObject:
    async def __call__(self, app_context: AppContext) -> AsyncIterator[object]:
        yield app_context


BAD_FIXTURES: list[Any] = [
    None,
    5,
    "fixture",
    [fixture],
    generator,
    body,
    lambda _: None,
    asynccontextmanager(fixture),
    FixtureObject,
    FixtureObject(),
    fixture(None),  # type: ignore[arg-type]
    type,
    math,
]


@pytest.mark.parametrize("func", BAD_FIXTURES, ids=range(len(BAD_FIXTURES)))
def test_a_fixture_that_is_no_async_generator_function_is_refused(func: Any) -> None:
    app = Scheduler()
    with refused("fixture=", "an async generator function: async def, with one yield"):
        app.use_fixture("name", func)
    with refused("fixture=", "an async generator function: async def, with one yield"):
        app.fixture(name="name")(func)
    assert app._fixtures == []


BAD_ATTRIBUTES: list[Any] = ["", " ", "a b", "1a", "_a", "__class__", "class", "None", "a\n", "a\0", "\ud800",
                             "\U0001f600", "a.b", 5, True, b"a", ["a"], math.nan]  # fmt: skip
OWN_ATTRIBUTES = ["app_context", "args", "fence", "heartbeat", "scheduled_at", "task"]


@pytest.mark.parametrize("name", BAD_ATTRIBUTES, ids=label)
@pytest.mark.anyio
async def test_a_name_that_the_context_cannot_have_is_refused_for_fixtures_and_added_values(name: Any) -> None:
    app = Scheduler()
    with refused("fixture name=", "an identifier that does not begin with an underscore"):
        app.use_fixture(name, fixture)
    assert app._fixtures == []
    async with app.create() as app_context:
        with refused("name=", "an identifier that does not begin with an underscore"):
            app_context.add_to_context(name, 1)


@pytest.mark.parametrize("name", OWN_ATTRIBUTES)
@pytest.mark.anyio
async def test_a_name_of_the_contexts_own_is_refused_for_fixtures_and_added_values(name: str) -> None:
    app = Scheduler()
    with refused(f"fixture name={name!r}", "none of the context's own names"):
        app.use_fixture(name, fixture)
    async with app.create() as app_context:
        with refused(f"name={name!r}", "none of the context's own names"):
            app_context.add_to_context(name, 1)


@pytest.mark.anyio
async def test_a_name_in_the_context_is_taken_once() -> None:
    app = Scheduler()
    app.use_fixture("first", fixture)
    with refused("fixture name='first'", "a name that is not taken yet"):
        app.use_fixture("first", fixture)
    async with app.create() as app_context:
        app_context.add_to_context("second", 1)
        for name in ("first", "second"):
            with refused(f"name={name!r}", "a name that is not taken yet"):
                app_context.add_to_context(name, 2)


def test_the_decorator_of_fixtures_is_called() -> None:
    app = Scheduler()
    with refused("fixture name=", "write @app.fixture() with its parentheses"):
        app.fixture(fixture)  # type: ignore[arg-type]
    assert app._fixtures == []


async def never(app_context: AppContext) -> AsyncIterator[int]:
    for number in range(0):
        yield number


async def twice(app_context: AppContext) -> AsyncIterator[int]:
    yield 1
    yield 2


@pytest.mark.parametrize(("func", "reason"), [(never, "ended without a yield"), (twice, "yielded a second time")])
@pytest.mark.anyio
async def test_a_fixture_that_does_not_yield_once_is_an_error_and_the_others_are_torn_down(
    func: Any, reason: str
) -> None:
    app = Scheduler()
    down: list[str] = []

    def add(name: str) -> None:
        async def counted(app_context: AppContext) -> AsyncIterator[None]:
            try:
                yield
            finally:
                down.append(name)

        app.use_fixture(name, counted)

    add("first")
    add("second")
    app.use_fixture("wrong", func)
    with pytest.raises(FixtureError, match=f"'wrong' {reason}"):
        async with app.create():
            pass
    assert down == ["second", "first"]


# --- middlewares ------------------------------------------------------------------------------------------------------


async def middleware(context: Context, next: Callable[[], Awaitable[None]]) -> None:
    await next()


def generator_of_two(context: Context, next: object) -> Iterator[None]:
    yield


async def async_generator_of_two(context: Context, next: object) -> AsyncIterator[None]:
    yield


NO_MIDDLEWARE = "an async function of the context and next"
BAD_MIDDLEWARES: list[tuple[Any, str]] = [
    (None, NO_MIDDLEWARE),
    (5, NO_MIDDLEWARE),
    ("middleware", NO_MIDDLEWARE),
    ([middleware], NO_MIDDLEWARE),
    (math, NO_MIDDLEWARE),
    (body, "does not take a context and next"),
    (of_nothing, "does not take a context and next"),
    (by_keyword, "does not take a context and next"),
    (Callables, "does not take a context and next"),
    (functools.partial(middleware, None), "does not take a context and next"),  # type: ignore[arg-type]
    (type, "does not take a context and next"),
    (dict, "does not take a context and next"),
    (generator_of_two, "not a generator"),
    (async_generator_of_two, "not a generator"),
    (functools.partial(generator_of_two), "not a generator"),
]


@pytest.mark.parametrize(("func", "reason"), BAD_MIDDLEWARES, ids=range(len(BAD_MIDDLEWARES)))
def test_a_middleware_of_the_wrong_shape_is_refused_when_it_is_defined(func: Any, reason: str) -> None:
    app = Scheduler()
    for define in (app.middleware, app.use_middleware):
        with refused("middleware", reason):
            define(func)
    assert app._middlewares == []
