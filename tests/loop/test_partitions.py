"""A task whose instances are spread over partitions: who runs which, and that this is nobody's concern otherwise."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from anyscheduler import ConfigurationError, Context, Scheduler, TaskLockedError
from anyscheduler.partition import select_by_sha1
from tests.loop.scene import WatchedRepository, running, shared, virtual, virtual_app

if TYPE_CHECKING:
    from collections.abc import Iterable

    from anyscheduler.app_context import AppContext
    from anyscheduler.task import Task

COUNT = 4
SECOND = timedelta(seconds=1)
NAMES = [f"name {number}" for number in range(30)]
PARTITION_OF = {name: select_by_sha1(COUNT, name) for name in NAMES}
BY_PARTITION = sorted(NAMES, key=lambda name: (PARTITION_OF[name], name))


class Scene:
    """An app with one partitioned task; several of them share a store."""

    def __init__(self, repository: WatchedRepository | None = None, **given: Any) -> None:
        self.repository = repository or WatchedRepository()
        self.app: Scheduler = virtual_app(repository_factory=shared(self.repository))
        self.ran: list[str] = []

        @self.app.partitioned_task(**{"name": "spread", "partition_count": COUNT, **given})
        async def spread(context: Context) -> None:
            self.ran.append(context.task.name)

        self.task: Task = spread

    async def schedule(self, app_context: AppContext, names: Iterable[str] = NAMES, **given: Any) -> None:
        for name in names:
            await app_context.schedule_task(self.task, name, **(given or {"interval": SECOND}))


async def pages(app_context: AppContext, task: Task, limit: int) -> list[list[str]]:
    found: list[list[str]] = []
    token = None
    while True:
        page = await app_context.list_tasks(task, limit, token)
        found.append([state.task.name for state in page.tasks])
        token = page.continuation_token
        if token is None:
            return found


def flat(found: list[list[str]]) -> list[str]:
    return [name for page in found for name in page]


# --- who runs what ----------------------------------------------------------------------------------------------------


@virtual
async def test_the_instances_of_all_partitions_run() -> None:
    scene = Scene()

    async with running(scene.app) as app_context:
        await scene.schedule(app_context)
        await anyio.sleep(2.5)

    assert set(PARTITION_OF.values()) == set(range(COUNT))
    assert sorted(scene.ran) == sorted(NAMES * 2)
    assert set(await scene.repository.inner.tasks()) == {f"spread%p{number}" for number in range(COUNT)}


@virtual
async def test_enabled_partitions_restrict_what_runs_and_not_what_can_be_scheduled() -> None:
    repository = WatchedRepository()
    some, others = Scene(repository, enabled_partitions=[1, 3]), Scene(repository, enabled_partitions=[0, 2])

    async with running(some.app) as app_context:
        await some.schedule(app_context)
        await anyio.sleep(1.5)
        assert sorted(some.ran) == sorted(name for name in NAMES if PARTITION_OF[name] in (1, 3))
        assert flat(await pages(app_context, some.task, 100)) == BY_PARTITION
        async with running(others.app):
            await anyio.sleep(0.1)

    assert sorted(others.ran) == sorted(name for name in NAMES if PARTITION_OF[name] in (0, 2))


@virtual
async def test_with_no_partition_enabled_an_app_schedules_and_runs_nothing() -> None:
    scene = Scene(enabled_partitions=[])

    async with running(scene.app) as app_context:
        await scene.schedule(app_context)
        await anyio.sleep(5)

    assert scene.ran == []
    assert len(await scene.repository.keys()) == len(NAMES)


@virtual
async def test_enabled_partitions_that_were_changed_to_none_that_exist_stop_the_start() -> None:
    scene = Scene()
    scene.task.enabled_partitions = [COUNT]

    async with scene.app.create() as app_context:
        with pytest.raises(ConfigurationError, match=r"^enabled_partitions="):
            await app_context.run()


@virtual
async def test_an_overdue_crowd_in_one_partition_does_not_hold_up_the_others() -> None:
    def selector(_count: int, name: str) -> int:
        return int("single" in name)

    scene = Scene(partition_selector=selector)
    async with scene.app.create() as app_context:
        await scene.schedule(app_context, (f"crowd {number}" for number in range(1_000)))
        await scene.schedule(app_context, ["single"])
        await anyio.sleep(10)
        async with anyio.create_task_group() as group:
            group.start_soon(app_context.run)
            await anyio.sleep(0.5)
            app_context.shutdown()

    assert "single" in scene.ran[:100]


# --- one instance -----------------------------------------------------------------------------------------------------


@virtual
async def test_an_instance_is_found_and_removed_whichever_partition_it_is_in() -> None:
    scene = Scene()

    async with scene.app.create() as app_context:
        await scene.schedule(app_context)
        for name in NAMES:
            state = await app_context.get_task(scene.task, name)
            assert state is not None
            assert (state.task.name, state.task.interval) == (name, SECOND)
        for name in NAMES[::2]:
            await app_context.unschedule_task(scene.task, name)
        await app_context.unschedule_task(scene.task, "never scheduled")

        assert [await app_context.get_task(scene.task, name) for name in NAMES[::2]] == [None] * 15
        left = flat(await pages(app_context, scene.task, 100))

    assert sorted(left) == sorted(NAMES[1::2])


@virtual
async def test_the_instance_that_was_returned_or_listed_stands_for_itself() -> None:
    scene = Scene()

    async with scene.app.create() as app_context:
        returned = await app_context.schedule_task(scene.task, "a:b", interval=SECOND)
        (listed,) = (await app_context.list_tasks(scene.task)).tasks
        for instance in (returned, listed.task):
            found = await app_context.get_task(instance)
            assert found is not None
            assert (found.task.key, found.scheduled_at) == (returned.key, listed.scheduled_at)
        await app_context.unschedule_task(listed.task)
        assert await app_context.get_task(returned) is None


@virtual
async def test_scheduling_a_name_again_replaces_it_in_its_partition() -> None:
    scene = Scene()

    async with scene.app.create() as app_context:
        await scene.schedule(app_context)
        await scene.schedule(app_context, interval=timedelta(seconds=7))
        states = (await app_context.list_tasks(scene.task)).tasks

    assert [state.task.interval for state in states] == [timedelta(seconds=7)] * len(NAMES)


@virtual
async def test_an_instance_that_is_executed_is_locked_like_any_other() -> None:
    scene = Scene()
    refused: list[str] = []

    @scene.app.partitioned_task(partition_count=COUNT)
    async def meddles(context: Context) -> None:
        with pytest.raises(TaskLockedError):
            await context.app_context.schedule_task(meddles, context.task.name, interval=SECOND)
        refused.append(context.task.name)

    async with running(scene.app) as app_context:
        for name in NAMES:
            await app_context.schedule_task(meddles, name, interval=SECOND)
        await anyio.sleep(1.5)

    assert sorted(refused) == sorted(NAMES)


# --- the selector -----------------------------------------------------------------------------------------------------


@virtual
async def test_a_selector_of_one_s_own_decides() -> None:
    def by_length(count: int, name: str) -> int:
        return len(name) % count

    scene = Scene(partition_selector=by_length, enabled_partitions=[1])

    async with running(scene.app) as app_context:
        await scene.schedule(app_context, ["1", "22", "333", "4444", "55555"])
        await anyio.sleep(1.5)

    assert await scene.repository.keys() == {
        "spread%p1:1",
        "spread%p2:22",
        "spread%p3:333",
        "spread%p0:4444",
        "spread%p1:55555",
    }
    assert sorted(scene.ran) == ["1", "55555"]


@pytest.mark.parametrize("said", [-1, COUNT, 1.0, None, "1", True])
@virtual
async def test_a_selector_that_returns_nonsense_is_refused_and_nothing_is_stored(said: Any) -> None:
    def selector(_count: int, _name: str) -> int:
        return said  # type: ignore[no-any-return]  # as a selector without annotations can

    scene = Scene(partition_selector=selector)

    async with scene.app.create() as app_context:
        for call in (
            app_context.schedule_task(scene.task, "x", interval=SECOND),
            app_context.schedule_task(scene.task, "x", interval=SECOND, force=True),
            app_context.unschedule_task(scene.task, "x"),
            app_context.get_task(scene.task, "x"),
        ):
            with pytest.raises(ConfigurationError, match=r"^partition_selector="):
                await call

    assert await scene.repository.keys() == set()


@virtual
async def test_what_a_selector_raises_comes_out_of_the_call_and_nothing_is_stored() -> None:
    def selector(_count: int, name: str) -> int:
        raise LookupError(f"no customer {name}")

    scene = Scene(partition_selector=selector)

    async with scene.app.create() as app_context:
        with pytest.raises(LookupError, match="no customer x"):
            await app_context.schedule_task(scene.task, "x", interval=SECOND)

    assert await scene.repository.keys() == set()


# --- listing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 29, 30, 31])
@virtual
async def test_pages_show_every_instance_once_by_partition_and_then_by_name(limit: int) -> None:
    scene = Scene()

    async with scene.app.create() as app_context:
        await scene.schedule(app_context)
        found = await pages(app_context, scene.task, limit)

    assert flat(found) == BY_PARTITION
    assert [len(page) for page in found[:-1]] == [limit] * (len(found) - 1)
    assert 0 < len(found[-1]) <= limit


@pytest.mark.parametrize("limit", [1, 2, 10])
@virtual
async def test_partitions_that_are_empty_are_passed_over(limit: int) -> None:
    scene = Scene(partition_count=9, partition_selector=lambda _, name: int(name[0]))
    names = ["2a", "2b", "6a", "7a", "7b", "7c"]

    async with scene.app.create() as app_context:
        assert await pages(app_context, scene.task, limit) == [[]]
        await scene.schedule(app_context, names)
        assert flat(await pages(app_context, scene.task, limit)) == names


@virtual
async def test_paging_shows_what_was_there_throughout_whatever_changes_meanwhile() -> None:
    scene = Scene()
    seen: list[str] = []
    token = None

    async with scene.app.create() as app_context:
        await scene.schedule(app_context)
        for turn in range(100):
            page = await app_context.list_tasks(scene.task, 4, token)
            seen += [state.task.name for state in page.tasks]
            token = page.continuation_token
            if token is None:
                break
            # The instance that the token names disappears, and others come, before it and behind it.
            await app_context.unschedule_task(page.tasks[-1].task)
            await scene.schedule(app_context, [f"new {turn}.{number}" for number in range(2)])

    assert len(seen) == len(set(seen))
    assert set(NAMES) <= set(seen)


@virtual
async def test_a_token_of_another_task_is_refused() -> None:
    scene = Scene()

    @scene.app.dynamic_task()
    async def plain(context: Context) -> None: ...

    @scene.app.partitioned_task(partition_count=COUNT + 1)
    async def wider(context: Context) -> None: ...

    tokens: dict[Task, str | None] = {}
    async with scene.app.create() as app_context:
        for task in (scene.task, plain, wider):
            for name in NAMES:
                await app_context.schedule_task(task, name, interval=SECOND)
            tokens[task] = (await app_context.list_tasks(task, 29)).continuation_token
        for task in tokens:
            for other, token in tokens.items():
                if other is task:
                    assert len((await app_context.list_tasks(task, 29, token)).tasks) == 1
                    continue
                with pytest.raises(ConfigurationError, match=r"^continuation_token="):
                    await app_context.list_tasks(task, 29, token)


# --- deployments ------------------------------------------------------------------------------------------------------


def unknown(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message.rpartition(": ")[2] for record in caplog.records if "does not define" in record.message]


@virtual
async def test_partitions_that_others_run_are_no_unknown_tasks(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene(enabled_partitions=[0])
    async with scene.app.create() as app_context:
        await scene.schedule(app_context)

    async with running(Scene(scene.repository, enabled_partitions=[0]).app):
        pass

    assert unknown(caplog) == []


@virtual
async def test_partitions_that_are_no_more_are_reported_and_left_as_they_are(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene()
    async with scene.app.create() as app_context:
        await scene.schedule(app_context)
    before = await scene.repository.keys()
    fewer = Scene(scene.repository, partition_count=2)

    async with running(fewer.app):
        await anyio.sleep(1.5)

    assert unknown(caplog) == ["spread%p2, spread%p3"]
    assert sorted(fewer.ran) == sorted(name for name in NAMES if PARTITION_OF[name] < 2)
    assert await scene.repository.keys() == before


@virtual
async def test_the_options_of_partitions_are_refused_where_there_are_none() -> None:
    app = virtual_app()

    async def body(context: Context) -> None: ...

    with pytest.raises(ConfigurationError, match=r"^partition_count= .*partitioned_task"):
        app.dynamic_task(partition_count=COUNT)(body)
    with pytest.raises(ConfigurationError, match=r"^enabled_partitions= .*partitioned_task"):
        app.task(interval=SECOND, enabled_partitions=[0])(body)
    with pytest.raises(ConfigurationError, match=r"^partition_count="):
        app.partitioned_task()(body)
