"""How the PostgreSQL store is opened: its options, what is refused and why, a server that is not there yet."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import anyio
import pytest

from anyscheduler.lease import Change
from anyscheduler.postgres import postgres_repository
from tests.conformance.postgres_tables import SECRET, changed, execute, new_name, open_and_close, refused
from tests.conformance.stores import free_row, insert, requests
from tests.servers.postgres import PostgresServer, start_postgres

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOW = 1_000_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A server where roles and databases may be made."""
    with start_postgres(tmp_path_factory.mktemp("server"), fsync="off") as started:
        yield started


@pytest.fixture
def url(server: PostgresServer) -> str:
    """An empty database."""
    return server.new_database()


@pytest.fixture
def anyio_backend() -> str:
    """One event loop: the server does not know about them, and the contract is tested on all of them."""
    return "asyncio"


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["anyscheduler", "order", "SELECT", "Mixed", "mixed", "t1", "_", "_1", "A" * 48])
@pytest.mark.anyio
async def test_a_table_name_of_letters_digits_and_underscores_works_whatever_it_means_to_sql(
    url: str, name: str
) -> None:
    for given in (name, f"public.{name}"):
        async with postgres_repository(postgres_url=url, postgres_table_name=given) as repository:
            await insert(repository, free_row("a"), free_row("b"))
            assert (await repository.claim(requests("a"), 5, NOW, "t1")).rows != []
            assert await repository.tasks() == ["a", "b"]
            assert await repository.write([Change("a", "t1", None), Change("b", "t0", None)]) == [True, True]


@pytest.mark.anyio
async def test_table_names_that_differ_in_case_are_different_tables(url: str) -> None:
    async with (
        postgres_repository(postgres_url=url, postgres_table_name="Jobs") as one,
        postgres_repository(postgres_url=url, postgres_table_name="jobs") as two,
    ):
        await insert(one, free_row("a"))
        assert await two.tasks() == []


@pytest.mark.anyio
async def test_both_schemes_work_and_the_description_shows_where_but_not_the_password(url: str) -> None:
    # The server's password holds `@ : / %`.
    for given in (url, url.replace("postgresql://", "postgres://")):
        async with postgres_repository(postgres_url=given) as repository:
            assert urlsplit(url).path in repository.description
            assert str(urlsplit(url).port) in repository.description
            assert SECRET not in repository.description + repr(repository)


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_who_may_not_connect_is_refused_by_name(server: PostgresServer, url: str) -> None:
    role, idle, database = new_name("role"), new_name("role"), urlsplit(url).path[1:]
    execute(
        server.url,
        f"CREATE ROLE {role} LOGIN PASSWORD 'canary'",
        f"CREATE ROLE {idle} NOLOGIN PASSWORD 'canary'",
        f"REVOKE CONNECT ON DATABASE {database} FROM public",
    )

    with refused("password", "postgres"):
        await open_and_close(changed(url, user="postgres", password="canary-2"))
    with refused("nobody_here"):
        await open_and_close(changed(url, user="nobody_here", password="canary"))
    with refused("no_such_database"):
        await open_and_close(changed(url, path="/no_such_database"))
    with refused(idle):
        await open_and_close(changed(url, user=idle, password="canary"))
    with refused("permission denied", database):
        await open_and_close(changed(url, user=role, password="canary"))


@pytest.mark.parametrize(
    ("query", "cause"),
    [
        ("sslmode=require", "SSL"),
        ("sslmode=nonsense", "nonsense"),
        ("options=-cno_such_setting%3D1", "no_such_setting"),
        ("require_auth=gss", "gss"),
    ],
)
@pytest.mark.anyio
async def test_what_the_url_asks_for_and_will_never_get_is_refused(url: str, query: str, cause: str) -> None:
    with refused(cause):
        await open_and_close(changed(url, query=query))


@pytest.mark.anyio
async def test_a_role_that_lacks_a_right_is_refused_with_the_right(server: PostgresServer, url: str) -> None:
    role = new_name("role")
    execute(server.url, f"CREATE ROLE {role} LOGIN PASSWORD 'canary'")
    as_role = changed(url, user=role, password="canary")

    with refused("permission denied for schema public"):
        await open_and_close(as_role)
    with refused("no_such_schema"):
        await open_and_close(as_role, postgres_table_name="no_such_schema.x")
    await open_and_close(url)
    execute(url, f"GRANT SELECT, INSERT, DELETE ON anyscheduler TO {role}")
    with refused(role, "UPDATE"):
        await open_and_close(as_role)
    execute(url, "CREATE SCHEMA closed", "CREATE TABLE closed.x ()")
    with refused("permission denied for schema closed"):
        await open_and_close(as_role, postgres_table_name="closed.x")
    execute(url, f"ALTER ROLE {role} SET default_transaction_read_only = on")
    with refused("read-only"):
        await open_and_close(as_role)


@pytest.mark.anyio
async def test_a_role_with_rights_on_the_table_alone_can_do_everything(server: PostgresServer, url: str) -> None:
    role = new_name("role")
    await open_and_close(url)
    execute(
        url,
        f"CREATE ROLE {role} LOGIN PASSWORD 'canary'",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON anyscheduler TO {role}",
    )
    heard: list[int] = []
    async with (
        postgres_repository(postgres_url=changed(url, user=role, password="canary")) as repository,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(repository.listen, heard.append)
        with anyio.fail_after(10):
            while not heard:
                await anyio.sleep(0.01)
            assert await repository.write([Change("a", None, free_row("a", 7))], announce=True) == [True]
            while 7 not in heard:
                await anyio.sleep(0.01)
        assert [row.key for row in (await repository.claim(requests("a"), 5, NOW, "t1")).rows] == ["a"]
        assert await repository.write([Change("a", "t1", None)]) == [True]
        tasks.cancel_scope.cancel()


SHAPES = {
    "other columns": "CREATE TABLE anyscheduler (id int PRIMARY KEY, task text)",
    "a view": "CREATE VIEW anyscheduler AS SELECT ''::text AS key, ''::text AS task, 0::bigint AS due_at, "
    "0::bigint AS claimable_at, ''::text AS token, ''::text AS spec, ''::text AS state",
    "no primary key": 'CREATE TABLE anyscheduler (key text COLLATE "C", task text COLLATE "C", due_at bigint, '
    "claimable_at bigint, token text, spec text, state text)",
    "other types": 'CREATE TABLE anyscheduler (key text COLLATE "C" PRIMARY KEY, task text COLLATE "C", '
    "due_at timestamptz, claimable_at timestamptz, token text, spec text, state text)",
    "partitions": 'CREATE TABLE anyscheduler (key text COLLATE "C" PRIMARY KEY, task text COLLATE "C", '
    "due_at bigint, claimable_at bigint, token text, spec text, state text) PARTITION BY HASH (key)",
}


@pytest.mark.parametrize("statement", SHAPES.values(), ids=SHAPES)
@pytest.mark.anyio
async def test_something_else_under_the_name_of_the_table_is_refused(url: str, statement: str) -> None:
    execute(url, statement)

    with refused("anyscheduler"):
        await open_and_close(url)


@pytest.mark.parametrize(("number", "version"), [("120022", "12.22"), ("90603", "9.6.3")])
@pytest.mark.anyio
async def test_a_server_that_is_too_old_is_refused_with_its_version(url: str, number: str, version: str) -> None:
    # Who asks it for a setting is asked along the search path, and finds this first.
    execute(
        url,
        "CREATE SCHEMA older",
        "CREATE FUNCTION older.current_setting(name text) RETURNS text LANGUAGE sql AS $$ SELECT CASE name "
        f"WHEN 'server_version_num' THEN '{number}' WHEN 'server_version' THEN '{version}' "
        "ELSE pg_catalog.current_setting(name) END $$",
        f"ALTER DATABASE {urlsplit(url).path[1:]} SET search_path = older, pg_catalog, public",
    )

    with refused(f"the server is PostgreSQL {version}; 13 is the oldest"):
        await open_and_close(url)


@pytest.mark.anyio
async def test_a_database_in_another_encoding_is_refused(server: PostgresServer) -> None:
    name = new_name("latin")
    execute(server.url, f"CREATE DATABASE {name} ENCODING LATIN1 TEMPLATE template0 LOCALE 'C' LOCALE_PROVIDER libc")

    with refused("LATIN1", "UTF8"):
        await open_and_close(changed(server.url, path=f"/{name}"))


def test_a_standby_is_refused(tmp_path: Path) -> None:
    with start_postgres(tmp_path, fsync="off") as server:
        server.stop()
        (server._data / "standby.signal").touch()
        server.start()

        with refused("standby"):
            anyio.run(open_and_close, server.url)


# --- a server that is not there yet -----------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_server_that_is_not_up_yet_is_waited_for_with_one_line(
    server: PostgresServer, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.stop()

    async def start() -> None:
        await anyio.sleep(0.5)
        await anyio.to_thread.run_sync(server.start)

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(start)
            with anyio.fail_after(30):
                async with postgres_repository(postgres_url=url) as repository:
                    assert await repository.tasks() == []
    finally:
        if server._process is None:
            server.start()

    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(lines) == 2
    assert "retry until it is back" in lines[0]
    assert "is back" in lines[1]
    assert SECRET not in caplog.text
