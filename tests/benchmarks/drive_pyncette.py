"""Runs one measurement of pyncette in a process of its own, in the environment of the peers.

Its store in memory is SQLite's `:memory:`, which is also its default. Each of its statements crosses to a thread and
back, which takes two to three times as long when the two run on different cores: on two idle cores it drains 1,100 to
2,000 a second, and 3,000 when something else keeps one of them busy. So compare on an idle machine.
"""

from __future__ import annotations

import asyncio
import pkgutil
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from tests.benchmarks import measuring

if TYPE_CHECKING:
    import argparse

REPOSITORIES = {
    "memory": ("pyncette.sqlite:sqlite_repository", "sqlite_database"),
    "sqlite": ("pyncette.sqlite:sqlite_repository", "sqlite_database"),
    "postgres": ("pyncette.postgres:postgres_repository", "postgres_url"),
    "redis": ("pyncette.redis:redis_repository", "redis_url"),
}


async def drain(app: Any, given: argparse.Namespace) -> dict[str, object]:
    """Measures from the start of the worker until the last of `count` due once-offs is finished and settled."""
    left = given.count
    running: Any

    async def noop(_context: Any) -> None:
        nonlocal left
        left -= 1
        if not left:
            running.shutdown()

    task = app.dynamic_task()(noop)
    due = datetime.now(UTC) - timedelta(hours=1)
    async with app.create() as running:
        registering = measuring.Stopwatch()
        for number in range(given.count):
            await running.schedule_task(task, f"instance-{number}", execute_at=due)
        registered = registering.read()
        draining = measuring.Stopwatch()
        await running.run()
        # Its run() ends before the executions do; the executor keeps those that are not settled yet.
        if unsettled := list(running._executor._tasks.values()):
            await asyncio.wait(unsettled)
        drained = draining.read()
        remaining = (await running.list_tasks(task)).tasks
    assert not left, left
    assert not remaining, "a finished once-off is still in the store"
    return {**drained, "executions": given.count, "registered_per_second": given.count / registered["seconds"]}


async def lateness(app: Any, given: argparse.Namespace) -> dict[str, object]:
    """Measures how late `count` tasks with an interval of one second start."""
    window = measuring.Window(given.begin, given.seconds)

    async def tick(context: Any) -> None:
        window.note(context.task.name, context.scheduled_at)

    for number in range(given.count):
        app.task(name=f"tick-{number}", interval=timedelta(seconds=1))(tick)
    async with app.create() as running:
        worker = asyncio.create_task(running.run())
        await asyncio.sleep(window.remaining())
        running.shutdown()
        await worker
    return window.result()


async def fill(app: Any, given: argparse.Namespace) -> dict[str, object]:
    """Stores `count` once-offs that are due when the window begins."""

    async def noop(_context: Any) -> None:
        raise AssertionError("this process runs nothing")

    task = app.dynamic_task()(noop)
    due = datetime.fromtimestamp(given.begin, UTC)
    async with app.create() as running:
        for number in range(given.count):
            await running.schedule_task(task, f"later-{number}", execute_at=due)
    return {}


async def idle(app: Any, given: argparse.Namespace) -> dict[str, object]:
    """Measures what a worker takes in `seconds` in which nothing is due."""

    async def noop(_context: Any) -> None:
        raise AssertionError("nothing is due")

    app.dynamic_task()(noop)
    async with app.create() as running:
        worker = asyncio.create_task(running.run())
        await asyncio.sleep(measuring.SETTLED)
        watch = measuring.Stopwatch()
        await asyncio.sleep(given.seconds)
        result = watch.read()
        running.shutdown()
        await worker
    return {**result}


MEASUREMENTS = {"drain": drain, "lateness": lateness, "fill": fill, "idle": idle}


def main(given: argparse.Namespace) -> None:
    """Runs the measurement on the store that was asked for."""
    repository, option = REPOSITORIES[given.store]
    options = {"repository_factory": pkgutil.resolve_name(repository), option: given.url or ":memory:"}
    app = pkgutil.resolve_name("pyncette:Pyncette")(**options)
    measuring.report(asyncio.run(MEASUREMENTS[given.measurement](app, given)))


if __name__ == "__main__":
    main(measuring.arguments())
