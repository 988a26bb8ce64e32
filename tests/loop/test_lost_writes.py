"""Writes that fail or whose replies are lost: repeated, recognised, given up with the lease."""

from __future__ import annotations

from datetime import timedelta

import anyio
import pytest

from anyscheduler import Context, FailureMode, with_heartbeat
from tests.loop.scene import (
    START,
    Stopwatch,
    WatchedRepository,
    free,
    micros,
    running,
    seconds,
    shared,
    store_outages,
    virtual,
    virtual_app,
)


@virtual
async def test_a_commit_that_fails_is_retried_for_as_long_as_the_lease_lives(caplog: pytest.LogCaptureFixture) -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    now = Stopwatch()
    starts: list[float] = []

    @app.task(interval=timedelta(seconds=100))
    async def tick(context: Context) -> None:
        starts.append(now())
        repository.failing.add("write")

    async with running(app):
        await anyio.sleep(150)
        starts_meanwhile = list(starts)
        repository.failing.clear()
        await anyio.sleep(40)
        row = await repository.row("tick")

    assert starts_meanwhile == starts == [100]
    assert (row.due_at, row.claimable_at) == free(200)
    assert store_outages(caplog) == ["gone", "back"]


@virtual
async def test_a_commit_is_given_up_when_the_lease_has_ended_and_the_occurrence_runs_again() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    now = Stopwatch()
    starts: list[tuple[float, float]] = []

    @app.task(interval=timedelta(seconds=100), lease_duration=timedelta(seconds=20))
    async def tick(context: Context) -> None:
        starts.append((seconds(context.scheduled_at), now()))
        if len(starts) == 1:
            repository.failing.add("write")

    async with running(app):
        await anyio.sleep(135)
        repository.failing.clear()
        await anyio.sleep(70)

    assert [due for due, _ in starts] == [100] * (len(starts) - 1) + [200]
    # Given up by the first try after that, and not claimed while it was tried.
    assert starts[1][0] == 100
    assert 120 <= starts[1][1] < 125


@virtual
async def test_a_commit_behind_an_extension_is_retried_for_as_long_as_the_extended_lease_lives() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    now = Stopwatch()
    starts: list[float] = []

    @app.task(interval=timedelta(seconds=100), lease_duration=timedelta(seconds=20))
    @with_heartbeat()
    async def tick(context: Context) -> None:
        starts.append(now())
        await anyio.sleep(9)
        repository.slow_replies["write"] = 3
        await anyio.sleep(2)
        # The lease was extended until 130 a second ago, and the reply is on its way until 113.
        repository.failing.add("write")

    async with running(app):
        await anyio.sleep(125)
        repository.slow_replies.clear()
        repository.failing.clear()
        await anyio.sleep(30)
        row = await repository.row("tick")

    assert starts == [100]
    assert row.due_at == micros(200)


@virtual
async def test_a_late_result_whose_lease_was_extended_after_all_holds_up_nobody_while_its_row_is_locked() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    now = Stopwatch()
    others: list[float] = []

    @app.task(interval=timedelta(seconds=100), lease_duration=timedelta(seconds=20))
    async def slow(context: Context) -> None:
        await anyio.sleep(10)
        # Carried out before the lease ends at 120, and answered behind that and the end of the body.
        repository.slow_replies["write"] = 12
        with anyio.move_on_after(11):
            await context.heartbeat()
        repository.locked.add("slow")

    @app.task(interval=timedelta(seconds=1))
    async def other(context: Context) -> None:
        others.append(now())

    async with running(app):
        await anyio.sleep(121.5)
        repository.slow_replies.clear()
        others.clear()
        await anyio.sleep(5)

    assert len(others) >= 4


@pytest.mark.parametrize("mode", FailureMode)
@virtual
async def test_a_write_whose_reply_is_lost_is_recognised_and_nothing_runs_twice(
    mode: FailureMode, caplog: pytest.LogCaptureFixture
) -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    due: list[float] = []

    @app.task(interval=timedelta(seconds=10), failure_mode=mode)
    async def tick(context: Context) -> None:
        due.append(seconds(context.scheduled_at))

    @app.dynamic_task(failure_mode=mode)
    async def once(context: Context) -> None:
        due.append(-1)

    async with running(app) as app_context:
        await app_context.schedule_task(once, "it", execute_at=START + timedelta(seconds=20))
        await anyio.sleep(9)
        for _ in range(3):
            repository.losing.add("write")
            await anyio.sleep(3)
            repository.losing.clear()
            await anyio.sleep(7)

    assert sorted(due) == [-1, 10, 20, 30]
    assert not [record for record in caplog.records if "refused" in record.message]


@virtual
async def test_a_claim_whose_reply_is_lost_delays_what_it_leased_until_the_lease_ends_and_nothing_runs_twice() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    runs: list[tuple[float, float]] = []
    now = Stopwatch()

    @app.task(interval=timedelta(seconds=100), lease_duration=timedelta(seconds=30))
    async def tick(context: Context) -> None:
        runs.append((seconds(context.scheduled_at), now()))

    async with running(app):
        await anyio.sleep(99)
        repository.losing.add("claim")
        await anyio.sleep(5)
        repository.losing.clear()
        await anyio.sleep(120)

    assert [due for due, _ in runs] == [100, 200]
    # Nobody here knows of that lease, so it is found by the next look at the store.
    assert 130 <= runs[0][1] <= 131


@virtual
async def test_a_retried_unlock_after_a_lost_reply_keeps_its_retry_time() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository), poll_interval=timedelta(seconds=30))
    now = Stopwatch()
    starts: list[float] = []

    @app.task(interval=timedelta(seconds=100), failure_mode=FailureMode.UNLOCK)
    async def fails_once(context: Context) -> None:
        starts.append(now())
        if len(starts) == 1:
            repository.losing.add("write")
            raise OSError("no luck")

    async with running(app):
        await anyio.sleep(103)
        repository.losing.clear()
        await anyio.sleep(50)

    assert starts == [100, 130]


@virtual
async def test_what_finishes_during_an_outage_is_settled_together_after_it() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    done: list[str] = []

    @app.dynamic_task()
    async def once(context: Context) -> None:
        await anyio.sleep(int(context.task.name))
        done.append(context.task.name)

    async with running(app) as app_context:
        for number in range(20):
            await app_context.schedule_task(once, str(number), execute_at=START + timedelta(seconds=5))
        await anyio.sleep(4)
        repository.failing.add("write")
        await anyio.sleep(25)
        repository.failing.clear()
        repository.written.clear()
        await anyio.sleep(10)

    assert sorted(done, key=int) == [str(number) for number in range(20)]
    assert await repository.keys() == set()
    assert len(repository.written) <= 2


@virtual
async def test_a_result_whose_lease_ends_while_it_is_being_written_is_not_claimed_away() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    starts: list[float] = []

    @app.task(interval=timedelta(seconds=100), lease_duration=timedelta(seconds=10))
    async def tick(context: Context) -> None:
        starts.append(seconds(context.scheduled_at))
        await anyio.sleep(9.8)

    async with running(app):
        repository.slow["write"] = 0.5
        await anyio.sleep(450)

    assert starts == [100, 200, 300, 400]


@virtual
async def test_what_could_not_be_written_is_tried_again_however_much_else_is_written() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))

    @app.task(interval=timedelta(milliseconds=50))
    async def often(context: Context) -> None: ...

    @app.task(interval=timedelta(seconds=10))
    async def seldom(context: Context) -> None: ...

    async with running(app):
        repository.locked.add("seldom")
        await anyio.sleep(10.5)
        repository.locked.clear()
        await anyio.sleep(3)
        row = await repository.row("seldom")

    assert row.due_at == micros(20)
