"""Measures APScheduler 3, in memory, in the environment of the peers. It has no leases, and settles nothing."""

from __future__ import annotations

import asyncio
import importlib
from collections import defaultdict, deque
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from tests.benchmarks import measuring

if TYPE_CHECKING:
    import argparse


async def lateness(given: argparse.Namespace) -> dict[str, object]:
    """Measures how late `count` tasks with an interval of one second start."""
    events = importlib.import_module("apscheduler.events")
    scheduler = importlib.import_module("apscheduler.schedulers.asyncio").AsyncIOScheduler()
    window = measuring.Window(given.begin, given.seconds)
    due: defaultdict[str, deque[Any]] = defaultdict(deque)

    # A job is not told when it was due. The event that it was submitted tells that, and comes before it starts.
    def submitted(event: Any) -> None:
        due[event.job_id].extend(event.scheduled_run_times)

    async def tick(job_id: str) -> None:
        window.note(job_id, due[job_id].popleft())

    scheduler.add_listener(submitted, events.EVENT_JOB_SUBMITTED)
    for number in range(given.count):
        scheduler.add_job(tick, "interval", seconds=1, id=f"tick-{number}", args=[f"tick-{number}"])
    scheduler.start()
    await asyncio.sleep(window.remaining())
    scheduler.shutdown()
    return window.result()


async def drain(given: argparse.Namespace) -> dict[str, object]:
    """Measures from the moment that it may begin until the last of `count` due jobs is finished."""
    scheduler = importlib.import_module("apscheduler.schedulers.asyncio").AsyncIOScheduler()
    left, finished = given.count, asyncio.Event()

    async def noop() -> None:
        nonlocal left
        left -= 1
        if not left:
            finished.set()

    due = datetime.now(UTC) - timedelta(hours=1)
    scheduler.start(paused=True)
    for number in range(given.count):
        scheduler.add_job(noop, "date", run_date=due, id=f"job-{number}", misfire_grace_time=None)
    watch = measuring.Stopwatch()
    scheduler.resume()
    await finished.wait()
    result = {**watch.read(), "executions": given.count}
    scheduler.shutdown()
    return result


def main(given: argparse.Namespace) -> None:
    """Runs the measurement that was asked for."""
    assert given.store == "memory"
    measuring.report(asyncio.run({"drain": drain, "lateness": lateness}[given.measurement](given)))


if __name__ == "__main__":
    main(measuring.arguments())
