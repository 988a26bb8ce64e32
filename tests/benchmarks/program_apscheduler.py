"""The same program as `program_anyscheduler.py`, for APScheduler 3 in memory, in the environment of the peers."""

from __future__ import annotations

import asyncio
import pkgutil
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Any

_, seconds = sys.argv[1:]


async def main() -> None:
    ended = asyncio.Event()

    async def first() -> None:
        print(time.time(), flush=True)
        ended.set()

    scheduler: Any = pkgutil.resolve_name("apscheduler.schedulers.asyncio:AsyncIOScheduler")()
    # Once only: an interval of a millisecond would have it complain about those that are cut off at the end.
    scheduler.add_job(first, "date", run_date=datetime.now(UTC) + timedelta(seconds=float(seconds)))
    scheduler.start()
    await ended.wait()
    scheduler.shutdown()


if __name__ == "__main__":
    asyncio.run(main())
