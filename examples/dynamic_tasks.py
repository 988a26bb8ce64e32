"""Schedules that come and go while the app runs, and survive it in a SQLite file.

    python examples/dynamic_tasks.py

It ends by itself.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import anyio

from anyscheduler import AppContext, Context, Scheduler

app = Scheduler(sqlite_database="dynamic_tasks.db")


@app.dynamic_task(greeting="Hello")
async def greet(context: Context) -> None:
    print(f"{context.args['greeting']} {context.args['username']}! ({context.task})")


@app.dynamic_task()
async def farewell(context: Context) -> None:
    print("once, and then never again: the once-off task stops the app")
    context.app_context.shutdown()


async def show(app_context: AppContext) -> None:
    page = await app_context.list_tasks(greet)
    for state in page.tasks:
        print(f"scheduled: {state.task}, arguments {state.task.extra_args}")


async def main() -> None:
    async with app.create() as app_context:
        # Registering at every start is fine: with an unchanged schedule the next run stays where it was.
        await app_context.schedule_task(greet, "bill", interval=timedelta(seconds=0.5), username="Bill")
        await app_context.schedule_task(greet, "steve", interval=timedelta(seconds=1), username="Steve", greeting="Hi")
        await app_context.schedule_task(greet, "john", schedule="0 9 * * *", timezone="Europe/Dublin", username="John")
        await app_context.schedule_task(farewell, "bye", execute_at=datetime.now(UTC) + timedelta(seconds=2.2))
        await show(app_context)

        await app_context.run()

        for name in ("bill", "steve", "john"):
            await app_context.unschedule_task(greet, name)
        await show(app_context)
        print("nothing is scheduled any more")


if __name__ == "__main__":
    anyio.run(main)
