"""Measures how fast arq drains jobs, in a process of its own, in the environment of the peers.

Tuned: as it comes it polls twice a second and drains 200. More jobs at a time than a hundred gain nothing.
"""

from __future__ import annotations

import asyncio
import pkgutil
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from tests.benchmarks import measuring

if TYPE_CHECKING:
    import argparse


async def drain(given: argparse.Namespace) -> dict[str, object]:
    """Measures from the start of the worker until the last of `count` jobs is finished and settled."""
    started = given.count

    async def noop(_context: Any) -> None:
        nonlocal started
        started -= 1

    url = urlsplit(given.url)
    # Its own from_dsn() takes a quoted password as it stands.
    settings = pkgutil.resolve_name("arq.connections:RedisSettings")(
        host=url.hostname, port=url.port, password=unquote(url.password or "")
    )
    redis: Any = await pkgutil.resolve_name("arq:create_pool")(settings)
    registering = measuring.Stopwatch()
    for _ in range(given.count):
        await redis.enqueue_job("noop")
    registered = registering.read()
    worker: Any = pkgutil.resolve_name("arq:Worker")(
        [pkgutil.resolve_name("arq.worker:func")(noop, name="noop")],
        redis_settings=settings,
        burst=True,
        handle_signals=False,
        max_jobs=100,
        poll_delay=0.01,
        keep_result=0,
    )
    draining = measuring.Stopwatch()
    await worker.async_run()
    drained = draining.read()
    await worker.close()
    await redis.aclose()
    assert not started, started
    assert worker.jobs_complete == given.count, worker.jobs_complete
    return {**drained, "executions": given.count, "registered_per_second": given.count / registered["seconds"]}


def main(given: argparse.Namespace) -> None:
    """Runs the one measurement that there is."""
    assert (given.measurement, given.store) == ("drain", "redis")
    with asyncio.Runner(loop_factory=pkgutil.resolve_name("uvloop:new_event_loop")) as runner:
        measuring.report(runner.run(drain(given)))


if __name__ == "__main__":
    main(measuring.arguments())
