"""One app for any number of processes, on any store: the environment says which.

    POSTGRES_URL=postgresql://user:password@localhost/database python examples/workers.py
    REDIS_URL=redis://localhost python examples/workers.py
    python examples/workers.py

The last one shares the SQLite file workers.db. Start it in several terminals: each occurrence runs in one of them. Kill
one with kill -9 while it counts sheep, and another one counts them again when the lease has ended.

    python examples/workers.py Bill

schedules a greeting and ends. On PostgreSQL and Redis the processes above learn of it at once. With containers instead
of terminals: `compose.yaml`, beside this file.
"""

from __future__ import annotations

import logging
import os
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio

from anyscheduler import Context, Scheduler

logger = logging.getLogger("workers")


def choose_store() -> dict[str, Any]:
    """Returns the option that selects the store."""
    for variable in ("POSTGRES_URL", "REDIS_URL"):
        if variable in os.environ:
            return {variable.lower(): os.environ[variable]}
    return {"sqlite_database": "workers.db"}


app = Scheduler(**choose_store(), concurrency_limit=10)


@app.task(interval=timedelta(seconds=1), fast_forward=True)
async def tick(context: Context) -> None:
    logger.info("tick, due at %s", context.scheduled_at.time())


# A process that dies is replaced when its lease has ended; the heartbeat allows for a short one.
@app.task(interval=timedelta(seconds=15), fast_forward=True, lease_duration=timedelta(seconds=5), heartbeat=True)
async def count_sheep(context: Context) -> None:
    for number in range(1, 11):
        logger.info("%d sheep", number)
        await anyio.sleep(1)


@app.dynamic_task()
async def greet(context: Context) -> None:
    logger.info("hello %s", context.args["username"])


async def schedule_greeting(username: str) -> None:
    async with app.create() as app_context:
        await app_context.schedule_task(greet, username, execute_at=datetime.now(UTC), username=username)
    print(f"scheduled: greet {username}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        anyio.run(schedule_greeting, sys.argv[1])
    else:
        app.main()
