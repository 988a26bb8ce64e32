"""Runs one measurement of this package in a process of its own."""

from __future__ import annotations

import functools
import pkgutil
import random
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import anyio

from anyscheduler import AppContext, Context, Scheduler, Task, lease
from anyscheduler.lease import Change
from anyscheduler.repository import ClaimRequest
from anyscheduler.tokens import TokenSource
from tests.benchmarks import measuring

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from anyscheduler.repository import Claimed, Repository

# By name, so that only the driver that is needed is imported.
REPOSITORIES = {
    "memory": ("anyscheduler.memory:memory_repository", None),
    "sqlite": ("anyscheduler.sqlite:sqlite_repository", "sqlite_database"),
    "postgres": ("anyscheduler.postgres:postgres_repository", "postgres_url"),
    "redis": ("anyscheduler.redis:redis_repository", "redis_url"),
}

TUNED = {"concurrency_limit": 1_000, "batch_size": 250}

ONE_AT_A_TIME = 1_000
COPIED_AT_ONCE = 1_000
LEASE = 60_000_000


async def drain(app: Scheduler, given: argparse.Namespace) -> dict[str, object]:
    """Measures from the start of the worker until the last of `count` due once-offs is finished and settled."""
    left = given.count
    running: AppContext

    async def noop(_context: Context) -> None:
        nonlocal left
        left -= 1
        if not left:
            running.shutdown()

    task = app.dynamic_task()(noop)
    due = datetime.now(UTC) - timedelta(hours=1)
    async with app.create() as running:
        registering = measuring.Stopwatch()
        first = min(given.count, ONE_AT_A_TIME)
        for number in range(first):
            await running.schedule_task(task, f"instance-{number}", execute_at=due)
        registered = registering.read()
        await copy_first(running, range(first, given.count))
        await store_later(running, task, due + timedelta(days=1), given.stored)
        draining = measuring.Stopwatch()
        await running.run()
        drained = draining.read()
        remaining = [state for state in (await running.list_tasks(task)).tasks if state.scheduled_at <= due]
    assert not left, left
    assert not remaining, "a finished once-off is still in the store"
    return {**drained, "executions": given.count, "registered_per_second": first / registered["seconds"]}


async def fill(app: Scheduler, given: argparse.Namespace) -> dict[str, object]:
    """Stores `count` once-offs that are due when the window begins."""

    async def noop(_context: Context) -> None:
        raise AssertionError("this process runs nothing")

    task = app.dynamic_task()(noop)
    due = datetime.fromtimestamp(given.begin, UTC)
    async with app.create() as running:
        await store_later(running, task, due, given.count)
    return {}


async def store_later(running: AppContext, task: Task, due: datetime, count: int) -> None:
    """Stores `count` once-offs that are due then."""
    await running.schedule_tasks(task, ((f"later-{number}", {"execute_at": due}) for number in range(count)))


async def idle(app: Scheduler, given: argparse.Namespace) -> dict[str, object]:
    """Measures what a worker takes in `seconds` in which nothing is due."""

    async def noop(_context: Context) -> None:
        raise AssertionError("nothing is due")

    app.dynamic_task()(noop)
    async with app.create() as running, anyio.create_task_group() as group:
        group.start_soon(running.run)
        await anyio.sleep(measuring.SETTLED)
        watch = measuring.Stopwatch()
        await anyio.sleep(given.seconds)
        result = watch.read()
        running.shutdown()
    return {**result}


async def waiting(app: Scheduler, given: argparse.Namespace) -> dict[str, object]:
    """Drains what `fill` has stored, with bodies that wait for 20 ms, until nothing is left for any worker."""
    ended: list[float] = []

    async def noop(_context: Context) -> None:
        await anyio.sleep(0.02)
        ended.append(time.time())

    task = app.dynamic_task()(noop)
    async with app.create() as running, anyio.create_task_group() as group:
        group.start_soon(running.run)
        await anyio.sleep(given.begin - time.time())
        watch = measuring.Stopwatch()
        while (await running.list_tasks(task, limit=1)).tasks:
            await anyio.sleep(0.2)
        taken = watch.read()
        running.shutdown()
    return {**taken, "executions": len(ended), "last": max(ended, default=given.begin)}


async def drain_recurring(app: Scheduler, given: argparse.Namespace, schedule: dict[str, object]) -> dict[str, object]:
    """Measures the same with schedules that are due once in the past hour, and again in the future."""
    left = given.count
    running: AppContext

    async def noop(_context: Context) -> None:
        nonlocal left
        left -= 1
        if not left:
            running.shutdown()

    task = app.dynamic_task()(noop)
    async with app.create() as running:
        await running.schedule_tasks(task, ((f"instance-{number}", schedule) for number in range(given.count)))
        await move_back(running, timedelta(hours=1))
        draining = measuring.Stopwatch()
        await running.run()
        drained = draining.read()
    assert not left, left
    return {**drained, "executions": given.count}


async def drain_cron(app: Scheduler, given: argparse.Namespace) -> dict[str, object]:
    """Measures a cron expression in a time zone."""
    return await drain_recurring(app, given, {"schedule": "0 * * * *", "timezone": "Europe/Berlin"})


async def drain_interval(app: Scheduler, given: argparse.Namespace) -> dict[str, object]:
    """Measures an interval."""
    return await drain_recurring(app, given, {"interval": timedelta(hours=1)})


async def drain_alone(app: Scheduler, given: argparse.Namespace) -> dict[str, object]:
    """Measures the store alone: its own code claims as many once-offs and removes them, without engine and bodies."""

    async def noop(_context: Context) -> None:
        raise AssertionError("there is no engine")

    task = app.dynamic_task()(noop)
    due = datetime.now(UTC) - timedelta(hours=1)
    left = given.count
    async with app.create() as running:
        repository = running._repository
        await store_later(running, task, due, given.count)
        new_token = TokenSource(lambda: time.time_ns() // 1_000)
        has_clock = await repository.time() is not None
        draining = measuring.Stopwatch()
        while left:
            now = None if has_clock else time.time_ns() // 1_000
            claimed = await repository.claim([ClaimRequest("noop", LEASE)], running._plan.batch_size, now, new_token())
            written = await repository.write([lease.commit(row, None, new_token()) for row in claimed.rows])
            assert all(written)
            left -= len(written)
        drained = draining.read()
    return {**drained, "executions": given.count}


async def register(app: Scheduler, given: argparse.Namespace) -> dict[str, object]:
    """Measures how many once-offs are registered per second: one at a time, by fifty tasks at a time, and in bulk."""

    async def noop(_context: Context) -> None:
        raise AssertionError("nothing is due")

    task = app.dynamic_task()(noop)
    due = datetime.now(UTC) + timedelta(days=1)
    async with app.create() as running:
        watch = measuring.Stopwatch()
        first = min(given.count, ONE_AT_A_TIME)
        for number in range(first):
            await running.schedule_task(task, f"one-{number}", execute_at=due)
        rates = {"one": first / watch.read()["seconds"]}

        numbers = iter(range(given.count))

        async def some() -> None:
            for number in numbers:
                await running.schedule_task(task, f"fifty-{number}", execute_at=due)

        watch = measuring.Stopwatch()
        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(some)
        rates["fifty"] = given.count / watch.read()["seconds"]

        watch = measuring.Stopwatch()
        many = ((f"bulk-{number}", {"execute_at": due}) for number in range(given.count))
        count = await running.schedule_tasks(task, many)
        rates["bulk"] = count / watch.read()["seconds"]
    return {**rates}


async def move_back(running: AppContext, by: timedelta) -> None:
    """Makes all instances due earlier."""
    repository = running._repository
    micros = by // timedelta(microseconds=1)
    after = ""
    while rows := await repository.list("noop", after, COPIED_AT_ONCE):
        moved = [row._replace(due_at=row.due_at - micros, claimable_at=row.claimable_at - micros) for row in rows]
        written = await repository.write([Change(row.key, row.token, row) for row in moved])
        assert all(written)
        after = rows[-1].key


async def copy_first(running: AppContext, numbers: range) -> None:
    """Adds instances like the first, a thousand at a time: one at a time they take longer than all that is measured."""
    repository = running._repository
    (row,) = await repository.list("noop", "", 1)
    for start in numbers[::COPIED_AT_ONCE]:
        batch = range(start, min(start + COPIED_AT_ONCE, numbers.stop))
        copies = [row._replace(key=f"{row.key.removesuffix('0')}{number}") for number in batch]
        written = await repository.write([Change(copy.key, None, copy) for copy in copies])
        assert all(written), "the copies are there already"


async def lateness(app: Scheduler, given: argparse.Namespace) -> dict[str, object]:
    """Measures how late `count` tasks with an interval of one second start."""
    window = measuring.Window(given.begin, given.seconds)

    async def tick(context: Context) -> None:
        window.note(context.task.name, context.scheduled_at)

    for number in range(given.count):
        app.task(name=f"tick-{number}", interval=timedelta(seconds=1))(tick)
    async with app.create() as running, anyio.create_task_group() as group:
        group.start_soon(running.run)
        await anyio.sleep(window.remaining())
        running.shutdown()
    return {**window.result(), "answers": Answers.received}


class Answers:
    """A store as it is, that notes when each claim with rows is answered.

    Args:
        repository: The store.
    """

    received: Final[list[float]] = []
    """When, in seconds since the epoch."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    def __getattr__(self, name: str) -> Any:
        return getattr(self._repository, name)

    async def claim(self, *asked: Any) -> Claimed:
        claimed = await self._repository.claim(*asked)
        if claimed.rows:
            self.received.append(time.time())
        return claimed


def noted(
    factory: Callable[..., AbstractAsyncContextManager[Repository]],
) -> Callable[..., AbstractAsyncContextManager[Answers]]:
    """Returns a factory with the same options, whose store notes answers."""

    @functools.wraps(factory)
    @asynccontextmanager
    async def open_noted(**options: Any) -> AsyncIterator[Answers]:
        async with factory(**options) as repository:
            yield Answers(repository)

    return open_noted


async def woken(app: Scheduler, given: argparse.Namespace) -> dict[str, object]:
    """Runs what `wake` schedules, and measures how long after its call each body starts."""
    delays: list[float] = []
    running: AppContext

    @app.dynamic_task()
    async def wanted_now(context: Context) -> None:
        delays.append((time.time() - context.args["called_at"]) * 1e3)
        if len(delays) == given.count:
            running.shutdown()

    async with app.create() as running:
        await running.run()
    return {"delays": delays}


async def wake(app: Scheduler, given: argparse.Namespace) -> dict[str, object]:
    """Schedules `count` once-offs that are due at once, one after the other, for the process that runs `woken`."""

    @app.dynamic_task()
    async def wanted_now(_context: Context) -> None:
        raise AssertionError("this process runs nothing")

    async with app.create() as running:
        await anyio.sleep(given.begin - time.time())
        for number in range(given.count):
            # Each call has to find the other process asleep, at no fixed point of any rhythm that it may have.
            await anyio.sleep(random.uniform(0.03, 0.05))
            now = datetime.now(UTC)
            await running.schedule_task(wanted_now, f"instance-{number}", execute_at=now, called_at=now.timestamp())
    return {}


MEASUREMENTS = {
    "drain": drain,
    "fill": fill,
    "idle": idle,
    "waiting": waiting,
    "drain-cron": drain_cron,
    "drain-interval": drain_interval,
    "drain-alone": drain_alone,
    "register": register,
    "lateness": lateness,
    "woken": woken,
    "wake": wake,
}


def main(given: argparse.Namespace) -> None:
    """Runs the measurement on the store and the event loop that were asked for."""
    repository, option = REPOSITORIES[given.store]
    factory = pkgutil.resolve_name(repository)
    options: dict[str, Any] = {"repository_factory": noted(factory) if given.measurement == "lateness" else factory}
    if option is not None:
        options[option] = given.url
    if given.tuned:
        options |= TUNED
    backend_options = {"use_uvloop": True} if given.tuned and given.backend == "asyncio" else {}
    app = Scheduler(**options)
    result: dict[str, object] = anyio.run(
        MEASUREMENTS[given.measurement], app, given, backend=given.backend, backend_options=backend_options
    )
    measuring.report(result)


if __name__ == "__main__":
    main(measuring.arguments())
