"""When tasks run: cron, intervals, time zones, catching up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import anyio

from anyscheduler.testing import VirtualClock
from tests.loop.scene import (
    START,
    Stopwatch,
    WatchedRepository,
    micros,
    run_for,
    seconds,
    shared,
    virtual,
    virtual_app,
)

if TYPE_CHECKING:
    from anyscheduler import Context, Scheduler


@virtual
async def test_a_five_field_cron_runs_each_minute_on_the_minute() -> None:
    app = virtual_app()
    now = Stopwatch()
    starts: list[float] = []

    @app.task(schedule="* * * * *")
    async def every_minute(context: Context) -> None:
        starts.append(now())

    await run_for(app, 200)

    assert starts == [60, 120, 180]


@virtual
async def test_the_sixth_field_of_a_cron_is_the_seconds() -> None:
    app = virtual_app()
    due: list[float] = []

    @app.task(schedule="* * * * * */10")
    async def every_ten_seconds(context: Context) -> None:
        due.append(seconds(context.scheduled_at))

    await run_for(app, 35)

    assert due == [10, 20, 30]


@virtual
async def test_a_seventh_field_is_the_year_and_the_schedule_ends_with_it() -> None:
    repository = WatchedRepository()
    clock = VirtualClock(datetime(2026, 12, 31, 23, 59, 57, tzinfo=UTC))
    app = virtual_app(clock=clock, repository_factory=shared(repository))
    due: list[datetime] = []

    @app.task(schedule="* * * * * * 2026")
    async def until_the_year_ends(context: Context) -> None:
        due.append(context.scheduled_at)

    await run_for(app, 200)

    assert [moment.second for moment in due] == [58, 59]
    assert await repository.keys() == set()


@virtual
async def test_an_interval_runs_first_one_interval_after_it_was_registered() -> None:
    app = virtual_app()
    now = Stopwatch()
    starts: list[float] = []

    @app.task(interval=timedelta(seconds=12))
    async def every_twelve_seconds(context: Context) -> None:
        starts.append(now())

    await run_for(app, 40)

    assert starts == [12, 24, 36]


@virtual
async def test_an_interval_does_not_drift_by_the_time_that_its_body_takes() -> None:
    app = virtual_app()
    now = Stopwatch()
    starts: list[float] = []

    @app.task(interval=timedelta(seconds=2))
    async def slow(context: Context) -> None:
        starts.append(now())
        await anyio.sleep(1.3)

    await run_for(app, 11)

    assert starts == [2, 4, 6, 8, 10]


@virtual
async def test_an_interval_under_the_poll_interval_keeps_its_own_pace() -> None:
    app = virtual_app(poll_interval=timedelta(hours=1))
    now = Stopwatch()
    starts: list[float] = []

    @app.task(interval=timedelta(milliseconds=250))
    async def quick(context: Context) -> None:
        starts.append(now())

    await run_for(app, 1.1)

    assert starts == [0.25, 0.5, 0.75, 1]


async def _miss_ten_minutes(*, fast_forward: bool) -> tuple[list[float], list[float]]:
    """Registers a task of one minute, leaves it alone for ten and a half, and returns when it was due and started."""
    repository = WatchedRepository()
    clock = VirtualClock(START)
    now = Stopwatch()
    due: list[float] = []
    starts: list[float] = []
    app = virtual_app(clock=clock, repository_factory=shared(repository))

    @app.task(interval=timedelta(minutes=1), fast_forward=fast_forward)
    async def minutely(context: Context) -> None:
        due.append(seconds(context.scheduled_at))
        starts.append(now())
        await anyio.sleep(0.5)

    await run_for(app, 1)
    await anyio.sleep(629)
    await run_for(app, 45)
    return due, starts


@virtual
async def test_missed_occurrences_run_one_after_the_other_until_caught_up() -> None:
    due, starts = await _miss_ten_minutes(fast_forward=False)

    assert due == [60 * minute for minute in range(1, 12)]
    assert starts == [630 + 0.5 * occurrence for occurrence in range(10)] + [660]


@virtual
async def test_with_fast_forward_the_missed_one_runs_late_and_the_next_lies_in_the_future() -> None:
    due, starts = await _miss_ten_minutes(fast_forward=True)

    assert due == [60, 660]
    assert starts == [630, 660]


@virtual
async def test_scheduled_at_is_in_the_zone_of_the_task_and_in_utc_without_one() -> None:
    app = virtual_app(clock=VirtualClock(datetime(2026, 7, 1, tzinfo=UTC)), poll_interval=timedelta(hours=1))
    seen: dict[str, str] = {}

    async def note(context: Context) -> None:
        seen.setdefault(context.task.name, context.scheduled_at.isoformat())

    app.task(name="dublin", schedule="0 12 * * *", timezone="Europe/Dublin")(note)
    app.task(name="east", schedule="0 12 * * *", timezone="UTC+12")(note)
    app.task(name="utc", schedule="0 12 * * *")(note)
    app.task(name="interval", interval=timedelta(hours=5))(note)

    await run_for(app, 25 * 3600)

    assert seen == {
        "dublin": "2026-07-01T12:00:00+01:00",
        "east": "2026-07-02T12:00:00+12:00",
        "utc": "2026-07-01T12:00:00+00:00",
        "interval": "2026-07-01T05:00:00+00:00",
    }


@virtual
async def test_a_daily_run_in_the_repeated_hour_of_autumn_runs_once() -> None:
    # Dublin puts its clocks back at 02:00 on 25 October 2026.
    app = virtual_app(clock=VirtualClock(datetime(2026, 10, 24, 12, tzinfo=UTC)), poll_interval=timedelta(hours=1))
    seen: list[str] = []

    @app.task(schedule="30 1 * * *", timezone="Europe/Dublin")
    async def nightly(context: Context) -> None:
        seen.append(context.scheduled_at.isoformat())

    await run_for(app, 2 * 86_400)

    assert seen == ["2026-10-25T01:30:00+01:00", "2026-10-26T01:30:00+00:00"]


@virtual
async def test_a_simulated_day_has_exactly_the_occurrences_that_it_should() -> None:
    app = virtual_app(poll_interval=timedelta(hours=1))
    now = Stopwatch()
    hourly_due: list[float] = []
    often_due: list[float] = []
    lateness: set[float] = set()

    @app.task(schedule="0 * * * *")
    async def hourly(context: Context) -> None:
        hourly_due.append(seconds(context.scheduled_at))
        lateness.add(now() - seconds(context.scheduled_at))

    @app.task(interval=timedelta(minutes=10))
    async def every_ten_minutes(context: Context) -> None:
        often_due.append(seconds(context.scheduled_at))
        lateness.add(now() - seconds(context.scheduled_at))

    await run_for(app, 86_401)

    assert hourly_due == [3600 * hour for hour in range(1, 25)]
    assert often_due == [600 * tenth for tenth in range(1, 145)]
    assert lateness == {0}


@virtual
async def test_a_once_a_minute_cron_that_overruns_is_caught_up_and_not_skipped() -> None:
    app = virtual_app()
    now = Stopwatch()
    runs: list[tuple[float, float]] = []

    @app.task(schedule="* * * * *", lease_duration=timedelta(minutes=10))
    async def overruns_once(context: Context) -> None:
        runs.append((seconds(context.scheduled_at), now()))
        if len(runs) == 1:
            await anyio.sleep(150)

    await run_for(app, 250)

    assert runs == [(60, 60), (120, 210), (180, 210), (240, 240)]


@virtual
async def test_nothing_that_was_due_before_a_restart_is_lost() -> None:
    repository = WatchedRepository()
    clock = VirtualClock(START)
    due: list[float] = []

    def make() -> Scheduler:
        app = virtual_app(clock=clock, repository_factory=shared(repository))

        @app.task(interval=timedelta(seconds=10))
        async def tick(context: Context) -> None:
            due.append(seconds(context.scheduled_at))

        return app

    await run_for(make(), 25)
    await anyio.sleep(20)
    await run_for(make(), 10)

    assert due == [10, 20, 30, 40, 50]
    assert (await repository.row("tick")).due_at == micros(60)
