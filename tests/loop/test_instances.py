"""Overrides and names of instances, and mistakes in registering them."""

from __future__ import annotations

from datetime import timedelta

import anyio
import pytest

from anyscheduler import (
    ConfigurationError,
    Context,
    ExecutionMode,
    FailureMode,
    Scheduler,
    TaskNotFoundError,
)
from tests.loop.scene import START, Stopwatch, WatchedRepository, micros, running, seconds, shared, virtual, virtual_app


@virtual
async def test_an_instance_overrides_failure_mode_and_lease_of_its_template() -> None:
    app = virtual_app(poll_interval=timedelta(seconds=3))
    now = Stopwatch()
    starts: dict[str, list[float]] = {}

    @app.dynamic_task(lease_duration=timedelta(seconds=20))
    async def fails(context: Context) -> None:
        starts.setdefault(context.task.name, []).append(now())
        raise OSError("no luck")

    async with running(app) as app_context:
        every = timedelta(seconds=100)
        await app_context.schedule_task(fails, "plain", interval=every)
        await app_context.schedule_task(fails, "commits", interval=every, failure_mode=FailureMode.COMMIT)
        await app_context.schedule_task(fails, "unlocks", interval=every, failure_mode=FailureMode.UNLOCK)
        await app_context.schedule_task(fails, "short", interval=every, lease_duration=timedelta(seconds=8))
        await app_context.schedule_task(fails, "once", interval=every, execution_mode=ExecutionMode.AT_MOST_ONCE)
        await anyio.sleep(129)

    assert starts == {
        "plain": [100, 120],
        "commits": [100],
        "unlocks": [100 + 3 * attempt for attempt in range(10)],
        "short": [100, 108, 116, 124],
        "once": [100],
    }


@virtual
async def test_an_instance_with_a_longer_lease_than_its_template_is_not_overtaken() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    starts: list[float] = []
    ends: list[int] = []

    @app.dynamic_task(lease_duration=timedelta(seconds=10))
    async def long(context: Context) -> None:
        starts.append(seconds(context.scheduled_at))
        ends.append((await repository.row("long:it")).claimable_at)
        await anyio.sleep(50)

    async with running(app) as app_context:
        await app_context.schedule_task(
            long, "it", interval=timedelta(seconds=100), lease_duration=timedelta(seconds=90)
        )
        await anyio.sleep(160)

    assert starts == [100]
    assert ends == [micros(190)]


@virtual
async def test_no_two_pairs_of_task_and_instance_meet_in_the_store() -> None:
    app = virtual_app()
    seen: list[tuple[str, str]] = []

    async def body(context: Context) -> None:
        assert context.task.parent_task is not None
        seen.append((context.task.parent_task.name, context.task.name))

    first = app.dynamic_task(name="a:")(body)
    second = app.dynamic_task(name="a")(body)
    third = app.dynamic_task(name="a%3A")(body)
    pairs = [(first, "b"), (second, ":b"), (second, "%3A:b"), (third, "b"), (second, "a"), (second, "A")]
    async with running(app) as app_context:
        for task, name in pairs:
            await app_context.schedule_task(task, name, execute_at=START)
        await anyio.sleep(1)

    assert sorted(seen) == sorted((task.name, name) for task, name in pairs)


@pytest.mark.parametrize(
    "name", ["a b", "a:b:c", "/../", "100%", "{x}*", "'\"", "🎉", "שלום", "e\u0301", "\u00e9", "x" * 255], ids=ascii
)
@virtual
async def test_unusual_names_are_carried_through_to_the_body(name: str) -> None:
    app = virtual_app()
    seen: list[str] = []

    @app.dynamic_task()
    async def body(context: Context) -> None:
        seen.append(context.task.name)

    async with running(app) as app_context:
        await app_context.schedule_task(body, name, execute_at=START)
        await anyio.sleep(1)

    assert seen == [name]


@pytest.mark.parametrize("name", ["", "a\x00", "a\n", "\x7f", "\ud800", "x" * 256, "é" * 128, None, 5], ids=ascii)
@virtual
async def test_a_name_that_cannot_be_is_refused_at_registration_and_nothing_is_stored(name: str) -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))

    @app.dynamic_task()
    async def body(context: Context) -> None: ...

    async with app.create() as app_context:
        with pytest.raises(ConfigurationError, match="name"):
            await app_context.schedule_task(body, name, execute_at=START)

    assert await repository.keys() == set()


@virtual
async def test_mistakes_are_refused_where_they_are_made() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    other = Scheduler()
    second = timedelta(seconds=1)

    @app.dynamic_task()
    async def hello(context: Context) -> None: ...

    @app.task(interval=second)
    async def static(context: Context) -> None: ...

    @other.dynamic_task()
    async def foreign(context: Context) -> None: ...

    async with app.create() as app_context:
        schedule = app_context.schedule_task
        with pytest.raises(ConfigurationError, match="needs one of"):
            await schedule(hello, "it")
        with pytest.raises(ConfigurationError, match="exclude each other"):
            await schedule(hello, "it", interval=second, execute_at=START)
        with pytest.raises(ConfigurationError, match="timezone"):
            await schedule(hello, "it", interval=second, timezone="Europe/Dublin")
        with pytest.raises(ConfigurationError, match="did you mean 'interval'"):
            await schedule(hello, "it", intervall=second)
        with pytest.raises(ConfigurationError, match=r"args\['a'\]\[1\]"):
            await schedule(hello, "it", interval=second, a=[1, {2}])
        with pytest.raises(ConfigurationError, match="not dynamic"):
            await schedule(static, "it", interval=second)
        with pytest.raises(ConfigurationError, match="not dynamic"):
            await app_context.unschedule_task(static, "it")
        with pytest.raises(TaskNotFoundError, match="'foreign'"):
            await schedule(foreign, "it", interval=second)
        with pytest.raises(TaskNotFoundError, match="'foreign'"):
            await app_context.unschedule_task(foreign, "it")
        with pytest.raises(ConfigurationError, match="failure_mode"):
            await schedule(
                hello,
                "it",
                interval=second,
                execution_mode=ExecutionMode.AT_MOST_ONCE,
                failure_mode=FailureMode.UNLOCK,
            )

    assert await repository.keys() == set()
