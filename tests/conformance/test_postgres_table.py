"""The table of the PostgreSQL store and its view: made by many at once, by hand, in schemas of one's own."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

import anyio
import pytest

from anyscheduler.lease import Change
from anyscheduler.postgres import postgres_repository
from anyscheduler.postgres.schema import definition, parse_name
from tests.conformance.postgres_tables import execute, open_and_close, refused
from tests.conformance.stores import free_row, insert, requests
from tests.servers.postgres import PostgresServer, start_postgres

if TYPE_CHECKING:
    from collections.abc import Iterator

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


@pytest.mark.parametrize("table", ["anyscheduler", "Apps.order"])
@pytest.mark.anyio
async def test_without_creation_the_table_has_to_be_there_and_the_error_tells_how_to_make_it(
    url: str, table: str
) -> None:
    execute(url, 'CREATE SCHEMA "Apps"')
    names = parse_name(table)
    assert names is not None
    with refused("postgres_skip_table_create", "CREATE TABLE"):
        await open_and_close(url, postgres_table_name=table, postgres_skip_table_create=True)
    assert execute(url, f"SELECT to_regclass('{names.quoted}')") == [(None,)]

    execute(url, definition(names))

    async with postgres_repository(
        postgres_url=url, postgres_table_name=table, postgres_skip_table_create=True
    ) as repository:
        await insert(repository, free_row("a"))
        assert len((await repository.claim(requests("a"), 5, NOW, "t1")).rows) == 1


@pytest.mark.parametrize("tables", [["anyscheduler"], ["apps.x"], ["x", "public.x"]], ids=str)
def test_ten_that_open_at_once_on_an_empty_database_all_succeed(
    url: str, tables: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    execute(url, "CREATE SCHEMA apps")
    start = threading.Barrier(10)
    problems: list[BaseException] = []

    def open_one(number: int) -> None:
        async def scene() -> None:
            start.wait()
            async with postgres_repository(
                postgres_url=url, postgres_table_name=tables[number % len(tables)]
            ) as repository:
                await insert(repository, free_row(f"a:{number}"))

        try:
            anyio.run(scene)
        except BaseException as error:  # noqa: BLE001  # it is looked at below
            problems.append(error)

    threads = [threading.Thread(target=open_one, args=[number]) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert problems == []
    assert execute(url, f"SELECT count(*) FROM {tables[0]}") == [(10,)]
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.anyio
async def test_one_name_in_two_schemas_is_two_stores_and_neither_hears_of_the_other(url: str) -> None:
    execute(url, "CREATE SCHEMA one", "CREATE SCHEMA two")
    heard: list[int] = []
    async with (
        postgres_repository(postgres_url=url, postgres_table_name="one.jobs") as one,
        postgres_repository(postgres_url=url, postgres_table_name="two.jobs") as two,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(two.listen, heard.append)
        with anyio.fail_after(10):
            while not heard:
                await anyio.sleep(0.01)
            await one.write([Change("a", None, free_row("a", 1))], announce=True)
            assert await two.tasks() == []
            await two.write([Change("b", None, free_row("b", 2))], announce=True)
            while 2 not in heard:
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    assert 1 not in heard


INSTANTS = [-62_135_596_800_000_000, -1, 0, 1_763_942_400_123_457, 32_503_680_000_123_457, 253_402_300_799_999_999]


@pytest.mark.anyio
async def test_the_view_shows_exactly_the_stored_instants_and_nothing_for_absurd_ones(url: str) -> None:
    async with postgres_repository(postgres_url=url) as repository:
        await insert(repository, *(free_row(f"a:{n}", at) for n, at in enumerate([*INSTANTS, 2**62, -(2**62)])))

    shown = execute(url, "SELECT (extract(epoch FROM due_at) * 1000000)::bigint FROM anyscheduler_times ORDER BY key")

    assert [at for (at,) in shown] == [*INSTANTS, None, None]


@pytest.mark.anyio
async def test_the_view_tells_which_rows_are_leased(url: str) -> None:
    async with postgres_repository(postgres_url=url) as repository:
        now = await repository.time()
        assert now is not None
        hour = 3_600_000_000
        await insert(
            repository,
            free_row("due", now - hour),
            free_row("later", now + hour),
            free_row("held", now - hour)._replace(claimable_at=now + hour),
            free_row("expired", now - hour)._replace(claimable_at=now - 1),
            free_row("waits", now - hour, token="t.waiting")._replace(claimable_at=now + hour),
        )

    assert execute(url, "SELECT key FROM anyscheduler_times WHERE leased") == [("held",)]


@pytest.mark.anyio
async def test_a_table_whose_name_belongs_to_the_index_of_another_gets_an_index_all_the_same(url: str) -> None:
    await open_and_close(url, postgres_table_name="jobs_claimable")
    await open_and_close(url, postgres_table_name="jobs")

    assert len(execute(url, "SELECT indexname FROM pg_indexes WHERE tablename = 'jobs'")) == 2
