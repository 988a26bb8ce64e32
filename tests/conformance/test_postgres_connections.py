"""The connections of the PostgreSQL store: how many, what cuts them, and that the next ones work.

Knows: a server of its own, which it stops, freezes and cuts off.
"""

from __future__ import annotations

import logging
import os
import resource
import time
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

import anyio
import anyio.to_thread
import psycopg
import pytest

from anyscheduler.errors import RepositoryError
from anyscheduler.lease import Change
from anyscheduler.postgres import postgres_repository
from tests.conformance.postgres_tables import channel_of, connect, execute
from tests.conformance.stores import free_row, insert
from tests.servers.postgres import PostgresServer, start_postgres
from tests.servers.process import HOST
from tests.servers.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anyscheduler.repository import Repository

POOL = 4
PATIENCE = timedelta(seconds=1)
A_FEW_SECONDS = 8.0
"""Within which something must have ended that takes a second or two on an idle machine."""

THEIRS = "application_name = 'anyscheduler'"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    with start_postgres(tmp_path_factory.mktemp("server"), fsync="off", max_connections="20") as started:
        yield started


@pytest.fixture
def url(server: PostgresServer) -> str:
    """An empty database."""
    return server.new_database()


@pytest.fixture
def anyio_backend() -> str:
    """One event loop, where nothing else is said: the threads know of none."""
    return "asyncio"


# How a thread is waited for, and given up, is the affair of each event loop.
on_each_loop = pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])


@contextmanager
def frozen(server: PostgresServer) -> Iterator[None]:
    server.freeze()
    try:
        yield
    finally:
        server.thaw()


async def busy(repository: Repository, calls: int = 100) -> None:
    """Makes many calls at once, so that every connection is opened that may be."""
    async with anyio.create_task_group() as tasks:
        for _ in range(calls):
            tasks.start_soon(repository.read, ["a"])


async def failures_of(repository: Repository, calls: int) -> int:
    failed = 0
    for _ in range(calls):
        try:
            await repository.read(["a"])
        except RepositoryError:
            failed += 1
    return failed


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(20):
        while not condition():
            await anyio.sleep(0.01)


async def until_it_answers(repository: Repository) -> None:
    with anyio.fail_after(20):
        while await failures_of(repository, 1):
            await anyio.sleep(0.05)


@pytest.mark.anyio
async def test_a_hundred_calls_at_once_share_the_connections_of_the_pool(url: str) -> None:
    heard: list[int] = []
    most = 0

    async with (
        postgres_repository(postgres_url=url, postgres_pool_size=POOL) as repository,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(repository.listen, heard.append)
        await until(lambda: bool(heard))
        async with anyio.create_task_group() as calls:
            for _ in range(100):
                calls.start_soon(repository.read, ["a"])
            with connect(url) as watching:
                for _ in range(20):
                    statement = f"SELECT FROM pg_stat_activity WHERE datname = current_database() AND {THEIRS}"
                    most = max(most, watching.execute(statement.encode()).rowcount)
                    await anyio.sleep(0.001)
        tasks.cancel_scope.cancel()

    assert 2 <= most <= POOL + 1
    await until(lambda: execute(url, f"SELECT count(*) FROM pg_stat_activity WHERE {THEIRS}") == [(0,)])


@pytest.mark.anyio
async def test_after_all_connections_were_cut_one_call_fails_at_most(url: str) -> None:
    async with postgres_repository(postgres_url=url, postgres_pool_size=POOL) as repository:
        await busy(repository)
        execute(url, f"SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE {THEIRS}")

        assert await failures_of(repository, 20) <= 1


@on_each_loop
@pytest.mark.anyio
async def test_a_listener_that_was_cut_off_listens_again_and_wakes_for_what_it_missed(url: str) -> None:
    heard: list[int] = []
    async with postgres_repository(postgres_url=url) as repository, anyio.create_task_group() as tasks:
        tasks.start_soon(repository.listen, heard.append)
        await until(lambda: len(heard) == 1)
        execute(url, "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
        await until(lambda: len(heard) == 2)
        assert heard[1] == heard[0]
        await repository.write([Change("a", None, free_row("a", 7))], announce=True)
        await until(lambda: heard[-1] == 7)
        tasks.cancel_scope.cancel()


@pytest.mark.anyio
async def test_what_is_announced_is_what_was_applied(url: str) -> None:
    heard: list[int] = []
    async with (
        postgres_repository(postgres_url=url) as one,
        postgres_repository(postgres_url=url) as two,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(two.listen, heard.append)
        await until(lambda: bool(heard))
        heard.clear()
        await insert(one, free_row("a", 1))
        await one.write([Change("a", "another", free_row("a", 2))], announce=True)
        await one.write([Change("a", None, free_row("a", 3))], announce=True)
        with pytest.raises(RepositoryError):
            await one.write(
                [Change("b", None, free_row("b", 4)), Change("c", None, free_row("c", 2**63))], announce=True
            )
        await one.write([Change("a", "t0", None)], announce=True)
        await one.write([Change("b", None, free_row("b", 9)), Change("c", None, free_row("c", 6))], announce=True)
        await until(lambda: bool(heard))
        tasks.cancel_scope.cancel()

    assert heard == [6]


@pytest.mark.anyio
async def test_what_anybody_else_says_on_the_channel_does_not_end_the_listening(url: str) -> None:
    heard: list[int] = []
    async with postgres_repository(postgres_url=url) as repository, anyio.create_task_group() as tasks:
        tasks.start_soon(repository.listen, heard.append)
        await until(lambda: bool(heard))
        execute(url, f"NOTIFY {channel_of(url, 'anyscheduler')}, 'not a number'")
        await repository.write([Change("a", None, free_row("a", 7))], announce=True)
        await until(lambda: heard[-1] == 7)
        tasks.cancel_scope.cancel()


@pytest.mark.anyio
async def test_where_notifications_do_not_arrive_that_is_said_once_and_everything_else_works(
    server: PostgresServer, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Proxy(HOST, server.port, without_notifications=True) as proxy:
        async with postgres_repository(postgres_url=proxy.url(url)) as repository:
            with anyio.fail_after(20):
                await repository.listen(lambda _: None)
            assert await repository.write([Change("a", None, free_row("a"))], announce=True) == [True]

    assert [record.getMessage()[:40] for record in caplog.records if record.name.startswith("anyscheduler")] == [
        "PostgreSQL's notifications do not arrive"
    ]


@pytest.mark.anyio
async def test_a_process_with_thousands_of_open_files_can_listen(url: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4_096, hard), hard))
    heard: list[int] = []
    try:
        with ExitStack() as files:
            for _ in range(1_100):
                files.callback(os.close, os.dup(0))
            async with postgres_repository(postgres_url=url) as repository, anyio.create_task_group() as tasks:
                tasks.start_soon(repository.listen, heard.append)
                with anyio.move_on_after(3):
                    await until(lambda: bool(heard))
                tasks.cancel_scope.cancel()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert heard != []


@pytest.mark.anyio
async def test_a_session_that_lost_what_was_prepared_in_it_answers_all_the_same(url: str) -> None:
    """What a pooler does to a client when it gives its next transaction to another server process."""
    async with postgres_repository(postgres_url=url, postgres_pool_size=1) as repository:
        await insert(repository, free_row("a"))
        assert len(await repository.read(["a"])) == 1
        with cast("Any", repository)._database._pool.connection() as connection:
            # Inside of a block, where psycopg does not notice it.
            connection.execute("DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$")
        assert len(await repository.read(["a"])) == 1
        assert await repository.write([Change("a", "t0", None)]) == [True]


@pytest.mark.anyio
async def test_a_server_without_a_connection_to_spare_fails_calls_until_it_has_one(url: str) -> None:
    async with postgres_repository(postgres_url=url, postgres_command_timeout=PATIENCE) as repository:
        with ExitStack() as others:
            cut_off = others.enter_context(connect(url))
            with suppress(psycopg.OperationalError):
                while True:
                    others.enter_context(connect(url))
            cut_off.execute(f"SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE {THEIRS}".encode())
            with suppress(psycopg.OperationalError):
                while True:  # in the places that have just become free
                    others.enter_context(connect(url))
            assert await failures_of(repository, 3) == 3
        await until_it_answers(repository)
        assert await failures_of(repository, 10) == 0


@pytest.mark.anyio
async def test_a_server_that_restarted_is_used_again_and_nothing_of_it_but_one_failure_is_seen(
    server: PostgresServer, url: str
) -> None:
    async with postgres_repository(postgres_url=url) as repository:
        await insert(repository, free_row("a"))
        await busy(repository)
        await anyio.to_thread.run_sync(server.restart)
        assert await failures_of(repository, 20) <= 1
        assert set(await repository.read(["a"])) == {"a"}


@pytest.mark.anyio
async def test_a_server_that_is_gone_fails_calls_with_the_cause_and_is_used_again_when_it_is_back(
    server: PostgresServer, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with postgres_repository(postgres_url=url, postgres_command_timeout=timedelta(seconds=10)) as repository:
        await busy(repository)
        await anyio.to_thread.run_sync(server.stop)
        try:
            assert await failures_of(repository, 1) == 1
            with pytest.raises(RepositoryError, match="refused") as caught:
                await repository.read(["a"])
        finally:
            await anyio.to_thread.run_sync(server.start)
        await until_it_answers(repository)

    assert "canary" not in str(caught.value)
    # Whoever calls logs an outage, once; what the pool tries meanwhile is no news.
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


@on_each_loop
@pytest.mark.anyio
async def test_calls_to_a_server_that_hangs_fail_in_time_and_work_again_when_it_goes_on(
    server: PostgresServer, url: str
) -> None:
    async with postgres_repository(postgres_url=url, postgres_command_timeout=PATIENCE) as repository:
        await busy(repository)
        with frozen(server):
            for _ in range(2):
                with anyio.fail_after(A_FEW_SECONDS):
                    assert await failures_of(repository, 1) == 1
        await until_it_answers(repository)
        with anyio.fail_after(A_FEW_SECONDS):
            await busy(repository)


@on_each_loop
@pytest.mark.anyio
async def test_a_server_that_hangs_does_not_hold_up_closing(
    server: PostgresServer, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with ExitStack() as until_it_is_closed:
        async with postgres_repository(postgres_url=url) as repository:
            await busy(repository)
            until_it_is_closed.enter_context(frozen(server))
            async with anyio.create_task_group() as tasks:
                for _ in range(POOL):
                    tasks.start_soon(repository.read, ["a"])
                await anyio.sleep(0.3)
                tasks.cancel_scope.cancel()
            started = time.monotonic()
        took = time.monotonic() - started

    assert took < A_FEW_SECONDS
    assert "canary" not in caplog.text
