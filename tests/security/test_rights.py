"""The rights that the page on security tells to give: an app can do everything with them, and nothing beyond."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import anyio
import psycopg
import pytest
from redis import Redis
from redis.exceptions import NoPermissionError, ResponseError

from anyscheduler import ConfigurationError, Context, Scheduler
from tests.conformance.postgres_tables import changed, connect, execute
from tests.docs.test_promises import block_of
from tests.servers.redis import client, start_redis

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers.redis import RedisServer

pytestmark = pytest.mark.anyio

PATIENCE = 30
"""Seconds after which a test gives up."""

TABLE_RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE")
ACL = block_of("redis.md", "redis", "ACL SETUSER").split()
KEYS = "~{anyscheduler}:*"
CHANNEL = "&{anyscheduler}:claimable"


@pytest.fixture
def anyio_backend() -> str:
    """One event loop: the server does not know about them."""
    return "asyncio"


async def is_woken_by_another(options: dict[str, Any]) -> bool:
    """Runs an app that polls once an hour, has another one schedule something, and stops both gracefully.

    Returns whether that was executed: it was claimed, written, and listened for.
    """
    executed = anyio.Event()

    def new_app() -> Scheduler:
        app = Scheduler(poll_interval=timedelta(hours=1), **options)

        @app.dynamic_task()
        async def task(context: Context) -> None:
            executed.set()

        @app.task(interval=timedelta(milliseconds=50))
        async def beginning(context: Context) -> None:
            begun.set()

        return app

    begun = anyio.Event()
    running, other = new_app(), new_app()
    async with running.create() as app_context, anyio.create_task_group() as group:
        await group.start(app_context.run)
        with anyio.move_on_after(PATIENCE):
            async with other.create() as other_context:
                await begun.wait()
                task = other._tasks["task"]
                await other_context.schedule_task(task, "later", interval=timedelta(days=1))
                await other_context.unschedule_task(task, "later")
                await other_context.schedule_task(task, "name", execute_at=datetime.now(UTC))
                await executed.wait()
        app_context.shutdown()
    return executed.is_set()


# --- PostgreSQL -------------------------------------------------------------------------------------------------------


@pytest.fixture
def roles(postgres_url: str) -> Iterator[tuple[str, str]]:
    """What the page tells an administrator to do; the prefix of the names, and the password with them."""
    name = f"scheduler_{os.getpid()}"
    statements = block_of("security.md", "sql", "CREATE ROLE").replace("scheduler", name).replace("secret", "canary")
    execute(postgres_url, statements)
    try:
        yield name, f"{name}.anyscheduler"
    finally:
        # One after the other: together, the server looks for a default right that has just gone.
        for role in (f"{name}_owner", f"{name}_app"):
            execute(postgres_url, f"DROP OWNED BY {role} CASCADE", f"DROP ROLE {role}")


def as_role(url: str, role: str, table: str) -> dict[str, Any]:
    return {"postgres_url": changed(url, user=role, password="canary"), "postgres_table_name": table}


async def start_once(options: dict[str, Any]) -> None:
    async with Scheduler(**options).create():
        pass


async def test_the_owner_starts_once_and_then_the_role_of_the_app_can_do_everything(
    postgres_url: str, roles: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    name, table = roles
    await start_once(as_role(postgres_url, f"{name}_owner", table))

    options = as_role(postgres_url, f"{name}_app", table)
    assert await is_woken_by_another(options)
    assert await is_woken_by_another({**options, "postgres_skip_table_create": True})

    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == []


async def test_the_role_of_the_app_can_change_nothing_but_rows(postgres_url: str, roles: tuple[str, str]) -> None:
    name, table = roles
    with pytest.raises(ConfigurationError, match="permission denied for schema"):
        await start_once(as_role(postgres_url, f"{name}_app", table))
    await start_once(as_role(postgres_url, f"{name}_owner", table))

    with connect(changed(postgres_url, user=f"{name}_app", password="canary")) as connection:
        for statement in (
            f"DROP TABLE {table} CASCADE",
            f"TRUNCATE {table}",
            f"ALTER TABLE {table} ADD COLUMN other text",
            f"CREATE TABLE {name}.other ()",
            f"CREATE INDEX ON {table} (spec)",
            "SELECT rolpassword FROM pg_authid",
            f"CREATE TRIGGER other BEFORE INSERT ON {table} EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())


@pytest.mark.parametrize("right", TABLE_RIGHTS)
async def test_each_right_on_the_table_is_needed_and_named_when_it_is_missing(
    postgres_url: str, roles: tuple[str, str], right: str
) -> None:
    name, table = roles
    await start_once(as_role(postgres_url, f"{name}_owner", table))
    execute(postgres_url, f"REVOKE {right} ON {table} FROM {name}_app")

    with pytest.raises(ConfigurationError, match=rf"'{name}_app' may not {right} on table"):
        await start_once(as_role(postgres_url, f"{name}_app", table))


async def test_usage_of_the_schema_is_needed_and_named_when_it_is_missing(
    postgres_url: str, roles: tuple[str, str]
) -> None:
    name, table = roles
    await start_once(as_role(postgres_url, f"{name}_owner", table))
    execute(postgres_url, f"REVOKE USAGE ON SCHEMA {name} FROM {name}_app")

    with pytest.raises(ConfigurationError, match="permission denied for schema"):
        await start_once(as_role(postgres_url, f"{name}_app", table))


async def test_a_role_that_may_create_once_needs_that_right_no_more(postgres_url: str, roles: tuple[str, str]) -> None:
    name, table = roles
    options = as_role(postgres_url, f"{name}_app", table)
    execute(postgres_url, f"GRANT CREATE ON SCHEMA {name} TO {name}_app")
    await start_once(options)
    execute(postgres_url, f"REVOKE CREATE ON SCHEMA {name} FROM {name}_app")

    assert await is_woken_by_another(options)


# --- Redis ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def redis_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server whose users may be changed."""
    with start_redis(tmp_path_factory.mktemp("redis"), appendonly="no") as server:
        yield server


def as_user(server: RedisServer, *, without: str = "") -> dict[str, Any]:
    """Makes the user of the page, with one right less."""
    with client(server) as redis:
        redis.execute_command(*[word.replace(">secret", ">canary") for word in ACL if word != without])
    return {"redis_url": f"redis://shop:canary@127.0.0.1:{server.port}"}


async def test_the_user_of_the_app_can_do_everything_with_the_line_of_the_page(
    redis_of_its_own: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    assert await is_woken_by_another(as_user(redis_of_its_own))

    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == []


def test_the_user_of_the_app_can_do_nothing_else(redis_of_its_own: RedisServer) -> None:
    options = as_user(redis_of_its_own)
    with client(redis_of_its_own) as redis:
        redis.set("other", "value")
    with Redis.from_url(options["redis_url"]) as redis:
        for command in (
            ("GET", "other"),
            ("SET", "other", "x"),
            ("GET", "{anyscheduler2}:format"),
            ("GET", "anyscheduler"),
            ("KEYS", "*"),
            ("SCAN", "0"),
            ("FLUSHALL",),
            ("FLUSHDB",),
            ("CONFIG", "SET", "maxmemory", "1"),
            ("ACL", "LIST"),
            ("SCRIPT", "FLUSH"),
            ("SHUTDOWN",),
            ("DEBUG", "SLEEP", "0"),
            ("CLIENT", "LIST"),
            ("REPLICAOF", "NO", "ONE"),
            ("PUBLISH", "other", "x"),
            ("SUBSCRIBE", "other"),
            ("PSUBSCRIBE", "*"),
            ("MONITOR",),
        ):
            with pytest.raises(NoPermissionError):
                redis.execute_command(*command)
        # What a script touches counts as well, whatever it declares.
        for script in ("return redis.call('get', 'other')", "return redis.call('flushall')"):
            with pytest.raises(ResponseError, match=r"(?i)permission|can't"):
                redis.eval(script, 0)
    with client(redis_of_its_own) as redis:
        assert redis.get("other") == b"value"


async def test_the_pattern_of_the_keys_is_needed_and_the_refusal_says_so(redis_of_its_own: RedisServer) -> None:
    with pytest.raises(ConfigurationError, match="the user lacks a right"):
        await start_once(as_user(redis_of_its_own, without=KEYS))


async def test_without_the_channel_it_works_and_says_that_it_polls(
    redis_of_its_own: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    options = as_user(redis_of_its_own, without=CHANNEL)
    executed = anyio.Event()
    app = Scheduler(**options)

    @app.task(interval=timedelta(milliseconds=10))
    async def task(context: Context) -> None:
        if "find it by polling" in caplog.text:
            executed.set()

    async with app.create() as app_context, anyio.create_task_group() as group:
        await group.start(app_context.run)
        with anyio.fail_after(PATIENCE):
            await executed.wait()
        app_context.shutdown()

    assert [record.message for record in caplog.records if "permissions" in record.message] != []
