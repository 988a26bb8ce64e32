"""Measures how fast PgQueuer drains jobs, in a process of its own, in the environment of the peers.

Tuned as its guide to performance says (larger batches, `pgq autovac`), with uvloop as in its own benchmark; batches of
250 were the best of 100, 250, 500, 1,000 and 2,000, one connection was as good as a pool, and its tables stay logged,
as those that it is compared with.
"""

from __future__ import annotations

import asyncio
import pkgutil
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from tests.benchmarks import measuring

if TYPE_CHECKING:
    import argparse

ENQUEUED_AT_ONCE = 1_000


async def drain(given: argparse.Namespace) -> dict[str, object]:
    """Measures from the start of the worker until the last of `count` jobs is finished and logged as such."""
    started = left = given.count
    connection: Any = await pkgutil.resolve_name("asyncpg:connect")(given.url)
    queries: Any = pkgutil.resolve_name("pgqueuer:Queries")(pkgutil.resolve_name("pgqueuer:AsyncpgDriver")(connection))
    await queries.install()
    if given.tuned:
        await queries.optimize_autovacuum()
    await enqueue(queries, given.count)
    manager: Any = pkgutil.resolve_name("pgqueuer:QueueManager")(queries)
    log_jobs = queries.log_jobs

    async def log_and_count(jobs: list[Any]) -> None:
        nonlocal left
        await log_jobs(jobs)
        left -= len(jobs)
        if not left:
            manager.shutdown.set()

    async def noop(_job: Any) -> None:
        nonlocal started
        started -= 1

    queries.log_jobs = log_and_count
    manager.entrypoint("noop", accepts_context=False)(noop)
    draining = measuring.Stopwatch()
    async with asyncio.TaskGroup() as group:
        batch = {"batch_size": 250} if given.tuned else {}
        group.create_task(manager.run(dequeue_timeout=timedelta(seconds=30), **batch))
        # It ends some time after it was told to, so the clock is stopped when the last job is settled.
        await manager.shutdown.wait()
        drained = draining.read()
    remaining = await connection.fetchval("SELECT count(*) FROM pgqueuer")
    await connection.close()
    assert not started, started
    assert not remaining, "a finished job is still in the queue"
    return {**drained, "executions": given.count}


async def enqueue(queries: Any, count: int) -> None:
    """Enqueues jobs that are due at once."""
    for first in range(0, count, ENQUEUED_AT_ONCE):
        number = min(ENQUEUED_AT_ONCE, count - first)
        await queries.enqueue(["noop"] * number, [None] * number, [0] * number)


def main(given: argparse.Namespace) -> None:
    """Runs the one measurement that there is."""
    assert (given.measurement, given.store) == ("drain", "postgres")
    loop_factory = pkgutil.resolve_name("uvloop:new_event_loop") if given.tuned else None
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        measuring.report(runner.run(drain(given)))


if __name__ == "__main__":
    main(measuring.arguments())
