"""Measures what the server itself is capable of: the least that a scheduler asks of it, over one connection.

For batches of a hundred rows that are due: claim them, then write when each is due next. Nothing is scheduled, run or
checked, so no scheduler that asks in batches of this size from one connection can be faster. In memory: spawn a body
that does nothing, after taking a slot for it. Of lateness: the claim alone, sent on the second after a second's rest.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import anyio
import psycopg
import redis

from tests.benchmarks import measuring

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

BATCH = 100
LEASED, NEXT = 10**12, 10**15
"""Later than all that is due, as the ends of leases and the next due times are."""

Result: TypeAlias = dict[str, object]


class Calls(NamedTuple):
    """The two things that are asked of a store, each a transaction of its own.

    Attributes:
        claim: Takes a hundred rows that are due until the first instant, leaves them due at the second, returns them.
        update: Writes when rows that were claimed are due next.
    """

    claim: Callable[[int, int], Sequence[Any]]
    update: Callable[[Sequence[Any]], object]


@contextmanager
def postgres(url: str, count: int) -> Iterator[Calls]:
    """Fills a table with two columns."""
    claim = (
        "UPDATE raw SET due_at = %s WHERE id IN "
        "(SELECT id FROM raw WHERE due_at <= %s ORDER BY due_at FOR UPDATE SKIP LOCKED LIMIT %s) RETURNING id, due_at"
    )
    update = (
        "UPDATE raw SET due_at = new.due_at FROM unnest(%s::bigint[], %s::bigint[]) AS new (id, due_at) "
        "WHERE raw.id = new.id"
    )
    with psycopg.connect(url, autocommit=True, prepare_threshold=0) as connection:
        connection.execute("CREATE TABLE raw (id bigint PRIMARY KEY, due_at bigint NOT NULL)")
        connection.execute("CREATE INDEX ON raw (due_at)")
        connection.execute("INSERT INTO raw SELECT n, n FROM generate_series(1, %s) AS n", [count])
        connection.execute("ANALYZE raw")
        yield Calls(
            lambda until, leased: connection.execute(claim, [leased, until, BATCH]).fetchall(),
            lambda claimed: connection.execute(update, [[row[0] for row in claimed], [NEXT] * len(claimed)]),
        )


REDIS_CLAIM = """
local keys = redis.call('ZRANGE', KEYS[1], '-inf', ARGV[1], 'BYSCORE', 'LIMIT', 0, ARGV[2])
local rows = {}
for place, key in ipairs(keys) do
    redis.call('ZADD', KEYS[1], ARGV[3], key)
    rows[place] = redis.call('HGET', KEYS[2], key)
end
return {keys, rows}
"""

REDIS_UPDATE = """
for i = 2, #ARGV, 2 do
    redis.call('ZADD', KEYS[1], ARGV[1], ARGV[i])
    redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
end
"""

REDIS_CLAIM_BATCHED = """
local keys = redis.call('ZRANGE', KEYS[1], '-inf', ARGV[1], 'BYSCORE', 'LIMIT', 0, ARGV[2])
local scores = {}
for _, key in ipairs(keys) do
    scores[#scores + 1] = ARGV[3]
    scores[#scores + 1] = key
end
redis.call('ZADD', KEYS[1], unpack(scores))
return {keys, redis.call('HMGET', KEYS[2], unpack(keys))}
"""

REDIS_UPDATE_BATCHED = """
local scores, rows = {}, {}
for i = 2, #ARGV, 2 do
    scores[#scores + 1] = ARGV[1]
    scores[#scores + 1] = ARGV[i]
    rows[#rows + 1] = ARGV[i]
    rows[#rows + 1] = ARGV[i + 1]
end
redis.call('ZADD', KEYS[1], unpack(scores))
redis.call('HSET', KEYS[2], unpack(rows))
"""


@contextmanager
def of_redis(url: str, count: int, scripts: tuple[str, str]) -> Iterator[Calls]:
    """Fills a sorted set that tells what is due, and a hash with the rows, of 100 bytes each."""
    index, rows = keys = ["{raw}:index", "{raw}:rows"]
    with redis.Redis.from_url(url) as client:
        instances = [f"task:instance-{number}" for number in range(count)]
        client.zadd(index, {instance: number for number, instance in enumerate(instances)})
        client.hset(rows, mapping=dict.fromkeys(instances, "x" * 100))
        claim, update = map(client.register_script, scripts)
        yield Calls(
            lambda until, leased: list(zip(*claim(keys, [until, BATCH, leased]), strict=True)),
            lambda claimed: update(keys, [NEXT, *chain.from_iterable(claimed)]),
        )


@contextmanager
def sqlite(path: str, count: int) -> Iterator[Calls]:
    """Fills a table in a file."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("CREATE TABLE raw (key TEXT PRIMARY KEY, due_at INTEGER NOT NULL, row TEXT NOT NULL)")
    connection.execute("CREATE INDEX due ON raw (due_at)")
    instances = ((f"task:instance-{number}", number, "x" * 100) for number in range(count))
    connection.execute("BEGIN")
    connection.executemany("INSERT INTO raw VALUES (?, ?, ?)", instances)
    connection.execute("COMMIT")
    claim = (
        "UPDATE raw SET due_at = ? WHERE key IN (SELECT key FROM raw WHERE due_at <= ? ORDER BY due_at LIMIT ?) "
        "RETURNING key, row"
    )

    def update(claimed: Sequence[Any]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(
            "UPDATE raw SET due_at = ?, row = ? WHERE key = ?", [(NEXT, row, key) for key, row in claimed]
        )
        connection.execute("COMMIT")

    yield Calls(lambda until, leased: connection.execute(claim, [leased, until, BATCH]).fetchall(), update)
    connection.close()


def drain(calls: Calls, count: int) -> Result:
    """Measures how long it takes to claim and to write all rows, a hundred at a time."""
    left, watch = count, measuring.Stopwatch()
    while left:
        claimed = calls.claim(count, LEASED)
        calls.update(claimed)
        assert claimed
        left -= len(claimed)
    return {**watch.read(), "executions": count}


def tick(calls: Calls, begin: float, seconds: int) -> Result:
    """Measures how late a claim of a hundred rows is answered that is sent on the second, one each second."""
    starts: list[tuple[str, float, float]] = []
    for turn in range(seconds + 1):
        due = begin + turn - 1  # the first one is for practice
        time.sleep(max(0.0, due - time.time() - 0.002))
        while time.time() < due:
            pass
        claimed = calls.claim(LEASED + turn, LEASED + turn + 1)
        late = (time.time() - due) * 1e3
        assert len(claimed) == BATCH
        if turn:
            starts += [(f"tick-{number}", due, late) for number in range(BATCH)]
    return {"starts": starts}


async def spawn(count: int) -> Result:
    """Measures the start of `count` bodies that do nothing, a hundred at a time."""
    slots = anyio.CapacityLimiter(BATCH)

    async def noop(slot: int) -> None:
        slots.release_on_behalf_of(slot)

    watch = measuring.Stopwatch()
    async with anyio.create_task_group() as group:
        for slot in range(count):
            await slots.acquire_on_behalf_of(slot)
            group.start_soon(noop, slot)
    return {**watch.read(), "executions": count}


def insert_into_redis(url: str, count: int) -> Result:
    """Measures the insertion of rows of 200 bytes, and of their entries in a sorted set, five hundred in a pipeline."""
    with redis.Redis.from_url(url) as client:
        watch = measuring.Stopwatch()
        for begin in range(0, count, 500):
            pipeline = client.pipeline(transaction=False)
            for number in range(begin, min(begin + 500, count)):
                pipeline.hset("{raw}:rows", f"task:instance-{number}", "x" * 200)
                pipeline.zadd("{raw}:index", {f"task:instance-{number}": NEXT})
            pipeline.execute()
        return {**watch.read(), "executions": count}


def insert_into_postgres(url: str, count: int) -> Result:
    """Measures the insertion of rows like those of a schedule, five hundred in a statement."""
    with psycopg.connect(url, autocommit=True, prepare_threshold=0) as connection:
        connection.execute(
            "CREATE TABLE raw (key text PRIMARY KEY, task text, due_at bigint, claimable_at bigint, token text, "
            "spec text, state text)"
        )
        connection.execute("CREATE INDEX ON raw (task, claimable_at, key)")
        spec = '{"v":1,"execute_at":1800000000000000}'
        watch = measuring.Stopwatch()
        for begin in range(0, count, 500):
            rows = [
                (f"noop:instance-{number}", "noop", NEXT, NEXT, f"{number:031x}", spec, "")
                for number in range(begin, min(begin + 500, count))
            ]
            connection.execute(
                "INSERT INTO raw SELECT * FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::bigint[], "
                "%s::text[], %s::text[], %s::text[])",
                [list(column) for column in zip(*rows, strict=True)],
            )
        return {**watch.read(), "executions": count}


def main(given: argparse.Namespace) -> None:
    """Runs the measurement that was asked for on the store that was asked for."""
    result: Result = {}
    match given.measurement, given.store:
        case "drain", "memory":
            result = anyio.run(spawn, given.count, backend=given.backend)
        case "insert", "redis":
            result = insert_into_redis(given.url, given.count)
        case "insert", "postgres":
            result = insert_into_postgres(given.url, given.count)
        case measurement, store:
            with calls_of(store, given) as calls:
                is_drain = measurement == "drain"
                assert is_drain or measurement == "lateness"
                result = drain(calls, given.count) if is_drain else tick(calls, given.begin, int(given.seconds))
    measuring.report(result)


def calls_of(store: str, given: argparse.Namespace) -> AbstractContextManager[Calls]:
    """Returns what fills the store that was asked for."""
    match store:
        case "sqlite":
            return sqlite(given.url, given.count)
        case "postgres":
            return postgres(given.url, given.count)
        case _:
            scripts = (REDIS_CLAIM_BATCHED, REDIS_UPDATE_BATCHED) if given.tuned else (REDIS_CLAIM, REDIS_UPDATE)
            return of_redis(given.url, given.count, scripts)


if __name__ == "__main__":
    main(measuring.arguments())
