"""A hard stop: what is cancelled, what it leaves in the store, how long it may take."""

from __future__ import annotations

from datetime import timedelta

import anyio
import pytest

from anyscheduler import Context, FailureMode
from tests.loop.scene import START, Stopwatch, WatchedRepository, free, micros, running, shared, virtual, virtual_app


@pytest.mark.parametrize("after", [10.5, 11.5], ids=["before the store has it", "before its reply"])
@virtual
async def test_cancelled_during_a_claim_it_releases_what_it_brings(after: float) -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    now = Stopwatch()
    starts: list[str] = []

    @app.dynamic_task()
    async def work(context: Context) -> None:
        starts.append(context.task.name)

    async with app.create() as app_context:
        with anyio.move_on_after(after):
            async with anyio.create_task_group() as group:
                await group.start(app_context.run)
                await app_context.schedule_task(work, "it", execute_at=START + timedelta(seconds=10))
                await anyio.sleep(9.9)
                repository.slow["claim"] = repository.slow_replies["claim"] = 1
        ended = now()
    row = await repository.row("work:it")

    assert starts == []
    assert 12 <= ended <= 13
    assert row.due_at == row.claimable_at == micros(10)


@virtual
async def test_cancelling_run_cancels_bodies_and_releases_their_leases_for_others() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    now = Stopwatch()
    ends: list[tuple[str, float]] = []

    async def body(context: Context) -> None:
        try:
            await anyio.sleep(1000)
        finally:
            ends.append((context.task.name, now()))

    for number in range(3):
        app.task(name=f"task {number}", interval=timedelta(seconds=10), failure_mode=list(FailureMode)[number])(body)
    async with app.create() as app_context:
        with anyio.move_on_after(15):
            await app_context.run()
        assert now() == 15

    assert sorted(ends) == [("task 0", 15), ("task 1", 15), ("task 2", 15)]
    for number in range(3):
        row = await repository.row(f"task {number}")
        assert row.due_at == row.claimable_at == micros(10)
    # What others could not know by themselves, unlike that they have registered the same tasks.
    assert repository.announced[-1]


@virtual
async def test_a_body_that_fails_while_it_is_cancelled_is_released_too() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))

    @app.task(interval=timedelta(seconds=10))
    async def fails_in_its_cleanup(context: Context) -> None:
        try:
            await anyio.sleep(1000)
        finally:
            raise OSError("the connection was gone")

    async with app.create() as app_context:
        with anyio.move_on_after(15):
            await app_context.run()

    row = await repository.row("fails_in_its_cleanup")
    assert row.due_at == row.claimable_at == micros(10)


@virtual
async def test_a_body_that_finishes_in_spite_of_being_cancelled_has_succeeded() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))

    @app.task(interval=timedelta(seconds=10))
    async def shielded(context: Context) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(10)

    async with app.create() as app_context:
        with anyio.move_on_after(15):
            await app_context.run()

    row = await repository.row("shielded")
    assert (row.due_at, row.claimable_at) == free(20)


@virtual
async def test_the_shutdown_timeout_turns_a_graceful_stop_into_a_hard_one() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository), shutdown_timeout=timedelta(seconds=7))
    now = Stopwatch()

    @app.task(interval=timedelta(seconds=10))
    async def endless(context: Context) -> None:
        await anyio.sleep_forever()

    async with running(app) as app_context:
        await anyio.sleep(15)
    row = await repository.row("endless")

    assert app_context.stopped_hard
    assert now() == 22
    assert row.due_at == row.claimable_at == micros(10)


@virtual
async def test_within_the_shutdown_timeout_the_stop_stays_graceful() -> None:
    app = virtual_app(shutdown_timeout=timedelta(seconds=7))
    ends: list[str] = []

    @app.task(interval=timedelta(seconds=10))
    async def slow(context: Context) -> None:
        await anyio.sleep(5)
        ends.append(context.task.name)

    async with running(app) as app_context:
        await anyio.sleep(11)

    assert not app_context.stopped_hard
    assert ends == ["slow"]


@virtual
async def test_a_hard_stop_gives_a_store_that_does_not_answer_two_seconds_and_no_more() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    now = Stopwatch()

    @app.task(interval=timedelta(seconds=10))
    async def endless(context: Context) -> None:
        await anyio.sleep_forever()

    async with app.create() as app_context:
        with anyio.move_on_after(15):
            async with anyio.create_task_group() as group:
                await group.start(app_context.run)
                await anyio.sleep(12)
                repository.slow["write"] = 1_000_000
        assert now() == 17
