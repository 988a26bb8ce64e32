"""Two tasks on a SQLite file. Stop it with Ctrl-C and start it again: it goes on where it stopped.

    python examples/hello.py
    anyscheduler run examples.hello:app

Both do the same. Start it in two terminals at once, and each occurrence runs in one of them only.
"""

from __future__ import annotations

import logging
from datetime import timedelta

import anyio

from anyscheduler import Context, Scheduler

logger = logging.getLogger("hello")

app = Scheduler(sqlite_database="hello.db")


# fast_forward: what was missed while nothing ran is not made up for, run by run, at the next start.
@app.task(interval=timedelta(seconds=2), fast_forward=True)
async def hello(context: Context) -> None:
    logger.info("hello at %s", context.scheduled_at.time())


@app.task(schedule="* * * * * */10", fast_forward=True)
async def slow(context: Context) -> None:
    logger.info("slow begins; Ctrl-C now lets it finish, Ctrl-C twice does not")
    await anyio.sleep(3)
    logger.info("slow ends")


if __name__ == "__main__":
    app.main()
