"""Whose clock an app goes by: that of a store that has one, unless it was given one itself.

Following a store's clock means following the real one, so that these tests cannot run on virtual time: they wait for
what has to happen, and let the difference between the clocks be an hour.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import anyio
import pytest

from anyscheduler import Context, Scheduler
from anyscheduler.clock import from_micros, to_micros
from tests.loop.scene import START, WatchedRepository, micros, running, shared, virtual, virtual_app

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anyscheduler.repository import Claimed, ClaimRequest

HOUR = timedelta(hours=1)
PATIENCE = 60


class StoreWithClock(WatchedRepository):
    """The store in memory with a clock of its own, which may be off.

    Attributes:
        ahead: By how much it is ahead of that of this machine.
        instants: The `now` of each claim.
    """

    def __init__(self, ahead: timedelta) -> None:
        super().__init__()
        self.ahead = ahead
        self.instants: list[int | None] = []

    def shown(self) -> int:
        return time.time_ns() // 1000 + self.ahead // timedelta(microseconds=1)

    async def time(self) -> int:
        await self._before("time")
        return self.shown()

    async def claim(
        self, requests: Sequence[ClaimRequest], limit: int, now: int | None, token: str, not_after: int | None = None
    ) -> Claimed:
        self.instants.append(now)
        if now is not None:
            return await super().claim(requests, limit, now, token)
        shown = self.shown()
        claimed = await super().claim(requests, limit, min(shown, not_after or shown), token)
        return claimed._replace(now=shown)


def app_on(repository: WatchedRepository) -> Scheduler:
    return Scheduler(repository_factory=shared(repository), poll_interval=timedelta(milliseconds=20))


off_by_an_hour = pytest.mark.parametrize("ahead", [HOUR, -HOUR], ids=["ahead", "behind"])


@off_by_an_hour
@pytest.mark.anyio
async def test_what_is_due_by_the_clock_of_the_store_runs_and_what_is_not_waits(ahead: timedelta) -> None:
    repository = StoreWithClock(ahead)
    app = app_on(repository)
    runs: list[tuple[str, int, int]] = []
    ran = anyio.Event()

    @app.dynamic_task()
    async def once(context: Context) -> None:
        runs.append((context.task.name, to_micros(context.scheduled_at), repository.shown()))
        ran.set()

    async with running(app) as app_context:
        there = from_micros(repository.shown())
        # By the clock of this machine one of the two is due an hour ago, and the other in an hour.
        await app_context.schedule_task(once, "later", execute_at=there + HOUR / 2)
        await app_context.schedule_task(once, "now", execute_at=there + timedelta(milliseconds=300))
        with anyio.fail_after(PATIENCE):
            await ran.wait()

    ((name, due, started),) = runs
    assert name == "now"
    assert started >= due
    assert await repository.keys() == {"once:later"}


@off_by_an_hour
@pytest.mark.anyio
async def test_due_times_leases_and_fences_are_in_the_time_of_the_store(ahead: timedelta) -> None:
    repository = StoreWithClock(ahead)
    app = app_on(repository)
    fences: list[int] = []
    ends: list[int] = []
    ran = anyio.Event()

    @app.dynamic_task(lease_duration=timedelta(minutes=10))
    async def tick(context: Context) -> None:
        fences.append(int(context.fence[:15], 16))
        ends.append((await repository.row("tick:x")).claimable_at)
        ran.set()

    began = repository.shown()
    async with running(app) as app_context:
        await app_context.schedule_task(tick, "x", interval=timedelta(milliseconds=50))
        due = (await repository.row("tick:x")).due_at
        scheduled = repository.shown()
        with anyio.fail_after(PATIENCE):
            await ran.wait()
        ended = repository.shown()

    second = 1_000_000  # The estimate is off by less than one round trip, here that of a call within the process.
    assert began + 50_000 - second <= due <= scheduled + 50_000 + second
    assert began + 600 * second <= ends[0] <= ended + 600 * second
    # A fence sorts by time; see `lease.new_token`.
    assert began - second <= fences[0] <= ended + second


@off_by_an_hour
@pytest.mark.anyio
async def test_the_store_decides_at_every_claim_and_the_difference_is_said_once(
    ahead: timedelta, caplog: pytest.LogCaptureFixture
) -> None:
    repository = StoreWithClock(ahead)

    async with running(app_on(repository)):
        with anyio.fail_after(PATIENCE):
            while len(repository.instants) < 5:
                await anyio.sleep(0.01)

    assert set(repository.instants) == {None}
    side = "behind" if ahead > timedelta(0) else "ahead of"
    said = [record.message for record in caplog.records if "the clock of" in record.message]
    assert said == [f"the clock of this machine is 3600.0 s {side} the store's; schedules go by the store's"]


@pytest.mark.anyio
async def test_a_clock_of_the_store_that_is_set_while_the_app_runs_is_followed() -> None:
    repository = StoreWithClock(timedelta(0))
    app = app_on(repository)
    started: list[str] = []
    ran = anyio.Event()

    @app.dynamic_task()
    async def once(context: Context) -> None:
        started.append(context.task.name)
        ran.set()

    async with running(app) as app_context:
        at = from_micros(repository.shown()) + HOUR
        await app_context.schedule_task(once, "in an hour", execute_at=at)
        repository.ahead = HOUR
        with anyio.fail_after(PATIENCE):
            await ran.wait()
        assert (await app_context.schedule_task(once, "next", interval=HOUR)).interval == HOUR
        assert (await repository.row("once:next")).due_at > to_micros(at + HOUR - timedelta(minutes=1))

    assert started == ["in an hour"]


@pytest.mark.anyio
async def test_two_apps_whose_own_clocks_nobody_asks_agree_about_leases() -> None:
    repository = StoreWithClock(20 * timedelta(seconds=1))
    apps = [app_on(repository) for _ in range(2)]
    started: list[int] = []
    release = anyio.Event()

    for number, app in enumerate(apps):

        async def body(context: Context, number: int = number) -> None:
            started.append(number)
            await release.wait()

        app.task(interval=timedelta(milliseconds=50), name="tick", lease_duration=timedelta(seconds=10))(body)

    async with running(apps[0]), running(apps[1]):
        with anyio.fail_after(PATIENCE):
            while not started:
                await anyio.sleep(0.01)
            claims = len(repository.instants)
            while len(repository.instants) < claims + 10:
                await anyio.sleep(0.01)
        during = list(started)
        release.set()

    assert len(during) == 1


@pytest.mark.anyio
async def test_a_store_that_fails_when_it_is_first_asked_for_the_time_is_waited_for() -> None:
    repository = StoreWithClock(timedelta(0))
    app = app_on(repository)
    ran = anyio.Event()

    @app.task(interval=timedelta(milliseconds=50))
    async def tick(context: Context) -> None:
        ran.set()

    async def come_back() -> None:
        while repository.calls["time"] < 2:
            await anyio.sleep(0.01)
        repository.failing.clear()

    repository.failing.add("time")
    async with anyio.create_task_group() as group:
        group.start_soon(come_back)
        async with running(app):
            with anyio.fail_after(PATIENCE):
                await ran.wait()

    assert repository.calls["time"] >= 2


@virtual
async def test_a_clock_that_the_app_was_given_wins() -> None:
    repository = StoreWithClock(HOUR)
    app = virtual_app(repository_factory=shared(repository))
    starts: list[datetime] = []

    @app.task(interval=timedelta(minutes=10))
    async def tick(context: Context) -> None:
        starts.append(context.scheduled_at)

    async with running(app):
        await anyio.sleep(1201)

    assert starts == [START + timedelta(minutes=10), START + timedelta(minutes=20)]
    assert repository.calls["time"] == 0
    assert all(now is not None and micros(0) <= now <= micros(1201) for now in repository.instants)


@pytest.mark.anyio
async def test_a_store_without_a_clock_is_told_the_time_of_this_machine() -> None:
    repository = WatchedRepository()
    app = app_on(repository)
    runs: list[tuple[datetime, datetime]] = []
    ran = anyio.Event()

    @app.task(interval=timedelta(milliseconds=50))
    async def tick(context: Context) -> None:
        runs.append((context.scheduled_at, datetime.now(UTC)))
        ran.set()

    began = datetime.now(UTC)
    async with running(app):
        with anyio.fail_after(PATIENCE):
            await ran.wait()

    assert repository.calls["time"] == 1
    assert began + timedelta(milliseconds=50) <= runs[0][0] <= runs[0][1]


@pytest.mark.anyio
async def test_a_store_whose_clock_is_set_ahead_does_not_take_what_is_being_executed_from_anybody() -> None:
    repository = StoreWithClock(timedelta(0))
    apps = [app_on(repository), app_on(repository)]
    started: list[str] = []
    release = anyio.Event()

    for app in apps:

        async def body(context: Context) -> None:
            started.append(context.task.name)
            await release.wait()

        for number in range(4):
            app.task(interval=timedelta(hours=1), name=f"t{number}", lease_duration=timedelta(minutes=1))(body)

    async with running(apps[0]), running(apps[1]):
        repository.ahead = timedelta(seconds=3_599.9)
        with anyio.fail_after(PATIENCE):
            while len(started) < 4:
                await anyio.sleep(0.01)
            repository.ahead += timedelta(minutes=5)
            claims = len(repository.instants)
            while len(repository.instants) < claims + 6:
                await anyio.sleep(0.01)
        during = list(started)
        release.set()

    assert sorted(during) == ["t0", "t1", "t2", "t3"]
