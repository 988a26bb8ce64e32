"""A fixture opens a database for all executions, and a middleware puts a transaction around each.

    python examples/middlewares_and_fixtures.py

It ends by itself. The tracebacks that it logs are those of the task that fails on purpose.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING

import anyio

from anyscheduler import AppContext, Context, ExecutionMode, FailureMode, Scheduler

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

app = Scheduler()


@app.fixture(name="db")
async def accounts(app_context: AppContext) -> AsyncIterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE payments (amount INTEGER)")
        print("fixture: the database is open")
        yield connection
        print("fixture: closing the database")


@app.middleware
async def narrator(context: Context, next: Callable[[], Awaitable[None]]) -> None:
    print(f"{context.task.name}: starts")
    try:
        await next()
    finally:
        print(f"{context.task.name}: ends")


@app.middleware
async def transaction(context: Context, next: Callable[[], Awaitable[None]]) -> None:
    try:
        await next()
    except BaseException:
        context.db.rollback()
        raise
    else:
        context.db.commit()


@app.task(interval=timedelta(seconds=0.5), amount=10)
async def pay(context: Context) -> None:
    context.db.execute("INSERT INTO payments VALUES (?)", (context.args["amount"],))


@app.task(interval=timedelta(seconds=0.7), failure_mode=FailureMode.COMMIT)
async def pay_and_fail(context: Context) -> None:
    context.db.execute("INSERT INTO payments VALUES (1000)")
    raise RuntimeError("this payment is rolled back")


@app.task(interval=timedelta(seconds=2.2), execution_mode=ExecutionMode.AT_MOST_ONCE)
async def close_the_books(context: Context) -> None:
    (total,) = context.db.execute("SELECT sum(amount) FROM payments").fetchone()
    print(f"the payments sum up to {total}")
    context.app_context.shutdown()


async def main() -> None:
    async with app.create() as app_context:
        await app_context.run()


if __name__ == "__main__":
    anyio.run(main)
