"""Measures what the server itself is capable of: the least that a scheduler asks of it, over one connection.

For batches of a hundred rows that are due: claim them, then write when each is due next. Nothing is scheduled, run or
checked, so no scheduler that asks in batches of this size from one connection can be faster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import psycopg
import redis

from tests.benchmarks import measuring

if TYPE_CHECKING:
    import argparse

BATCH = 100
LEASED, NEXT = 10**12, 10**15
"""Later than all that is due, as the ends of leases and the next due times are."""

Result: TypeAlias = dict[str, object]


def postgres(url: str, count: int) -> Result:
    """Measures two statements per batch, each a transaction of its own."""
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
        left, watch = count, measuring.Stopwatch()
        while left:
            claimed = connection.execute(claim, [LEASED, count, BATCH]).fetchall()
            connection.execute(update, [[row[0] for row in claimed], [NEXT] * len(claimed)])
            assert claimed
            left -= len(claimed)
        return {**watch.read(), "executions": count}


REDIS_CLAIM = """
local keys = redis.call('ZRANGE', KEYS[1], '-inf', ARGV[1], 'BYSCORE', 'LIMIT', 0, ARGV[2])
local scores = {}
for _, key in ipairs(keys) do
    scores[#scores + 1] = ARGV[3]
    scores[#scores + 1] = key
end
redis.call('ZADD', KEYS[1], unpack(scores))
return {keys, redis.call('HMGET', KEYS[2], unpack(keys))}
"""

REDIS_UPDATE = """
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


def of_redis(url: str, count: int) -> Result:
    """Measures two scripts per batch; a sorted set tells what is due, a hash has the rows, of 100 bytes each."""
    index, rows = keys = ["{raw}:index", "{raw}:rows"]
    with redis.Redis.from_url(url) as client:
        instances = [f"task:instance-{number}" for number in range(count)]
        client.zadd(index, {instance: number for number, instance in enumerate(instances)})
        client.hset(rows, mapping=dict.fromkeys(instances, "x" * 100))
        claim, update = client.register_script(REDIS_CLAIM), client.register_script(REDIS_UPDATE)
        left, watch = count, measuring.Stopwatch()
        while left:
            claimed = claim(keys, [count, BATCH, LEASED])
            update(keys, [NEXT, *(text for key_and_row in zip(*claimed, strict=True) for text in key_and_row)])
            left -= len(claimed[0])
        return {**watch.read(), "executions": count}


def main(given: argparse.Namespace) -> None:
    """Runs the one measurement that there is."""
    assert given.measurement == "drain"
    measure = {"postgres": postgres, "redis": of_redis}[given.store]
    measuring.report(measure(given.url, given.count))


if __name__ == "__main__":
    main(measuring.arguments())
