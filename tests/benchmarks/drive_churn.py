"""Moves all rows of a table in PostgreSQL again and again, as schedules that recur do, and measures what a claim costs.

Through the repository alone: a worker with bodies would spend its time elsewhere.
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

import anyio
import psycopg

from anyscheduler import lease
from anyscheduler.postgres import postgres_repository
from anyscheduler.repository import ClaimRequest
from tests.benchmarks import measuring

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from typing import LiteralString

    from anyscheduler.repository import Repository

WORN, FRESH = "worn", "fresh"
BATCH = 100
STORED_AT_ONCE = 1_000
BEGIN = 1_800_000_000_000_000
INTERVAL = 36_000_000
"""Microseconds from one occurrence to the next: a hundred of them are an hour."""
LEASE = ClaimRequest("noop", 60_000_000)


async def churn(given: argparse.Namespace) -> dict[str, object]:
    """Claims and commits each of `count` rows `rounds` times, and once more beside those of a table that is fresh.

    In turn, because a machine is not as fast in one minute as in another. Reports the median cost of a claim in either
    table, in milliseconds, and the size of the first one with its indexes before and after each round, in MiB.
    """
    sizes = []
    async with (
        postgres_repository(postgres_url=given.url, postgres_table_name=WORN) as worn,
        postgres_repository(postgres_url=given.url, postgres_table_name=FRESH) as fresh,
    ):
        with psycopg.connect(given.url, autocommit=True) as connection:
            await store(worn, given.count, connection, WORN)
            sizes.append(size(connection))
            for number in range(given.rounds):
                for now in instants(number, given.count):
                    await move(worn, now)
                sizes.append(size(connection))
            await store(fresh, given.count, connection, FRESH)
        costs = [
            (await move(worn, now_worn), await move(fresh, now_fresh))
            for now_worn, now_fresh in zip(instants(given.rounds, given.count), instants(0, given.count), strict=True)
        ]
    of_worn, of_fresh = map(statistics.median, zip(*costs, strict=True))
    return {"worn": of_worn, "fresh": of_fresh, "sizes": sizes}


async def store(
    repository: Repository, count: int, connection: psycopg.Connection[tuple[int]], table: LiteralString
) -> None:
    """Stores the rows, which are due one after the other, and has them vacuumed."""
    for start in range(0, count, STORED_AT_ONCE):
        numbers = range(start, min(start + STORED_AT_ONCE, count))
        rows = [
            lease.register(f"noop:instance-{n}", "noop", BEGIN + n * INTERVAL // count, lease.new_token(BEGIN, n))
            for n in numbers
        ]
        written = await repository.write([lease.Change(row.key, None, row) for row in rows])
        assert all(written)
    connection.execute("VACUUM ANALYZE " + table)


def instants(number: int, count: int) -> Iterator[int]:
    """Yields for each batch in the given round of occurrences when all of it is due."""
    begin = BEGIN + number * INTERVAL
    for batch in range(count // BATCH):
        yield begin + (batch + 1) * BATCH * INTERVAL // count


async def move(repository: Repository, now: int) -> float:
    """Claims a batch and commits it, and returns what the claim cost."""
    started = time.perf_counter()
    claimed = await repository.claim([LEASE], BATCH, now, lease.new_token(now, 0))
    cost = (time.perf_counter() - started) * 1e3
    assert len(claimed.rows) == BATCH, len(claimed.rows)
    token = lease.new_token(now, 1)
    written = await repository.write([lease.commit(row, row.due_at + INTERVAL, token) for row in claimed.rows])
    assert all(written)
    return cost


def size(connection: psycopg.Connection[tuple[int]]) -> float:
    """Returns what the table that is worn and its indexes take on the disk, MiB."""
    found = connection.execute("SELECT pg_total_relation_size(%s)", [WORN]).fetchone()
    assert found is not None
    return found[0] / 2**20


def main(given: argparse.Namespace) -> None:
    """Runs the one measurement that there is."""
    assert (given.measurement, given.store) == ("churn", "postgres")
    measuring.report(anyio.run(churn, given, backend=given.backend))


if __name__ == "__main__":
    main(measuring.arguments())
