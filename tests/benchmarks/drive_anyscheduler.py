"""Runs one measurement of this package in a process of its own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import anyio

from anyscheduler import AppContext, Context, Scheduler
from tests.benchmarks import measuring

if TYPE_CHECKING:
    import argparse


async def drain(app: Scheduler, count: int) -> dict[str, object]:
    """Measures from the start of the worker until the last of `count` due once-offs is finished and settled."""
    left = count
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
        for number in range(count):
            await running.schedule_task(task, f"instance-{number}", execute_at=due)
        registered = registering.read()
        draining = measuring.Stopwatch()
        await running.run()
        drained = draining.read()
        remaining = (await running.list_tasks(task)).tasks
    assert not left, left
    assert not remaining, "a finished once-off is still in the store"
    return {**drained, "executions": count, "registering_seconds": registered["seconds"]}


async def lateness(app: Scheduler, count: int, seconds: float) -> dict[str, object]:
    """Measures how late `count` tasks with an interval of one second start."""
    late: list[float] = []

    async def tick(context: Context) -> None:
        late.append(measuring.milliseconds_since(context.scheduled_at))

    for number in range(count):
        app.task(name=f"tick-{number}", interval=timedelta(seconds=1))(tick)
    async with app.create() as running, anyio.create_task_group() as group:
        group.start_soon(running.run)
        await anyio.sleep(seconds + 0.5)
        running.shutdown()
    return {"late_milliseconds": late}


def main(given: argparse.Namespace) -> None:
    """Runs the measurement on the store and the event loop that were asked for."""
    with measuring.scratch_file(given.store) as path:
        options: dict[str, Any] = {} if path is None else {"sqlite_database": path}
        app = Scheduler(**options)
        if given.measurement == "drain":
            result = anyio.run(drain, app, given.count, backend=given.backend)
        else:
            result = anyio.run(lateness, app, given.count, given.seconds, backend=given.backend)
    measuring.report(result)


if __name__ == "__main__":
    main(measuring.arguments())
