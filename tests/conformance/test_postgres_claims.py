"""Several clients of one PostgreSQL table at the same moment: claims, locks, writes that meet."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import anyio
import psycopg
import pytest

from anyscheduler.errors import RepositoryError
from anyscheduler.lease import Change, Row
from anyscheduler.postgres import postgres_repository
from tests.conformance.postgres_tables import connect, execute, new_name
from tests.conformance.stores import free_row, insert, requests

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from anyscheduler.repository import Repository

NOW = 1_000_000
PATIENCE = timedelta(seconds=0.5)


@pytest.fixture
def anyio_backend() -> str:
    """One event loop: what happens between transactions has nothing to do with it."""
    return "asyncio"


@pytest.fixture
def table(postgres_url: str) -> Iterator[str]:
    name = new_name("claims")
    yield name
    execute(postgres_url, f"DROP TABLE IF EXISTS {name} CASCADE")


@pytest.fixture
async def repository(postgres_url: str, table: str) -> AsyncIterator[Repository]:
    async with postgres_repository(
        postgres_url=postgres_url, postgres_table_name=table, postgres_pool_size=8
    ) as opened:
        yield opened


# --- claims -----------------------------------------------------------------------------------------------------------

BACKLOGS = {
    "one task with many rows": {"task0": 10_000},
    "many tasks with one row": {f"task{number}": 1 for number in range(1_000)},
    "one backlog beside many tasks": {"task0": 4_000} | {f"task{number}": 1 for number in range(1, 400)},
}


@pytest.mark.parametrize("rows", BACKLOGS.values(), ids=BACKLOGS)
def test_threads_that_claim_at_once_get_every_row_and_none_of_them_twice(
    postgres_url: str, table: str, rows: dict[str, int]
) -> None:
    """Each thread is a process of its own to the server."""
    start = threading.Barrier(4)

    async def claim_all() -> list[str]:
        claimed: list[str] = []
        async with postgres_repository(
            postgres_url=postgres_url, postgres_table_name=table, postgres_pool_size=1
        ) as repository:
            start.wait()
            while True:
                found = await repository.claim(requests(*rows), 100, NOW, "t1")
                claimed += [row.key for row in found.rows]
                if not found.rows and (found.next_claimable is None or found.next_claimable > NOW):
                    return claimed

    async def store() -> None:
        async with postgres_repository(postgres_url=postgres_url, postgres_table_name=table) as repository:
            await insert(repository, *(free_row(f"{t}:{n}", n) for t, number in rows.items() for n in range(number)))

    anyio.run(store)
    with ThreadPoolExecutor(4) as threads:
        shares = list(threads.map(lambda _: anyio.run(claim_all), range(4)))

    together = [key for share in shares for key in share]
    assert len(together) == sum(rows.values())
    assert set(together) == {f"{task}:{n}" for task, number in rows.items() for n in range(number)}


@pytest.mark.anyio
async def test_a_few_tasks_with_nearly_all_of_the_rows_fill_the_limit(repository: Repository) -> None:
    tasks = {f"task{number}": 1 for number in range(50)} | {"task7": 300, "task9": 80}
    await insert(repository, *(free_row(f"{task}:{n}", n) for task, number in tasks.items() for n in range(number)))

    claimed = await repository.claim(requests(*tasks), 250, NOW, "t1")

    assert len({row.key for row in claimed.rows}) == 250
    # Fair: nobody has a row more than another that still had one.
    per_task = {task: sum(row.task == task for row in claimed.rows) for task in tasks}
    assert {per_task[task] for task in tasks if task not in {"task7", "task9"}} == {1}
    assert per_task["task9"] == 80
    assert per_task["task7"] == 250 - 48 - 80


@pytest.mark.anyio
async def test_a_row_that_another_program_holds_delays_no_other_and_is_claimed_later(
    postgres_url: str, repository: Repository, table: str
) -> None:
    await insert(repository, free_row("a:1"), free_row("a:2"), free_row("b"))
    with psycopg.connect(postgres_url) as other:
        other.execute(f"SELECT * FROM {table} WHERE key = 'a:1' FOR UPDATE".encode())
        with anyio.fail_after(5):
            meanwhile = await repository.claim(requests("a", "b"), 3, NOW, "t1")
    afterwards = await repository.claim(requests("a", "b"), 3, NOW, "t2")

    assert sorted(row.key for row in meanwhile.rows) == ["a:2", "b"]
    assert meanwhile.next_claimable == 0
    assert [row.key for row in afterwards.rows] == ["a:1"]


# --- writes -----------------------------------------------------------------------------------------------------------


async def write_while_another_client(
    repository: Repository, url: str, statement: str, changes: list[Change]
) -> list[bool | None]:
    """Writes at a moment when another client has carried out a statement, and commits it before long."""
    result: list[bool | None] = []

    async def write() -> None:
        result.extend(await repository.write(changes))

    with psycopg.connect(url) as other:
        other.execute(statement.encode())
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write)
            ((me,),) = other.execute("SELECT pg_backend_pid()").fetchall()
            await until_somebody_waits_for(url, me)
            other.commit()
    return result


async def until_somebody_waits_for(url: str, backend: int) -> None:
    with connect(url) as watching, anyio.fail_after(10):
        statement = "SELECT pid FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))"
        while not watching.execute(statement, (backend,)).fetchall():
            await anyio.sleep(0.01)


CHANGED = free_row("a", 5, token="t1")


@pytest.mark.parametrize("row", [CHANGED, None], ids=["changes", "deletes"])
@pytest.mark.anyio
async def test_a_row_that_another_client_has_locked_is_left_for_later_and_holds_up_no_other(
    postgres_url: str, repository: Repository, table: str, row: Row | None
) -> None:
    await insert(repository, *(free_row(key) for key in "abc"))
    changes = [Change("a", "t0", row), Change("b", "t0", CHANGED._replace(key="b", task="b")), Change("c", "t0", None)]

    with psycopg.connect(postgres_url) as other, anyio.fail_after(5):
        other.execute(f"SELECT * FROM {table} WHERE key = 'a' FOR UPDATE".encode())
        meanwhile = await repository.write([*changes, Change("d", None, free_row("d")), Change("e", "t0", None)])

    assert meanwhile == [None, True, True, True, False]
    assert await repository.write(changes[:1]) == [True]
    assert (await repository.read(["a"])).get("a") == row


@pytest.mark.parametrize(
    ("statement", "afterwards"),
    [
        ("UPDATE {} SET claimable_at = 77", True),  # an extension: the token is the same
        ("UPDATE {} SET token = 'other'", False),
        ("DELETE FROM {}", False),
    ],
)
@pytest.mark.parametrize("row", [CHANGED, None], ids=["changes", "deletes"])
@pytest.mark.anyio
async def test_what_another_client_does_to_a_row_is_respected_once_it_is_committed(  # noqa: PLR0917  # fixtures
    postgres_url: str, repository: Repository, table: str, row: Row | None, statement: str, afterwards: bool
) -> None:
    await insert(repository, free_row("a"))

    with psycopg.connect(postgres_url) as other, anyio.fail_after(5):
        other.execute(statement.format(table).encode())
        meanwhile = await repository.write([Change("a", "t0", row)])
        other.commit()

    assert meanwhile == [None]
    assert await repository.write([Change("a", "t0", row)]) == [afterwards]


@pytest.mark.anyio
async def test_an_insert_that_waits_for_another_applies_only_if_that_one_is_taken_back(
    postgres_url: str, repository: Repository, table: str
) -> None:
    statement = f"INSERT INTO {table} VALUES ('a', 'a', 1, 1, 'other', '', '')"

    applied = await write_while_another_client(
        repository, postgres_url, statement, [Change("a", None, CHANGED), Change("b", None, free_row("b"))]
    )

    assert applied == [False, True]
    assert (await repository.read(["a"]))["a"].token == "other"


@pytest.mark.anyio
async def test_two_writes_that_insert_the_same_rows_do_not_wait_for_each_other_crosswise(
    postgres_url: str, repository: Repository, table: str
) -> None:
    results: dict[str, Sequence[bool | None]] = {}

    async def write(name: str, *keys: str) -> None:
        results[name] = await repository.write([Change(key, None, free_row(key, token=name)) for key in keys])

    with psycopg.connect(postgres_url) as other:
        other.execute(f"INSERT INTO {table} VALUES ('a', 'a', 1, 1, 'other', '', '')".encode())
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write, "first", "a", "b")
            await until_waiting(postgres_url, table, 1)
            tasks.start_soon(write, "second", "b", "a")
            await until_waiting(postgres_url, table, 2)
            other.rollback()

    assert {tuple(applied) for applied in results.values()} == {(False, False), (True, True)}


async def until_waiting(url: str, table: str, number: int) -> None:
    """Returns once so many statements about the table wait for a lock.

    Raises:
        TimeoutError: They do not come to that number.
    """
    statement = f"SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%{table}%'"
    with connect(url) as watching, anyio.fail_after(10):
        while len(watching.execute(statement.encode()).fetchall()) != number:
            await anyio.sleep(0.01)


@pytest.mark.anyio
async def test_writes_that_wait_for_a_lock_too_long_fail_and_leave_nothing_behind_on_the_server(
    postgres_url: str, table: str
) -> None:
    async with postgres_repository(
        postgres_url=postgres_url,
        postgres_table_name=table,
        postgres_pool_size=2,
        postgres_command_timeout=PATIENCE,
    ) as repository:
        await insert(repository, free_row("b"))
        with psycopg.connect(postgres_url) as other:
            other.execute(f"INSERT INTO {table} VALUES ('a', 'a', 1, 1, 'other', '', '')".encode())
            for _ in range(3):
                with anyio.fail_after(5), pytest.raises(RepositoryError):
                    await repository.write([Change("a", None, CHANGED)])
                assert await repository.read(["b"]) == {"b": free_row("b")}
            await until_waiting(postgres_url, table, 0)
            other.rollback()
        stored = await repository.read(["a"])

    # What was reported as failed is not carried out afterwards.
    assert stored == {}


# --- values -----------------------------------------------------------------------------------------------------------

ODD = ["\U0001f600", "'", '"', "\\", "\\'", "%s", "%(key)s", "{table}", "$1", "a\nb\tc", "{}", "NULL", "\u202e", " "]


@pytest.mark.parametrize("text", [*ODD, "".join(ODD), "\u00e9" * 32_768], ids=range(len(ODD) + 2))
@pytest.mark.anyio
async def test_any_text_comes_back_as_it_was(repository: Repository, text: str) -> None:
    key = f"a:{text[:40]}"
    row = Row(key, "a", 1, 1, text[:40], text, text)
    await insert(repository, row)

    assert await repository.read([key]) == {key: row}
    assert list(await repository.list("a", "", 5)) == [row]
    claimed = (await repository.claim(requests("a"), 1, NOW, text[:40] + "2")).rows
    assert claimed == [row._replace(claimable_at=NOW + 1_000, token=text[:40] + "2")]
    assert await repository.write([Change(key, text[:40] + "2", None)]) == [True]


@pytest.mark.parametrize("instant", [-(2**62), -62_135_596_800_000_000, -1, 0, 253_402_300_799_999_999, 2**62])
@pytest.mark.anyio
async def test_any_instant_comes_back_as_it_was_and_is_claimed_when_it_has_come(
    repository: Repository, instant: int
) -> None:
    await insert(repository, free_row("a", instant))

    assert (await repository.claim(requests("a"), 1, instant - 1, "t1")).rows == []
    found = await repository.claim(requests("a"), 1, instant, "t1")
    assert found.now == instant
    assert found.rows == [free_row("a", instant)._replace(claimable_at=instant + 1_000, token="t1")]


@pytest.mark.parametrize(
    "row",
    [
        free_row("a", 2**63),
        free_row("a", -(2**63) - 1),
        free_row("a", 2**200),
        free_row("a", spec="a\0b"),
        free_row("a:\ud800"),
    ],
    ids=["instant", "negative instant", "huge instant", "NUL", "surrogate"],
)
@pytest.mark.anyio
async def test_what_the_server_cannot_hold_is_an_error_and_the_next_call_works(
    repository: Repository, row: Any
) -> None:
    with pytest.raises(RepositoryError):
        await repository.write([Change(row.key, None, row), Change("b", None, free_row("b"))])

    assert await repository.tasks() == []
    assert await repository.write([Change("b", None, free_row("b"))]) == [True]
