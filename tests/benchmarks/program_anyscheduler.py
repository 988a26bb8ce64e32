"""A program with one task, as a user would write it: `STORE SECONDS`, where the task is due after so many seconds.

It says when the task first runs, and ends. It imports nothing that a user's program would not.
"""

from __future__ import annotations

import os
import sys
import time
from datetime import timedelta
from typing import Any

from anyscheduler import Context, Scheduler

_OPTION = {"sqlite": "sqlite_database", "postgres": "postgres_url", "redis": "redis_url"}

store, seconds = sys.argv[1:]
options: dict[str, Any] = {}
if store in _OPTION:
    options[_OPTION[store]] = os.environ["ANYSCHEDULER_BENCHMARK_URL"]
app = Scheduler(**options)


@app.task(interval=timedelta(seconds=float(seconds)))
async def first(context: Context) -> None:
    print(time.time(), flush=True)
    context.app_context.shutdown()


if __name__ == "__main__":
    app.main()
