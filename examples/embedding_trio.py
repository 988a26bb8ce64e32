"""The scheduler in the nursery of a trio program.

    python examples/embedding_trio.py

It needs the extra `trio`, and ends by itself.
"""

from __future__ import annotations

from datetime import timedelta

import trio

from anyscheduler import Context, Scheduler

app = Scheduler()


@app.task(interval=timedelta(seconds=0.5))
async def tick(context: Context) -> None:
    print(f"tick, in trio's task {trio.lowlevel.current_task().name}")


async def main() -> None:
    async with app.create() as app_context, trio.open_nursery() as nursery:
        # With start() the program goes on when the tasks are registered; start_soon() works as well.
        await nursery.start(app_context.run)

        print("the program does its own work")
        await trio.sleep(1.2)

        print("the program stops the scheduler")
        app_context.shutdown()
    print("what was running has finished")


if __name__ == "__main__":
    trio.run(main)
