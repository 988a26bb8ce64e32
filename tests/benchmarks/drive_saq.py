"""Measures how fast saq drains jobs, in a process of its own, in the environment of the peers.

With uvloop; what is finished is not kept, as with the others. More jobs at a time than its ten make it slower.
"""

from __future__ import annotations

import asyncio
import logging
import pkgutil
from typing import TYPE_CHECKING, Any

from tests.benchmarks import measuring

if TYPE_CHECKING:
    import argparse


async def drain(given: argparse.Namespace) -> dict[str, object]:
    """Measures from the start of the worker until the last of `count` jobs is finished and settled."""
    started = left = given.count
    finished = asyncio.Event()

    async def noop(_context: Any) -> None:
        nonlocal started
        started -= 1

    # Called when the job is settled.
    async def count_down(_context: Any) -> None:
        nonlocal left
        left -= 1
        if not left:
            finished.set()

    queue: Any = pkgutil.resolve_name("saq:Queue").from_url(given.url)
    await queue.connect()
    # A worker sweeps when it starts, and so aborts jobs that it has taken and not begun yet; not if one swept just now.
    await queue.sweep()
    registering = measuring.Stopwatch()
    for _ in range(given.count):
        await queue.enqueue("noop", ttl=-1)
    registered = registering.read()
    worker: Any = pkgutil.resolve_name("saq:Worker")(queue, [("noop", noop)], after_process=count_down)
    draining = measuring.Stopwatch()
    running = asyncio.create_task(worker.start())
    await finished.wait()
    drained = draining.read()
    await worker.stop()
    await running
    remaining = await queue.count("incomplete")
    await queue.disconnect()
    assert not started, started
    assert not remaining, "a finished job is still in the queue"
    return {**drained, "executions": given.count, "registered_per_second": given.count / registered["seconds"]}


def main(given: argparse.Namespace) -> None:
    """Runs the one measurement that there is."""
    assert (given.measurement, given.store) == ("drain", "redis")
    # It tells of each job, and at the end of those whose wait for one it cuts off.
    logging.disable(logging.WARNING)
    with asyncio.Runner(loop_factory=pkgutil.resolve_name("uvloop:new_event_loop")) as runner:
        measuring.report(runner.run(drain(given)))


if __name__ == "__main__":
    main(measuring.arguments())
