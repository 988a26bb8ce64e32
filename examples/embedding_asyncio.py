"""The scheduler beside the rest of an asyncio program, which starts it, uses it and stops it.

    python examples/embedding_asyncio.py

It ends by itself.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from anyscheduler import Context, Scheduler

app = Scheduler()


@app.task(interval=timedelta(seconds=0.5))
async def tick(context: Context) -> None:
    print(f"tick, on {type(asyncio.get_running_loop()).__name__}")


@app.dynamic_task()
async def remind(context: Context) -> None:
    print(f"remember: {context.args['what']}")


async def main() -> None:
    async with app.create() as app_context, asyncio.TaskGroup() as group:
        group.create_task(app_context.run())

        print("the program does its own work")
        soon = datetime.now(UTC) + timedelta(seconds=0.7)
        await app_context.schedule_task(remind, "milk", execute_at=soon, what="milk")
        await asyncio.sleep(1.2)

        print("the program stops the scheduler")
        app_context.shutdown()
    print("what was running has finished")


if __name__ == "__main__":
    asyncio.run(main())
