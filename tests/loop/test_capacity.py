"""How much is claimed and run at a time, and what a poll costs."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import anyio
import pytest

from tests.loop.scene import START, Stopwatch, WatchedRepository, micros, run_for, running, shared, virtual, virtual_app

if TYPE_CHECKING:
    from anyscheduler import Context


@pytest.mark.parametrize("limit", [1, 3])
@virtual
async def test_never_more_executions_than_the_concurrency_limit_run_at_a_time(limit: int) -> None:
    app = virtual_app(concurrency_limit=limit)
    now = Stopwatch()
    current = 0
    most = 0
    ends: list[float] = []

    @app.dynamic_task()
    async def work(context: Context) -> None:
        nonlocal current, most
        current += 1
        most = max(most, current)
        await anyio.sleep(1)
        current -= 1
        ends.append(now())

    async with running(app) as app_context:
        for number in range(12):
            await app_context.schedule_task(work, str(number), execute_at=START + timedelta(seconds=5))
        await anyio.sleep(30)

    assert most == limit
    # A freed slot is filled at once.
    assert ends == [5 + 1 + number // limit for number in range(12)]


@virtual
async def test_nothing_is_claimed_beyond_the_free_slots() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository), concurrency_limit=3, batch_size=10)
    leased: set[int] = set()

    @app.dynamic_task()
    async def work(context: Context) -> None:
        leased.add(len(await repository.leased(micros(5) + 1)))
        await anyio.sleep(1)

    async with running(app) as app_context:
        for number in range(12):
            await app_context.schedule_task(work, str(number), execute_at=START)
        await anyio.sleep(30)

    assert await repository.keys() == set()
    assert max(repository.limits) == 3
    assert leased <= {1, 2, 3}


@virtual
async def test_a_full_process_leaves_the_rest_to_another() -> None:
    repository = WatchedRepository()
    apps = [virtual_app(repository_factory=shared(repository), concurrency_limit=2) for _ in range(2)]
    now = Stopwatch()
    ran: list[tuple[int, float]] = []

    async def schedule(which: int) -> None:
        app = apps[which]

        @app.dynamic_task()
        async def work(context: Context) -> None:
            ran.append((which, now()))
            await anyio.sleep(10)

        async with running(app) as app_context:
            if which == 0:
                for number in range(4):
                    await app_context.schedule_task(work, str(number), execute_at=START)
            await anyio.sleep(5)

    async with anyio.create_task_group() as group:
        group.start_soon(schedule, 0)
        group.start_soon(schedule, 1)

    assert sorted(which for which, _ in ran) == [0, 0, 1, 1]
    assert max(start for _, start in ran) <= 1


@virtual
async def test_a_claim_takes_no_more_than_the_batch_size_and_the_rest_follows_at_once() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository), batch_size=10)
    now = Stopwatch()
    starts: list[float] = []

    @app.dynamic_task()
    async def work(context: Context) -> None:
        starts.append(now())

    async with app.create() as app_context:
        for number in range(35):
            await app_context.schedule_task(work, str(number), execute_at=START)
        async with anyio.create_task_group() as group:
            await group.start(app_context.run)
            await anyio.sleep(0.5)
            app_context.shutdown()

    assert repository.limits[:4] == [10, 10, 10, 10]
    assert repository.claimed[:4] == [10, 10, 10, 5]
    assert starts == [0] * 35


async def _claims(tasks: int, *, due: bool) -> int:
    """Returns how many claims an app with so many static tasks makes in 35 seconds."""
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository), batch_size=10_000, concurrency_limit=10_000)
    ran = 0

    async def body(context: Context) -> None:
        nonlocal ran
        ran += 1

    for number in range(tasks):
        app.task(name=f"task {number}", interval=timedelta(seconds=10 if due else 3600))(body)
    await run_for(app, 35)
    assert ran == (3 * tasks if due else 0)
    assert (repository.calls["read"], repository.calls["tasks"]) == (1, 1)
    return repository.calls["claim"]


@pytest.mark.parametrize("due", [True, False], ids=["due", "not due"])
@virtual
async def test_a_poll_is_one_call_for_one_task_and_for_a_thousand(due: bool) -> None:
    one = await _claims(1, due=due)
    thousand = await _claims(1000, due=due)

    # A timer may end a microsecond before the instant that it stands for; then there is one more look.
    assert abs(thousand - one) <= 3
    assert one <= 40


@virtual
async def test_what_finishes_together_is_settled_in_one_write() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))

    async def body(context: Context) -> None:
        await anyio.sleep(1)

    for number in range(50):
        app.task(name=f"task {number}", interval=timedelta(seconds=10))(body)
    async with running(app):
        await anyio.sleep(5)
        repository.written.clear()
        await anyio.sleep(10)

    assert repository.written == [50]


@virtual
async def test_an_idle_app_looks_at_the_store_once_in_a_poll_interval_and_no_more() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository), poll_interval=timedelta(seconds=5))

    @app.task(interval=timedelta(hours=1))
    async def rare(context: Context) -> None: ...

    await run_for(app, 99)

    assert repository.calls["claim"] <= 21
    assert repository.calls["write"] == 1


@virtual
async def test_a_flood_of_instances_delays_another_task_by_no_more_than_one_batch() -> None:
    app = virtual_app(concurrency_limit=5)
    now = Stopwatch()
    starts: list[tuple[str, float]] = []

    @app.dynamic_task()
    async def flood(context: Context) -> None:
        await anyio.sleep(1)

    @app.dynamic_task()
    async def trickle(context: Context) -> None:
        starts.append((context.task.name, now()))

    @app.task(interval=timedelta(seconds=10))
    async def steady(context: Context) -> None:
        starts.append(("steady", now()))

    async with running(app) as app_context:
        for number in range(1000):
            await app_context.schedule_task(flood, str(number), execute_at=START)
        await app_context.schedule_task(trickle, "one", execute_at=START + timedelta(seconds=15))
        await anyio.sleep(31)

    assert [name for name, _ in starts] == ["steady", "one", "steady", "steady"]
    lateness = [start - due for (_, start), due in zip(starts, [10, 15, 20, 30], strict=True)]
    assert max(lateness) <= 1


@virtual
async def test_with_one_slot_each_of_several_flooded_tasks_gets_its_turn() -> None:
    app = virtual_app(concurrency_limit=1)
    order: list[str] = []

    async def body(context: Context) -> None:
        order.append(context.task.name)
        await anyio.sleep(3)

    for name in ("a", "b", "c"):
        app.task(name=name, interval=timedelta(seconds=1))(body)

    await run_for(app, 60)

    counts = [order.count(name) for name in ("a", "b", "c")]
    assert max(counts) - min(counts) <= 1


@virtual
async def test_ten_thousand_once_offs_at_one_instant_all_run_once_and_are_gone() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    now = Stopwatch()
    ran: dict[str, int] = {}
    latest = 0.0

    @app.dynamic_task()
    async def work(context: Context) -> None:
        nonlocal latest
        ran[context.task.name] = ran.get(context.task.name, 0) + 1
        latest = now()

    async with running(app) as app_context:
        for number in range(10_000):
            await app_context.schedule_task(work, str(number), execute_at=START + timedelta(seconds=7))
        await anyio.sleep(10)

    assert len(ran) == 10_000
    assert set(ran.values()) == {1}
    assert latest == 7
    assert await repository.keys() == set()
    # Settled in groups, not one by one; the first writes are the registrations.
    assert len(repository.written) < 10_000 + 500
