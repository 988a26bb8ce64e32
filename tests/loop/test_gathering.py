"""Schedules that are registered at the same time go to the store together, and nobody pays for somebody else."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import TYPE_CHECKING

import anyio
import pytest

from anyscheduler import ConfigurationError, Context, RepositoryError, TaskLockedError
from anyscheduler.gathering import Gathered
from tests.loop.scene import START, WatchedRepository, shared, virtual, virtual_app

if TYPE_CHECKING:
    from collections.abc import Sequence

LATER = START + timedelta(hours=1)


async def noop(_context: Context) -> None:
    pass


@virtual
async def test_what_is_scheduled_while_a_call_is_under_way_goes_with_the_next_one() -> None:
    repository = WatchedRepository()
    repository.slow = {"read": 0.1, "write": 0.1}
    app = virtual_app(repository_factory=shared(repository))
    task = app.dynamic_task()(noop)

    async with app.create() as app_context, anyio.create_task_group() as group:
        for number in range(50):
            group.start_soon(lambda name: app_context.schedule_task(task, name, execute_at=LATER), str(number))

    assert await repository.keys() == {f"noop:{number}" for number in range(50)}
    assert repository.written == [1, 49]
    assert repository.calls["read"] == 2


@virtual
async def test_whoever_schedules_a_name_last_wins_and_nobody_fails() -> None:
    repository = WatchedRepository()
    repository.slow = {"read": 0.1, "write": 0.1}
    app = virtual_app(repository_factory=shared(repository))
    task = app.dynamic_task()(noop)

    async with app.create() as app_context:
        async with anyio.create_task_group() as group:
            for number in range(3):
                group.start_soon(lambda own: app_context.schedule_task(task, "same", execute_at=LATER, own=own), number)
                # In this order on both event loops.
                await anyio.sleep(0.001)
        state = await app_context.get_task(task, "same")

    assert state is not None
    assert state.task.extra_args == {"own": 2}
    assert repository.written == [1, 1, 1]


@virtual
async def test_one_that_is_refused_fails_alone() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    refused: list[type[Exception]] = []

    @app.dynamic_task()
    async def work(_context: Context) -> None:
        await anyio.sleep(5)

    async def schedule(name: str) -> None:
        try:
            await app_context.schedule_task(work, name, interval=timedelta(hours=1))
        except (TaskLockedError, ConfigurationError) as error:
            refused.append(type(error))

    async with app.create() as app_context, anyio.create_task_group() as group:
        await group.start(app_context.run)
        await app_context.schedule_task(work, "busy", execute_at=START)
        await anyio.sleep(1)
        repository.slow = {"read": 0.1, "write": 0.1}
        async with anyio.create_task_group() as together:
            for name in ("first", "busy", "second"):
                together.start_soon(schedule, name)
        stored = await repository.keys()
        app_context.shutdown()

    assert refused == [TaskLockedError]
    assert stored == {"work:busy", "work:first", "work:second"}


@virtual
async def test_a_store_that_fails_is_told_to_each_of_them() -> None:
    repository = WatchedRepository()
    repository.slow = {"read": 0.1}
    repository.failing = {"write"}
    app = virtual_app(repository_factory=shared(repository))
    task = app.dynamic_task()(noop)
    told: list[str] = []

    async def schedule(name: str) -> None:
        with pytest.raises(RepositoryError) as raised:
            await app_context.schedule_task(task, name, execute_at=LATER)
        told.append(str(raised.value))

    async with app.create() as app_context:
        async with anyio.create_task_group() as group:
            for number in range(5):
                group.start_soon(schedule, str(number))
        repository.failing = set()
        await app_context.schedule_task(task, "after", execute_at=LATER)

    assert len(told) == 5
    assert len(set(told)) == 1
    assert await repository.keys() == {"noop:after"}


@pytest.mark.parametrize("given_up", ["0", "1", "2"])
@pytest.mark.parametrize("after", [0.05, 0.15, 0.25, 0.35])
@virtual
async def test_one_that_is_cancelled_takes_nobody_with_it(given_up: str, after: float) -> None:
    # Whoever is cut off may be the one that carries out the call for all, at any point of it.
    repository = WatchedRepository()
    repository.slow = {"read": 0.1, "write": 0.1}
    app = virtual_app(repository_factory=shared(repository))
    task = app.dynamic_task()(noop)
    done: set[str] = set()

    async def schedule(name: str) -> None:
        with anyio.move_on_after(after if name == given_up else 60):
            await app_context.schedule_task(task, name, execute_at=LATER)
            done.add(name)

    async with app.create() as app_context, anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(schedule, str(number))
            # In this order on both event loops.
            await anyio.sleep(0.001)

    others = {str(number) for number in range(5)} - {given_up}
    assert done >= others
    assert await repository.keys() >= {f"noop:{name}" for name in others}


@virtual
async def test_many_are_scheduled_in_few_calls() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    task = app.dynamic_task()(noop)

    async with app.create() as app_context:
        count = await app_context.schedule_tasks(
            task, ((str(number), {"execute_at": LATER}) for number in range(1_200))
        )

    assert count == 1_200
    assert repository.written == [500, 500, 200]
    assert await repository.keys() == {f"noop:{number}" for number in range(1_200)}


@virtual
async def test_of_a_name_that_comes_several_times_the_last_one_counts() -> None:
    app = virtual_app()
    task = app.dynamic_task()(noop)

    async with app.create() as app_context:
        count = await app_context.schedule_tasks(task, [("a", {"execute_at": LATER, "own": own}) for own in (1, 2)])
        state = await app_context.get_task(task, "a")

    assert count == 1
    assert state is not None
    assert state.task.extra_args == {"own": 2}


@virtual
async def test_none_of_many_is_stored_if_one_of_them_is_malformed() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    task = app.dynamic_task()(noop)
    instances = [("good", {"execute_at": LATER}), ("bad\n", {"execute_at": LATER})]

    async with app.create() as app_context:
        with pytest.raises(ConfigurationError, match="name="):
            await app_context.schedule_tasks(task, instances)

    assert await repository.keys() == set()


@virtual
async def test_one_of_many_that_is_being_executed_is_refused_and_the_others_are_stored() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    ran: list[str] = []

    @app.dynamic_task()
    async def work(context: Context) -> None:
        ran.append(context.task.name)
        await anyio.sleep(5)

    async with app.create() as app_context, anyio.create_task_group() as group:
        await group.start(app_context.run)
        await app_context.schedule_task(work, "busy", execute_at=START)
        await anyio.sleep(1)
        with pytest.raises(TaskLockedError, match="work:busy"):
            await app_context.schedule_tasks(work, [(name, {"execute_at": START}) for name in ("busy", "free")])
        await anyio.sleep(1)
        app_context.shutdown()

    assert ran == ["busy", "free"]


@virtual
async def test_many_that_are_locked_by_somebody_else_are_tried_again() -> None:
    repository = WatchedRepository()
    repository.locked = {"noop:1"}
    app = virtual_app(repository_factory=shared(repository))
    task = app.dynamic_task()(noop)

    async with app.create() as app_context, anyio.create_task_group() as group:
        group.start_soon(
            app_context.schedule_tasks, task, [(str(number), {"execute_at": LATER}) for number in range(3)]
        )
        await anyio.sleep(0.5)
        repository.locked = set()

    assert await repository.keys() == {"noop:0", "noop:1", "noop:2"}
    assert repository.written[0] == 3
    assert set(repository.written[1:]) == {1}


@virtual
async def test_one_that_gave_up_while_its_call_was_cut_off_keeps_nobody_waiting() -> None:
    repository = WatchedRepository()
    repository.slow = {"read": 0.1}
    app = virtual_app(repository_factory=shared(repository))
    task = app.dynamic_task()(noop)
    done: set[str] = set()

    async def schedule(name: str, patience: float) -> None:
        with anyio.move_on_after(patience):
            await app_context.schedule_task(task, name, execute_at=LATER)
            done.add(name)

    async with app.create() as app_context, anyio.create_task_group() as group:
        # The first call is for `alone`, the second one for the others, of whom `second` carries it out.
        for name, patience in (("alone", 60), ("second", 0.16), ("third", 0.13), ("fourth", 60)):
            group.start_soon(schedule, name, patience)
            await anyio.sleep(0.001)

    assert done == {"alone", "fourth"}
    assert await repository.keys() == {"noop:alone", "noop:fourth"}


@pytest.mark.parametrize("seed", range(100))
@virtual
async def test_whoever_gives_up_or_fails_and_whenever_everybody_else_gets_a_result(seed: int) -> None:
    chance = random.Random(seed)
    under_way = 0

    async def call(items: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
        nonlocal under_way
        under_way += 1
        assert under_way == 1
        assert len({key for key, _ in items}) == len(items)
        try:
            await anyio.sleep(chance.choice([0, 0.01, 0.02]))
            if chance.random() < 0.1:
                raise RepositoryError("the store failed")
            return list(items)
        finally:
            under_way -= 1

    gathered = Gathered(call, key=lambda item: item[0])
    ended: list[str] = []

    async def ask(number: int) -> None:
        await anyio.sleep(chance.choice([0, 0.005, 0.01, 0.015]))
        item = (str(chance.randrange(8)), number)
        outcome = "gave up"
        patience = chance.choice([0, 0.001, 0.01, 0.02, 0.03, 60])
        with anyio.move_on_after(patience):
            try:
                assert await gathered(item) == item
                outcome = "got it"
            except RepositoryError:
                outcome = "failed"
        if patience == 60:
            assert outcome != "gave up"
        ended.append(outcome)

    async with anyio.create_task_group() as group:
        for number in range(30):
            group.start_soon(ask, number)

    assert len(ended) == 30
    for _ in range(100):
        with anyio.fail_after(1):
            try:
                assert await gathered(("after", 0)) == ("after", 0)
            except RepositoryError:
                continue
            break
    else:
        pytest.fail("nobody gets a result any more")
