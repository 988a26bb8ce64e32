"""What a task is defined with: stacked decorators, arguments, and the cron that is a trap."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime, timedelta

import pytest

from anyscheduler import Context, Scheduler, ScheduleWarning
from anyscheduler.testing import VirtualClock
from tests.loop.scene import run_for, running, virtual, virtual_app


@virtual
async def test_one_body_takes_several_schedules_by_name_each_with_its_own_arguments() -> None:
    app = virtual_app()
    seen: list[tuple[str, str]] = []

    @app.task(name="task1", interval=timedelta(seconds=10), username="abra")
    @app.task(name="task2", interval=timedelta(seconds=20), username="kadabra")
    @app.task(name="task3", interval=timedelta(seconds=30), username="alakazam")
    async def task(context: Context) -> None:
        seen.append((context.task.name, context.args["username"]))

    await run_for(app, 31)

    assert sorted(seen) == [
        *[("task1", "abra")] * 3,
        ("task2", "kadabra"),
        ("task3", "alakazam"),
    ]


@virtual
async def test_what_a_body_does_to_its_arguments_does_not_reach_the_next_execution() -> None:
    app = virtual_app()
    seen: list[dict[str, object]] = []

    @app.task(interval=timedelta(seconds=1), users=["abra"], nested={"deep": [1]})
    async def greedy(context: Context) -> None:
        seen.append({"users": list(context.args["users"]), "deep": list(context.args["nested"]["deep"])})
        context.args["users"].append("mallory")
        context.args["nested"]["deep"].clear()

    await run_for(app, 3.5)

    assert seen == [{"users": ["abra"], "deep": [1]}] * 3


@virtual
async def test_the_arguments_are_the_same_copy_throughout_one_execution() -> None:
    app = virtual_app()
    seen: list[object] = []

    @app.middleware
    async def prepare(context: Context, next: object) -> None:
        context.args["users"].append("added")
        await next()  # type: ignore[operator]

    @app.task(interval=timedelta(seconds=1), users=["abra"])
    async def body(context: Context) -> None:
        seen.append(context.args["users"])

    await run_for(app, 1.5)

    assert seen == [["abra", "added"]]


def test_the_seeds_daily_example_warns_when_it_is_defined() -> None:
    app = Scheduler()

    with pytest.warns(ScheduleWarning, match=r"fires on every second from 04:20:00 to 04:20:59.*'20 4 \* \* \*'"):

        @app.task(schedule="20 4 * * * *")
        async def every_day_at_4_20_am(context: Context) -> None: ...

    assert every_day_at_4_20_am.schedule == "20 4 * * * *"


@virtual
async def test_the_seeds_daily_example_fires_sixty_times() -> None:
    app = virtual_app(clock=VirtualClock(datetime(2026, 1, 1, 4, 19, tzinfo=UTC)))
    due: list[datetime] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ScheduleWarning)

        @app.task(schedule="20 4 * * * *")
        async def every_day_at_4_20_am(context: Context) -> None:
            due.append(context.scheduled_at)

    await run_for(app, 600)

    first = datetime(2026, 1, 1, 4, 20, tzinfo=UTC)
    assert due == [first + timedelta(seconds=second) for second in range(60)]


@virtual
async def test_a_dynamic_schedule_that_is_such_a_trap_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    app = virtual_app()

    @app.dynamic_task()
    async def hello(context: Context) -> None: ...

    async with running(app) as app_context:
        await app_context.schedule_task(hello, "bill", schedule="20 4 * * * *")

    assert [record.message for record in caplog.records if "fires on every second" in record.message]
