"""What calls of the PostgreSQL store cost: counted in rows and blocks that the server touches, never in time."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from anyscheduler.lease import Change, Row
from anyscheduler.postgres import postgres_repository
from tests.conformance.postgres_tables import Effort, effort, execute, new_name
from tests.conformance.stores import free_row, requests

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyscheduler.repository import Repository

NOW = 1_000_000
FAR = 10**17
"""The first of the instants at which rows are due that are not due yet."""

BATCH = 20


@pytest.fixture
def anyio_backend() -> str:
    """One event loop: what a statement costs has nothing to do with it."""
    return "asyncio"


@pytest.fixture
def table(postgres_url: str) -> str:
    return new_name("cost")


@pytest.fixture
async def repository(postgres_url: str, table: str) -> AsyncIterator[Repository]:
    """A repository with one connection, on a table whose statistics nobody brings up to date behind the test's back."""
    async with postgres_repository(
        postgres_url=postgres_url,
        postgres_table_name=table,
        postgres_pool_size=1,
        postgres_command_timeout=timedelta(seconds=60),
    ) as opened:
        execute(postgres_url, f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
        yield opened
    execute(postgres_url, f"DROP TABLE {table} CASCADE")


def fill(url: str, table: str, number: int, *, task: str = "a", at: int = FAR) -> None:
    """Stores rows of one task, due at an instant and the microseconds after it."""
    execute(
        url,
        f"INSERT INTO {table} SELECT '{task}:filler-{at}-' || n, '{task}', {at} + n, {at} + n, 'filler', '', '' "
        f"FROM generate_series(1, {number}) AS n",
    )


async def round_of_calls(repository: Repository, size: int = BATCH) -> None:
    """Calls every operation, with `size` schedules that come and go."""
    keys = [f"a:{number}" for number in range(size)]
    assert all(await repository.write([Change(key, None, free_row(key, 1)) for key in keys], announce=True))
    claimed = (await repository.claim(requests("s", "a"), size, NOW, "t1")).rows
    assert sorted(row.key for row in claimed) == sorted(keys)
    later = [row._replace(due_at=2 * FAR, claimable_at=2 * FAR, token="t2") for row in claimed]
    assert all(await repository.write([Change(row.key, "t1", row) for row in later], announce=True))
    assert len(await repository.read(keys)) == size
    assert (await repository.claim(requests("s", "a"), size, None, "t3")).rows == []
    assert await repository.tasks() == ["a"]
    await repository.list("a", "a:5", 5)
    assert all(await repository.write([Change(key, "t2", None) for key in keys]))


async def cost_of_a_round(url: str, repository: Repository, table: str, size: int = BATCH) -> Effort:
    """Returns what a round costs once its statements are prepared, for the best of three of them."""
    costs = []
    for _ in range(3):
        before = effort(url, repository, table)
        await round_of_calls(repository, size)
        costs.append(effort(url, repository, table).since(before))
    return min(costs, key=lambda cost: cost.blocks)


@pytest.mark.anyio
async def test_calls_cost_the_same_with_a_million_rows_that_are_not_due(
    postgres_url: str, repository: Repository, table: str
) -> None:
    fill(postgres_url, table, 1_000)
    execute(postgres_url, f"VACUUM ANALYZE {table}")
    few = await cost_of_a_round(postgres_url, repository, table)
    execute(postgres_url, f"DELETE FROM {table}")
    fill(postgres_url, table, 1_000_000)
    execute(postgres_url, f"VACUUM ANALYZE {table}")
    many = await cost_of_a_round(postgres_url, repository, table)

    assert many.whole == 0
    assert many.entries <= few.entries + 50 * BATCH
    # An index is a level or two deeper, for each of the rows that are looked up one by one.
    assert many.blocks < 3 * few.blocks


# The planner takes the whole table for a good way as long as it is small. A plan that is kept, because its statement is
# prepared, must not go on to do so when the table has grown.
@pytest.mark.parametrize("rows_at_first", [0, 5, 300])
@pytest.mark.anyio
async def test_no_call_reads_the_whole_table_after_it_grew_under_statements_prepared_while_it_was_small(
    postgres_url: str, repository: Repository, table: str, rows_at_first: int
) -> None:
    fill(postgres_url, table, rows_at_first)
    if rows_at_first:
        execute(postgres_url, f"VACUUM ANALYZE {table}")
    for size in (BATCH, 1):
        for _ in range(12):  # from the sixth execution on, a plan may be kept
            await round_of_calls(repository, size)

    fill(postgres_url, table, 50_000, at=2 * FAR)

    for size in (BATCH, 1):
        cost = await cost_of_a_round(postgres_url, repository, table, size)
        assert cost.whole == 0
        assert cost.entries < 100 * BATCH


@pytest.mark.anyio
async def test_a_hundred_thousand_due_of_one_task_neither_cost_more_nor_delay_a_static_task(
    postgres_url: str, repository: Repository, table: str
) -> None:
    fill(postgres_url, table, 100_000, task="backlog", at=0)
    execute(postgres_url, f"INSERT INTO {table} VALUES ('static', 'static', {NOW}, {NOW}, 't0', '', '')")
    now = 10 * NOW
    await repository.claim(requests("backlog", "static"), 0, now, "t1")
    before = effort(postgres_url, repository, table)
    first = await repository.claim(requests("backlog", "static"), 100, now, "t1")
    cost = effort(postgres_url, repository, table).since(before)

    assert [row.key for row in first.rows[:3]] == ["backlog:filler-0-1", "static", "backlog:filler-0-2"]
    assert len(first.rows) == 100
    assert cost.whole == 0
    assert cost.entries < 3_000


@pytest.mark.anyio
async def test_claims_stay_cheap_and_the_table_small_while_its_rows_move_again_and_again(
    postgres_url: str, repository: Repository, table: str
) -> None:
    rows, moves = 5_000, 8

    def size() -> int:
        ((found,),) = execute(postgres_url, f"SELECT pg_total_relation_size('{table}')")
        return int(found)

    async def cost_of_a_claim(now: int) -> Effort:
        before = effort(postgres_url, repository, table)
        claimed = await repository.claim(requests("a"), 100, now, "t1")
        cost = effort(postgres_url, repository, table).since(before)
        assert len(claimed.rows) == 100
        assert all(await repository.write([Change(r.key, "t1", moved(r, now)) for r in claimed.rows]))
        return cost

    def moved(row: Row, now: int) -> Row:
        return row._replace(due_at=now + 1_000, claimable_at=now + 1_000, token="t2")

    fill(postgres_url, table, rows, at=0)
    execute(postgres_url, f"VACUUM ANALYZE {table}")
    fresh_size, now = size(), rows
    fresh = await cost_of_a_claim(now)
    for _ in range(moves):
        now += 10 * rows
        for _ in range(rows // 500):
            claimed = (await repository.claim(requests("a"), 500, now, "t1")).rows
            assert len(claimed) == 500
            assert all(await repository.write([Change(row.key, "t1", moved(row, now)) for row in claimed]))
        execute(postgres_url, f"VACUUM {table}")  # autovacuum's part, when it likes; here when the test does
    worn = await cost_of_a_claim(now + rows)

    assert size() < 3 * fresh_size
    assert worn.whole == 0
    assert worn.blocks < 2 * fresh.blocks
