"""Measures the start lateness of APScheduler 3, in memory, in the environment of the peers.

It has no leases and settles nothing, so its drain would be the speed of something else.
"""

from __future__ import annotations

import asyncio
import importlib
from collections import defaultdict, deque
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


def main(given: argparse.Namespace) -> None:
    """Runs the one measurement that there is."""
    assert (given.measurement, given.store) == ("lateness", "memory")
    measuring.report(asyncio.run(lateness(given)))


if __name__ == "__main__":
    main(measuring.arguments())
