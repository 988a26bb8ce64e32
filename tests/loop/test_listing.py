"""What get_task and list_tasks show."""

from __future__ import annotations

from datetime import timedelta

import anyio
import pytest

from anyscheduler import ConfigurationError, Context, TaskNotFoundError, TaskState
from anyscheduler.lease import Change, Row
from tests.loop.scene import (
    START,
    WatchedRepository,
    micros,
    running,
    seconds,
    shared,
    virtual,
    virtual_app,
)


@virtual
async def test_get_task_shows_when_a_static_task_is_due_and_that_nobody_holds_it() -> None:
    app = virtual_app()

    @app.task(schedule="0 12 * * *", timezone="Asia/Kathmandu")
    async def noon(context: Context) -> None: ...

    async with app.create() as app_context:
        assert await app_context.get_task(noon) is None
        async with anyio.create_task_group() as group:
            await group.start(app_context.run)
            state = await app_context.get_task(noon)
            app_context.shutdown()

    assert state is not None
    assert state == TaskState(task=noon, scheduled_at=state.scheduled_at, locked_until=None, locked_by=None)
    assert state.scheduled_at.isoformat() == "2026-01-01T12:00:00+05:45"


@virtual
async def test_while_it_runs_get_task_shows_until_when_and_by_whom_it_is_locked() -> None:
    app = virtual_app()
    states: list[tuple[str, TaskState | None]] = []

    @app.task(interval=timedelta(seconds=10))
    async def tick(context: Context) -> None:
        states.append((context.fence, await context.app_context.get_task(tick)))

    async with running(app) as app_context:
        await anyio.sleep(11)
        after = await app_context.get_task(tick)

    ((fence, during),) = states
    assert during is not None
    assert during.locked_until is not None
    assert (seconds(during.scheduled_at), seconds(during.locked_until), during.locked_by) == (10, 70, fence)
    assert after is not None
    assert (seconds(after.scheduled_at), after.locked_until, after.locked_by) == (20, None, None)


@virtual
async def test_after_a_failure_get_task_shows_the_lease_that_is_left() -> None:
    app = virtual_app()

    @app.task(interval=timedelta(seconds=10))
    async def fails(context: Context) -> None:
        raise OSError("no luck")

    async with running(app) as app_context:
        await anyio.sleep(11)
        state = await app_context.get_task(fails)

    assert state is not None
    assert state.locked_until is not None
    assert seconds(state.locked_until) == 70


@virtual
async def test_get_task_shows_an_instance_as_it_is_stored() -> None:
    app = virtual_app()

    @app.dynamic_task(greeting="hi")
    async def hello(context: Context) -> None: ...

    async with app.create() as app_context:
        instance = await app_context.schedule_task(hello, "bill", interval=timedelta(seconds=5), username="bill")
        by_name = await app_context.get_task(hello, "bill")
        by_instance = await app_context.get_task(instance)
        missing = await app_context.get_task(hello, "nobody")

    assert missing is None
    assert by_name is not None
    assert by_instance is not None
    for state in (by_name, by_instance):
        assert str(state.task) == "hello:bill"
        assert state.task.interval == timedelta(seconds=5)
        assert state.task.extra_args == {"greeting": "hi", "username": "bill"}
        assert (seconds(state.scheduled_at), state.locked_until, state.error) == (5, None, None)


@virtual
async def test_get_task_and_list_tasks_refuse_what_cannot_be_meant() -> None:
    app, other = virtual_app(), virtual_app()

    @app.task(interval=timedelta(seconds=1))
    async def static(context: Context) -> None: ...

    @app.dynamic_task()
    async def hello(context: Context) -> None: ...

    @other.dynamic_task()
    async def foreign(context: Context) -> None: ...

    async with app.create() as app_context:
        instance = await app_context.schedule_task(hello, "it", execute_at=START)
        with pytest.raises(ConfigurationError, match="name"):
            await app_context.get_task(hello)
        with pytest.raises(ConfigurationError, match="name"):
            await app_context.get_task(instance, "it")
        with pytest.raises(TaskNotFoundError):
            await app_context.get_task(foreign, "it")
        with pytest.raises(ConfigurationError, match="not dynamic"):
            await app_context.list_tasks(static)
        with pytest.raises(TaskNotFoundError):
            await app_context.list_tasks(foreign)
        for limit in (0, -1, True, 1.5, 10_001):
            with pytest.raises(ConfigurationError, match="limit"):
                await app_context.list_tasks(hello, limit)  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="continuation_token"):
            await app_context.list_tasks(hello, 5, 7)  # type: ignore[arg-type]


@virtual
async def test_list_tasks_pages_through_all_instances_by_name() -> None:
    app = virtual_app()

    @app.dynamic_task()
    async def hello(context: Context) -> None: ...

    @app.dynamic_task()
    async def hello2(context: Context) -> None: ...

    pages: list[list[str]] = []
    async with app.create() as app_context:
        for number in range(25):
            await app_context.schedule_task(hello, f"{number:02}", interval=timedelta(hours=1), number=number)
        await app_context.schedule_task(hello2, "other", interval=timedelta(hours=1))
        token: str | None = None
        while not pages or token is not None:
            page = await app_context.list_tasks(hello, 10, token)
            pages.append([state.task.name for state in page.tasks])
            assert all(state.task.extra_args == {"number": int(state.task.name)} for state in page.tasks)
            token = page.continuation_token

    assert [len(page) for page in pages] == [10, 10, 5]
    assert [name for page in pages for name in page] == [f"{number:02}" for number in range(25)]


@virtual
async def test_a_last_page_that_is_full_has_no_continuation_and_an_empty_list_is_one_empty_page() -> None:
    app = virtual_app(batch_size=5)

    @app.dynamic_task()
    async def hello(context: Context) -> None: ...

    async with app.create() as app_context:
        empty = await app_context.list_tasks(hello)
        for number in range(5):
            await app_context.schedule_task(hello, str(number), interval=timedelta(hours=1))
        full = await app_context.list_tasks(hello)
        await app_context.schedule_task(hello, "5", interval=timedelta(hours=1))
        first = await app_context.list_tasks(hello)

    assert (empty.tasks, empty.continuation_token) == ([], None)
    assert (len(full.tasks), full.continuation_token) == (5, None)
    assert len(first.tasks) == 5
    assert first.continuation_token is not None


@virtual
async def test_paging_shows_every_instance_that_was_there_throughout_whatever_changes_meanwhile() -> None:
    app = virtual_app()
    seen: list[str] = []

    @app.dynamic_task()
    async def hello(context: Context) -> None: ...

    hour = timedelta(hours=1)
    async with app.create() as app_context:
        for number in range(30):
            await app_context.schedule_task(hello, f"{number:02}", interval=hour)
        token: str | None = None
        for step in range(100):
            page = await app_context.list_tasks(hello, 7, token)
            seen += [state.task.name for state in page.tasks]
            token = page.continuation_token
            if token is None:
                break
            # Those read last go away, and new ones come before and behind.
            await app_context.unschedule_task(hello, seen[-1])
            await app_context.unschedule_task(hello, seen[-2])
            await app_context.schedule_task(hello, f"!{step}", interval=hour)
            await app_context.schedule_task(hello, f"29 {step}", interval=hour)

    assert [name for name in seen if len(name) == 2] == [f"{number:02}" for number in range(30)]
    assert len(seen) == len(set(seen))


@virtual
async def test_a_running_instance_is_listed_as_locked() -> None:
    app = virtual_app()

    @app.dynamic_task()
    async def hello(context: Context) -> None:
        await anyio.sleep(10)

    async with running(app) as app_context:
        await app_context.schedule_task(hello, "runs", execute_at=START)
        await app_context.schedule_task(hello, "waits", execute_at=START + timedelta(hours=1))
        await anyio.sleep(1)
        page = await app_context.list_tasks(hello)

    assert [(state.task.name, state.locked_until is not None, state.locked_by is not None) for state in page.tasks] == [
        ("runs", True, True),
        ("waits", False, False),
    ]


@virtual
async def test_a_corrupt_row_is_listed_with_its_name_and_the_error_and_the_others_as_usual() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))

    @app.dynamic_task()
    async def hello(context: Context) -> None: ...

    later = micros(3600)
    async with app.create() as app_context:
        await app_context.schedule_task(hello, "a", interval=timedelta(hours=1))
        for name, spec in {"b": "{", "c": '{"v":1}', "d": '{"v":99,"interval":5000000}'}.items():
            row = Row(f"hello:{name}", "hello", later, later, "0", spec, "")
            await repository.write([Change(row.key, None, row)])
        await app_context.schedule_task(hello, "e", interval=timedelta(hours=1))
        page = await app_context.list_tasks(hello)
        broken = await app_context.get_task(hello, "b")

    assert [(state.task.name, state.error is None) for state in page.tasks] == [
        ("a", True),
        ("b", False),
        ("c", False),
        ("d", False),
        ("e", True),
    ]
    assert "version 99" in str(page.tasks[3].error)
    assert broken is not None
    assert broken.error is not None
