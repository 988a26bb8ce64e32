"""What somebody can do who may send on the channel of an app, and nothing else: in PostgreSQL that is every role."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import anyio
import pytest
from redis import Redis

from anyscheduler import Context, Scheduler
from anyscheduler.threaded import announced
from tests.conformance.postgres_tables import channel_of, connect, execute, new_name

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 30
"""Seconds after which a test gives up."""

HOSTILE = (
    "",
    "probe",
    "nonsense",
    "0; DROP TABLE anyscheduler",
    "-1" + "0" * 400,
    "9" * 400,
    "1" * 5_000,
    "\u0661\u0662",
    "1\n",
    "NaN",
    "-inf",
    "--5",
    "1e9",
)
"""What nobody announces: no instants, or far beyond all time."""


def test_nothing_but_an_instant_is_taken_for_an_announcement() -> None:
    assert announced(HOSTILE) == []
    assert announced(["12", "-5", "nonsense", str(2**63 - 1)]) == [12, -5, 2**63 - 1]


async def runs_on(app: Scheduler, is_heard: Callable[[], bool], send: Callable[[str], object]) -> None:
    """Runs an app, sends everything hostile, and waits until a task that is scheduled afterwards was executed."""
    executed = anyio.Event()

    @app.dynamic_task()
    async def task(context: Context) -> None:
        executed.set()

    with anyio.fail_after(PATIENCE):
        async with app.create() as app_context, anyio.create_task_group() as group:
            await group.start(app_context.run)
            while not is_heard():
                await anyio.sleep(0.01)
            for text in HOSTILE:
                send(text)
            await anyio.sleep(0.1)
            await app_context.schedule_task(task, "name", interval=timedelta(milliseconds=1))
            await executed.wait()
            app_context.shutdown()


@pytest.mark.anyio
async def test_what_any_role_of_postgresql_can_notify_stops_nobody(
    postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    table = new_name("notified")

    def is_heard() -> bool:
        listens = f'LISTEN "{channel_of(postgres_url, table)}"'
        return bool(execute(postgres_url, f"SELECT pid FROM pg_stat_activity WHERE query = '{listens}'"))

    def send(text: str) -> None:
        with connect(postgres_url) as connection:
            connection.execute("SELECT pg_notify(%s, %s)", (channel_of(postgres_url, table), text))

    await runs_on(Scheduler(postgres_url=postgres_url, postgres_table_name=table), is_heard, send)

    assert [record.message for record in caplog.records if record.levelname != "INFO"] == []


@pytest.mark.anyio
async def test_what_is_published_on_the_channel_in_redis_stops_nobody(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    namespace = new_name("published")
    with Redis.from_url(redis_url) as redis:

        def send(text: str) -> bool:
            return bool(redis.publish(f"{{{namespace}}}:claimable", text))

        await runs_on(Scheduler(redis_url=redis_url, redis_namespace=namespace), lambda: send(""), send)

    assert [record.message for record in caplog.records if record.levelname != "INFO"] == []
