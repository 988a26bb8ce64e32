"""Names of tasks and of instances: what none can be is refused, and whatever else looks odd is stored as it is."""

from __future__ import annotations

import enum
import functools
import math
from typing import Any

import pytest

from anyscheduler import AppContext, Context, Scheduler
from tests.bad_inputs.refusals import DAILY, NewApp, as_shown, body, label, refused
from tests.conformance.test_repository import ODD_NAMES

ALLOWED = "a string of 1 to 255 bytes in UTF-8 without NUL, control characters or lone surrogates"


class Unequal:
    """A value that can be compared with nothing."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no")


class Number(enum.IntEnum):
    ONE = 1


BAD_NAMES: list[Any] = [
    "",
    "a\0b",
    "a\nb",
    "a\r",
    "\t",
    "\x1b[31m",
    "\x7f",
    "\x85",
    "\u2028",
    "\u2029",
    "\ud800",
    "a\udfff",
    "x" * 256,
    "\u00e9" * 128,
    "\U0001f600" * 64,
    "x" * 1_000_000,
    5,
    True,
    b"a",
    ["a"],
    # As many again.
    "\0",
    "\U0001f600\0",
    "\x80",
    "\x9f",
    "a\x0b",
    "a\x1c",
    "\x08\x08\x08",
    "\ud83d\ude00",
    "\udc80" * 5,
    "x" * 254 + "\u00e9",
    0,
    1.5,
    math.nan,
    -(10**5_000),
    (),
    {"a": 1},
    object,
    Number.ONE,
    bytearray(b"a"),
    Unequal(),
]


@pytest.mark.parametrize("name", BAD_NAMES, ids=label)
def test_a_bad_name_of_a_task_is_refused_at_its_definition(name: Any) -> None:
    app = Scheduler()
    for define in (app.task, app.dynamic_task, functools.partial(app.partitioned_task, partition_count=2)):
        with refused("name=", ALLOWED):
            define(name=name, **DAILY)(body)
    assert app._tasks == {}


@pytest.mark.anyio
async def test_a_bad_name_of_an_instance_is_refused_by_every_call_on_every_store(new_app: NewApp) -> None:
    app = new_app()
    plain = app.dynamic_task(name="plain")(body)
    spread = app.partitioned_task(name="spread", partition_count=2)(body)
    async with app.create() as app_context:
        for task in (plain, spread):
            for name in (*BAD_NAMES, None):
                with refused("name=", ALLOWED):
                    await app_context.schedule_task(task, name, **DAILY)
                with refused("name=", ALLOWED):
                    await app_context.schedule_tasks(task, [("good", DAILY), (name, DAILY)])
                with refused("name=", ALLOWED):
                    await app_context.unschedule_task(task, name)
                with refused("name=", ALLOWED):
                    await app_context.get_task(task, name)
            assert (await app_context.list_tasks(task)).tasks == []


@pytest.mark.anyio
async def test_odd_names_are_accepted_and_distinct_on_every_store(new_app: NewApp) -> None:
    app = new_app()
    tasks = [app.dynamic_task(name=name)(body) for name in ODD_NAMES]
    async with app.create() as app_context:
        for number, task in enumerate(tasks):
            assert await app_context.schedule_tasks(task, [(name, {**DAILY, "n": number}) for name in ODD_NAMES])
        for number, task in enumerate(tasks):
            page = await app_context.list_tasks(task, 1_000)
            assert [state.task.name for state in page.tasks] == sorted(ODD_NAMES)
            assert {state.task.extra_args["n"] for state in page.tasks} == {number}
        await app_context.unschedule_task(tasks[0], ODD_NAMES[0])
        assert await app_context.get_task(tasks[0], ODD_NAMES[0]) is None
        assert await app_context.get_task(tasks[0], ODD_NAMES[1]) is not None
        assert await app_context.get_task(tasks[1], ODD_NAMES[0]) is not None


def test_a_name_can_be_had_once() -> None:
    app = Scheduler()
    first = app.task(**DAILY)(body)
    for define in (app.task, app.dynamic_task):
        with refused("name='body'", "a name that no other task of the app has"):
            define(**DAILY)(body)
    assert app._tasks == {"body": first}


def test_a_callable_without_a_name_needs_one() -> None:
    class Unnamed:
        async def __call__(self, context: Context) -> None: ...

    class Numbered(Unnamed):
        __name__ = 5

    app = Scheduler()
    for func in (functools.partial(body), Unnamed()):
        with refused("name=None", "this callable has none of its own, so give one with name="):
            app.task(**DAILY)(func)
    with refused("name=5", ALLOWED):
        app.task(**DAILY)(Numbered())
    assert app._tasks == {}


BAD_TOKENS: list[Any] = ["", "x", "other:x", "task%p0:x", "\0", "\ud800", "\U0001f600", 5, True, b"task:x", ["task:x"]]


@pytest.mark.anyio
async def test_a_token_that_list_tasks_never_returned_is_refused_on_every_store(new_app: NewApp) -> None:
    app = new_app()
    task = app.dynamic_task(name="task")(body)
    app.dynamic_task(name="other")(body)
    async with app.create() as app_context:
        await app_context.schedule_task(task, "x", **DAILY)
        for token in BAD_TOKENS:
            with refused("continuation_token=", as_shown(token)):
                await app_context.list_tasks(task, 5, token)
        for limit in (0, -1, 10_001, 10**5_000, True, 1.0, "5", math.inf, [5]):
            with refused("limit=", "a whole number from 1 to 10000"):
                await app_context.list_tasks(task, limit)  # type: ignore[arg-type]
        # What only begins like one of its keys is a place to begin behind.
        assert (await app_context.list_tasks(task, 5, "task:" + "y" * 1_000_000)).tasks == []
        assert len((await app_context.list_tasks(task, 5, "task:")).tasks) == 1


@pytest.mark.anyio
async def test_what_is_no_task_is_refused_by_every_call() -> None:
    app = Scheduler()
    static = app.task(name="static", **DAILY)(body)
    app.dynamic_task(name="dynamic")(body)
    async with app.create() as app_context:
        for thing in (None, 5, "dynamic", body, Scheduler, app, AppContext):
            for call in (app_context.schedule_task, app_context.unschedule_task, app_context.get_task):
                with refused("task=", "a task that was defined with a decorator of this app"):
                    await call(thing, "x")  # type: ignore[arg-type]
            with refused("task=", "a task that was defined with a decorator of this app"):
                await app_context.list_tasks(thing)  # type: ignore[arg-type]
        with refused("task 'static' is not dynamic"):
            await app_context.schedule_task(static, "x", **DAILY)
        with refused("task 'static' is not dynamic"):
            await app_context.unschedule_task(static, "x")
        with refused("task 'static' is not dynamic"):
            await app_context.list_tasks(static)
