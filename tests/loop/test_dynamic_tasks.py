"""Instances coming and going: schedule, replace, force, unschedule."""

from __future__ import annotations

from datetime import timedelta

import anyio
import pytest

from anyscheduler import (
    Context,
    Scheduler,
    Task,
    TaskLockedError,
)
from tests.loop.scene import Stopwatch, WatchedRepository, micros, running, seconds, shared, virtual, virtual_app


class Seen:
    """What the instances of one dynamic task were called with, and when."""

    def __init__(self, app: Scheduler, **options: object) -> None:
        self._now = Stopwatch()
        self.calls: list[tuple[str, object, float]] = []
        self.takes = 0.0
        self.task: Task = app.dynamic_task(name="hello", **options)(self._body)

    async def _body(self, context: Context) -> None:
        self.calls.append((context.task.name, context.args.get("username"), self._now()))
        await anyio.sleep(self.takes)

    @property
    def starts(self) -> list[float]:
        return [start for _, _, start in self.calls]


@virtual
async def test_instances_run_each_at_its_own_schedule_with_its_own_arguments() -> None:
    app = virtual_app()
    hello = Seen(app)

    async with running(app) as app_context:
        await app_context.schedule_task(hello.task, "bill_task", schedule="* * * * * 10", username="bill")
        await app_context.schedule_task(hello.task, "steve_task", interval=timedelta(seconds=25), username="steve")
        await anyio.sleep(65)

    assert hello.calls == [
        ("bill_task", "bill", 10),
        ("steve_task", "steve", 25),
        ("steve_task", "steve", 50),
    ]


@virtual
async def test_schedule_task_wakes_a_sleeping_app_at_once() -> None:
    app = virtual_app(poll_interval=timedelta(hours=1))
    hello = Seen(app)

    async with running(app) as app_context:
        await anyio.sleep(100)
        await app_context.schedule_task(hello.task, "soon", interval=timedelta(seconds=2))
        await anyio.sleep(5)

    assert hello.starts == [102, 104]


@virtual
async def test_what_was_scheduled_before_run_is_run() -> None:
    app = virtual_app()
    hello = Seen(app)

    async with app.create() as app_context, anyio.create_task_group() as group:
        await app_context.schedule_task(hello.task, "bill", interval=timedelta(seconds=2), username="bill")
        group.start_soon(app_context.run)
        await anyio.sleep(3)
        app_context.shutdown()

    assert hello.calls == [("bill", "bill", 2)]


@virtual
async def test_schedule_task_returns_the_concrete_task() -> None:
    app = virtual_app()
    hello = Seen(app, username="nobody", greeting="hi")

    async with app.create() as app_context:
        instance = await app_context.schedule_task(
            hello.task, "bill", schedule="0 12 * * *", timezone="Europe/Dublin", username="bill"
        )

    assert (instance.name, instance.parent_task, str(instance)) == ("bill", hello.task, "hello:bill")
    assert (instance.schedule, instance.timezone) == ("0 12 * * *", "Europe/Dublin")
    assert instance.extra_args == {"username": "bill", "greeting": "hi"}


@virtual
async def test_scheduling_a_name_again_with_the_same_trigger_replaces_arguments_and_keeps_the_next_run() -> None:
    app = virtual_app()
    hello = Seen(app)

    async with running(app) as app_context:
        await app_context.schedule_task(hello.task, "it", interval=timedelta(seconds=10), username="old")
        for _ in range(8):
            await anyio.sleep(3)
            await app_context.schedule_task(hello.task, "it", interval=timedelta(seconds=10), username="new")

    assert hello.calls == [("it", "new", 10), ("it", "new", 20)]


@pytest.mark.parametrize(("second", "expected"), [(4, [7, 11]), (20, [23])], ids=["sooner", "later"])
@virtual
async def test_with_another_trigger_the_new_one_counts_sooner_or_later(second: int, expected: list[float]) -> None:
    app = virtual_app()
    hello = Seen(app)

    async with running(app) as app_context:
        await app_context.schedule_task(hello.task, "it", interval=timedelta(seconds=10))
        await anyio.sleep(3)
        await app_context.schedule_task(hello.task, "it", interval=timedelta(seconds=second))
        await anyio.sleep(expected[-1] - 3 + 1)

    assert hello.starts == expected


@virtual
async def test_while_it_runs_scheduling_it_again_is_refused_with_the_end_of_the_lease() -> None:
    app = virtual_app()
    hello = Seen(app)
    hello.takes = 5

    async with running(app) as app_context:
        await app_context.schedule_task(hello.task, "it", interval=timedelta(seconds=10), username="old")
        await anyio.sleep(12)
        with pytest.raises(TaskLockedError, match="'hello:it'") as caught:
            await app_context.schedule_task(hello.task, "it", interval=timedelta(seconds=10), username="new")
        await anyio.sleep(4)
        await app_context.schedule_task(hello.task, "it", interval=timedelta(seconds=10), username="new")
        await anyio.sleep(5)

    assert seconds(caught.value.locked_until) == 70
    assert hello.calls == [("it", "old", 10), ("it", "new", 20)]


@virtual
async def test_force_replaces_the_next_run_too_and_the_running_result_is_refused() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    hello = Seen(app)
    hello.takes = 5

    async with running(app) as app_context:
        await app_context.schedule_task(hello.task, "it", interval=timedelta(seconds=10), username="old")
        await anyio.sleep(12)
        await app_context.schedule_task(hello.task, "it", interval=timedelta(seconds=10), username="new", force=True)
        await anyio.sleep(6)
        row = await repository.row("hello:it")
        await anyio.sleep(5)

    assert row.due_at == row.claimable_at == micros(22)
    assert hello.calls == [("it", "old", 10), ("it", "new", 22)]


@virtual
async def test_unschedule_stops_further_runs() -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))
    hello = Seen(app)

    async with running(app) as app_context:
        await app_context.schedule_task(hello.task, "it", interval=timedelta(seconds=10))
        await anyio.sleep(15)
        await app_context.unschedule_task(hello.task, "it")
        await anyio.sleep(30)

    assert hello.starts == [10]
    assert await repository.keys() == set()


@virtual
async def test_unschedule_takes_the_instance_itself() -> None:
    app = virtual_app()
    hello = Seen(app)

    async with running(app) as app_context:
        instance = await app_context.schedule_task(hello.task, "it", interval=timedelta(seconds=10))
        await app_context.unschedule_task(instance)
        await anyio.sleep(30)

    assert hello.calls == []


@virtual
async def test_unschedule_of_what_is_not_there_does_nothing() -> None:
    app = virtual_app()
    hello = Seen(app)

    async with running(app) as app_context:
        await app_context.schedule_task(hello.task, "it", interval=timedelta(seconds=10))
        await app_context.unschedule_task(hello.task, "somebody else")
        await anyio.sleep(15)

    assert hello.starts == [10]


@virtual
async def test_a_body_schedules_others() -> None:
    app = virtual_app()
    hello = Seen(app)

    @app.task(interval=timedelta(seconds=10))
    async def parent(context: Context) -> None:
        at = context.scheduled_at + timedelta(seconds=1)
        await context.app_context.schedule_task(hello.task, f"child {seconds(at)}", execute_at=at)

    async with running(app):
        await anyio.sleep(25)

    assert hello.calls == [("child 11.0", None, 11), ("child 21.0", None, 21)]


@virtual
async def test_a_template_with_a_default_schedule_gives_it_to_instances_that_have_none() -> None:
    app = virtual_app()
    hello = Seen(app, interval=timedelta(seconds=10))

    async with running(app) as app_context:
        await app_context.schedule_task(hello.task, "default")
        await app_context.schedule_task(hello.task, "own", interval=timedelta(seconds=25))
        await app_context.schedule_task(hello.task, "gone")
        await app_context.unschedule_task(hello.task, "gone")
        await anyio.sleep(26)

    assert [(name, start) for name, _, start in hello.calls] == [("default", 10), ("default", 20), ("own", 25)]
