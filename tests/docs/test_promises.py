"""What the pages promise, where no other test looks."""

from __future__ import annotations

import os
import re
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import anyio
import psycopg
import pytest

from anyscheduler import Context, Scheduler
from anyscheduler.postgres.schema import definition, parse_name
from tests.conformance.redis_scene import RIGHTS
from tests.servers.redis import client

if TYPE_CHECKING:
    from tests.servers.redis import RedisServer

ROOT = Path(__file__).parents[2]


@pytest.mark.anyio
async def test_scheduling_a_damaged_instance_again_replaces_it_though_the_app_has_set_it_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "schedules.db"
    app = Scheduler(sqlite_database=file)
    executed = anyio.Event()

    @app.dynamic_task()
    async def task(context: Context) -> None:
        executed.set()

    async with app.create() as app_context:
        await app_context.schedule_task(task, "name", interval=timedelta(milliseconds=1))
        with closing(sqlite3.connect(file)) as connection, connection:
            connection.execute("UPDATE anyscheduler SET spec = '{damaged' WHERE key = 'task:name'")

        async with anyio.create_task_group() as group:
            await group.start(app_context.run)
            with anyio.fail_after(10):
                while "set aside" not in caplog.text:
                    await anyio.sleep(0.01)
            damaged = await app_context.get_task(task, "name")
            assert damaged is not None
            assert damaged.error is not None
            # Nobody executes it.
            assert damaged.locked_until is None
            await app_context.schedule_task(task, "name", interval=timedelta(milliseconds=1))
            with anyio.fail_after(10):
                await executed.wait()
            app_context.shutdown()


def block_of(page: str, kind: str, containing: str) -> str:
    """Returns the one block of a page of that kind with that text in it."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    [block] = [
        block for block in re.findall(rf"^```{kind}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL) if containing in block
    ]
    return str(block)


async def use_everything(app: Scheduler) -> list[str]:
    """Runs an app until each kind of task has been executed, and returns which were."""
    executed: list[str] = []

    @app.task(interval=timedelta(milliseconds=1))
    async def static(context: Context) -> None:
        executed.append("static")

    @app.dynamic_task()
    async def dynamic(context: Context) -> None:
        executed.append("dynamic")

    @app.partitioned_task(partition_count=2)
    async def partitioned(context: Context) -> None:
        executed.append("partitioned")

    async with app.create() as app_context:
        async with anyio.create_task_group() as group:
            await group.start(app_context.run)
            for task in (dynamic, partitioned):
                await app_context.schedule_task(task, "name", interval=timedelta(milliseconds=1))
                assert len((await app_context.list_tasks(task)).tasks) == 1
            with anyio.fail_after(10):
                while len(set(executed)) < 3:
                    await anyio.sleep(0.01)
            app_context.shutdown()
        for task in (dynamic, partitioned):
            await app_context.unschedule_task(task, "name")
    return executed


def test_the_table_that_the_page_creates_by_hand_is_the_one_that_the_app_creates() -> None:
    names = parse_name("anyscheduler")
    assert names is not None

    assert block_of("postgresql.md", "sql", "CREATE TABLE").split() == definition(names).split()


def test_the_rights_of_the_page_are_those_that_are_tested() -> None:
    page = (ROOT / "docs/redis.md").read_text()
    words = set(re.findall(r"(?<![\w+])\+[a-z|]+", page))

    assert words == set(RIGHTS)


@pytest.mark.anyio
async def test_the_grants_of_the_page_are_all_that_a_user_of_postgresql_needs(
    postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    schema = f"granted_{os.getpid()}"
    urls = [f"{postgres_url}?options={quote(f'-csearch_path={schema}')}"]
    urls.append(re.sub("//[^@]*@", "//shop:secret@", urls[0]))
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {schema}; SET search_path TO {schema}".encode())
        try:
            connection.execute(block_of("postgresql.md", "sql", "CREATE TABLE").encode())
            grants = block_of("postgresql.md", "sql", "GRANT").replace("SCHEMA public", f"SCHEMA {schema}")
            connection.execute(grants.encode())

            executed = await use_everything(Scheduler(postgres_url=urls[1], postgres_skip_table_create=True))
        finally:
            connection.execute(f"DROP SCHEMA {schema} CASCADE".encode())
            connection.execute("DROP OWNED BY shop; DROP ROLE shop")

    assert set(executed) == {"static", "dynamic", "partitioned"}
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == []


@pytest.mark.anyio
async def test_the_acl_line_of_the_page_is_all_that_a_user_of_redis_needs(
    redis_of_its_own: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    with client(redis_of_its_own) as redis:
        redis.execute_command(*block_of("redis.md", "redis", "ACL SETUSER").split())
        # As after a restart: whatever needs to be loaded is loaded by that user.
        redis.script_flush()

    executed = await use_everything(Scheduler(redis_url=f"redis://shop:secret@127.0.0.1:{redis_of_its_own.port}"))

    assert set(executed) == {"static", "dynamic", "partitioned"}
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == []
