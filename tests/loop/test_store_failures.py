"""A store that goes away for a while, or loses replies."""

from __future__ import annotations

from datetime import timedelta

import anyio
import pytest

from anyscheduler import Context, RepositoryError
from anyscheduler.lease import Change
from anyscheduler.memory import MemoryRepository
from tests.loop.scene import (
    START,
    Stopwatch,
    WatchedRepository,
    free,
    run_for,
    running,
    seconds,
    shared,
    store_outages,
    virtual,
    virtual_app,
)


@virtual
async def test_an_outage_is_logged_when_it_begins_and_when_it_ends_and_the_app_resumes_by_itself(
    caplog: pytest.LogCaptureFixture,
) -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    runs: list[tuple[float, float]] = []
    now = Stopwatch()

    @app.task(interval=timedelta(seconds=10))
    async def tick(context: Context) -> None:
        runs.append((seconds(context.scheduled_at), now()))

    async with running(app):
        await anyio.sleep(15)
        repository.failing |= {"claim", "write", "read"}
        await anyio.sleep(60)
        repository.failing.clear()
        await anyio.sleep(20)

    assert [due for due, _ in runs] == [10, 20, 30, 40, 50, 60, 70, 80, 90]
    # The longest back-off is five seconds, and no sleep is longer than the poll interval.
    assert 75 <= runs[1][1] <= 81
    assert runs[-1:] == [(90, 90)]
    assert store_outages(caplog) == ["gone", "back"]


@virtual
async def test_an_outage_that_cost_all_that_was_to_be_written_ends_like_any_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))

    @app.dynamic_task(lease_duration=timedelta(seconds=10))
    async def once(context: Context) -> None:
        repository.failing |= {"claim", "write", "read"}

    async with running(app) as app_context:
        for after in (10, 110):
            await app_context.schedule_task(once, "it", execute_at=START + timedelta(seconds=after))
            await anyio.sleep(50)
            # Its outcome was given up when its lease had ended. Now somebody removes it, so that nothing is written.
            row = await repository.row("once:it")
            assert await repository.inner.write([Change(row.key, row.token, None)]) == [True]
            repository.failing.clear()
            await anyio.sleep(50)
            assert store_outages(caplog)[-1] == "back", after

    assert store_outages(caplog) == ["gone", "back"] * 2


@virtual
async def test_an_outage_is_asked_after_with_growing_delays_and_not_in_a_hot_loop() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository), poll_interval=timedelta(minutes=5))

    async with running(app):
        repository.failing.add("claim")
        before = repository.calls["claim"]
        await anyio.sleep(600)
        calls = repository.calls["claim"] - before

    assert 2 <= calls <= 250


@virtual
async def test_an_app_that_starts_while_the_store_is_away_waits_for_it(caplog: pytest.LogCaptureFixture) -> None:
    repository = WatchedRepository()
    repository.failing |= {"claim", "write", "read", "tasks"}
    app = virtual_app(repository_factory=shared(repository))
    starts: list[float] = []

    @app.task(interval=timedelta(seconds=10))
    async def tick(context: Context) -> None:
        starts.append(seconds(context.scheduled_at))

    async with app.create() as app_context, anyio.create_task_group() as group:
        group.start_soon(app_context.run)
        await anyio.sleep(30)
        repository.failing.clear()
        await anyio.sleep(20)
        app_context.shutdown()

    assert len(starts) in {1, 2}
    assert min(starts) > 40
    assert store_outages(caplog) == ["gone", "back"]


@virtual
async def test_a_graceful_stop_during_an_outage_settles_when_the_store_is_back() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))

    @app.task(interval=timedelta(seconds=10))
    async def tick(context: Context) -> None:
        repository.failing.add("write")

    async def heal() -> None:
        await anyio.sleep(40)
        repository.failing.clear()

    async with anyio.create_task_group() as group:
        group.start_soon(heal)
        await run_for(app, 11)

    row = await repository.row("tick")
    assert (row.due_at, row.claimable_at) == free(20)


@virtual
async def test_a_graceful_stop_does_not_wait_for_a_store_beyond_the_leases() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    now = Stopwatch()

    @app.task(interval=timedelta(seconds=10))
    async def tick(context: Context) -> None:
        repository.failing.add("write")

    await run_for(app, 11)

    assert 70 <= now() <= 76


@virtual
async def test_schedule_task_tells_its_caller_that_the_store_failed() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))

    @app.dynamic_task()
    async def hello(context: Context) -> None: ...

    async with app.create() as app_context:
        for operation in ("read", "write"):
            repository.failing = {operation}
            with pytest.raises(RepositoryError, match=operation):
                await app_context.schedule_task(hello, "it", execute_at=START)

    assert await repository.keys() == set()


@virtual
async def test_a_store_that_raises_anything_else_is_waited_for_just_the_same() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    starts: list[float] = []
    fail = True
    claim = repository.inner.claim

    async def broken(*args: object) -> object:
        if fail:
            raise ZeroDivisionError("a bug in the driver")
        return await claim(*args)  # type: ignore[arg-type]

    repository.inner.claim = broken  # type: ignore[method-assign, assignment]

    @app.task(interval=timedelta(seconds=10))
    async def tick(context: Context) -> None:
        starts.append(seconds(context.scheduled_at))

    async with running(app):
        await anyio.sleep(25)
        fail = False
        await anyio.sleep(10)

    assert starts == [10, 20, 30]


@virtual
async def test_replies_that_take_half_a_minute_double_and_lose_nothing() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    due: list[float] = []

    @app.task(interval=timedelta(seconds=10))
    async def tick(context: Context) -> None:
        due.append(seconds(context.scheduled_at))

    async with running(app):
        await anyio.sleep(5)
        repository.slow_replies = {"claim": 15, "write": 15}
        await anyio.sleep(300)

    assert due == [10 * (1 + number) for number in range(len(due))]
    assert len(due) >= 8


# --- a row that cannot be written at the moment -----------------------------------------------------------------------


@virtual
async def test_a_row_that_somebody_has_locked_holds_up_no_other_and_is_settled_when_it_is_free(
    caplog: pytest.LogCaptureFixture,
) -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    now = Stopwatch()
    starts: list[tuple[str, float]] = []

    async def body(context: Context) -> None:
        starts.append((context.task.name, now()))

    for name in ("one", "other"):
        app.task(name=name, interval=timedelta(seconds=10), lease_duration=timedelta(seconds=30))(body)

    async with running(app):
        await anyio.sleep(5)
        repository.locked.add("one")
        await anyio.sleep(20)
        repository.locked.clear()
        await anyio.sleep(30)

    assert [second for name, second in starts if name == "other"] == [10, 20, 30, 40, 50]
    # Its occurrence of 10 is settled at 25 to 27; the next ones are made up for.
    ones = [second for name, second in starts if name == "one"]
    assert ones[0] == 10
    assert 25 <= ones[1] <= 27.1
    assert len(ones) == 5
    assert not store_outages(caplog)


@virtual
async def test_what_cannot_be_written_until_its_lease_ends_is_given_up_and_runs_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    now = Stopwatch()
    starts: list[float] = []

    @app.task(interval=timedelta(seconds=10), lease_duration=timedelta(seconds=5))
    async def tick(context: Context) -> None:
        starts.append(now())

    async with running(app):
        repository.locked.add("tick")
        await anyio.sleep(12)
        assert starts == [10]
        await anyio.sleep(6)
        assert len(starts) == 2
        assert 15 <= starts[1] <= 18
        repository.locked.clear()

    assert caplog.text.count("the store could not be reached before the lease ended") == 1


@virtual
async def test_a_schedule_that_somebody_keeps_locked_can_not_be_changed_and_is_not_asked_for_all_the_time() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    now = Stopwatch()

    @app.dynamic_task()
    async def hello(context: Context) -> None: ...

    async with app.create() as app_context:
        await app_context.schedule_task(hello, "it", interval=timedelta(hours=1))
        repository.locked.add("hello:it")
        for attempt in (
            app_context.schedule_task(hello, "it", interval=timedelta(hours=2)),
            app_context.unschedule_task(hello, "it"),
        ):
            with pytest.raises(RepositoryError, match="have locked it, or its node is away: hello:it"):
                await attempt

    assert 8 < now() < 15
    assert repository.calls["write"] < 30


# --- a store that came back without its data --------------------------------------------------------------------------


@virtual
async def test_static_tasks_whose_rows_have_vanished_are_back_within_a_minute_and_that_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    now = Stopwatch()
    starts: list[tuple[str, float]] = []

    async def body(context: Context) -> None:
        starts.append((context.task.name, now()))

    for name in ("one", "other"):
        app.task(name=name, interval=timedelta(seconds=10))(body)
    dynamic = app.dynamic_task(name="dynamic")(body)

    async with running(app) as app_context:
        await app_context.schedule_task(dynamic, "it", interval=timedelta(seconds=10))
        await anyio.sleep(15)
        repository.inner = MemoryRepository()
        await anyio.sleep(85)

    back = [(name, second) for name, second in starts if second > 15]
    first = back[0][1]
    assert 55 <= first <= 75
    assert sorted(back) == sorted(
        (name, round(first + 10 * n, 3)) for name in ("one", "other") for n in range(len(back) // 2)
    )
    lines = [record.message for record in caplog.records if "missing in the store" in record.message]
    assert lines == ["tasks of the app were missing in the store, and are registered anew: one, other"]


@virtual
async def test_a_static_task_whose_schedule_has_ended_is_not_registered_anew(caplog: pytest.LogCaptureFixture) -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    starts: list[float] = []
    now = Stopwatch()

    @app.task(schedule="0 0 1 1 * 30 2026")
    async def once_in_2026(context: Context) -> None:
        starts.append(now())

    await run_for(app, 300)

    assert starts == [30]
    assert await repository.keys() == set()
    assert "missing in the store" not in caplog.text
