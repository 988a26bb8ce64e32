"""A namespace in a real Redis, as the store sees it and as somebody with redis-cli does."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from anyscheduler.lease import Change, Row, register
from anyscheduler.redis.address import parse
from anyscheduler.redis.opening import open_database
from anyscheduler.repository import Claimed, ClaimRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anyscheduler.redis.database import RedisDatabase

LEASE = 60_000_000
"""What `claim` asks for, in microseconds."""

NEVER_DUE = 10**16
"""In the year 2286."""


RIGHTS = [
    f"+{name}"
    for name in (
        *("evalsha", "eval", "time", "hset", "hdel", "hmget", "hlen", "hscan", "zadd", "zrem", "zcard", "zscore"),
        *("zrange", "zrangebyscore", "zrangebylex", "zlexcount", "zscan", "sadd", "srem", "smembers", "sismember"),
        *("exists", "del", "set", "get", "publish", "subscribe", "client|setname", "select", "info", "config|get"),
        *("cluster|slots", "command", "asking"),
    )
]
"""What the documentation tells an administrator to grant."""


@contextmanager
def opened(url: str, namespace: str = "anyscheduler", **options: Any) -> Iterator[RedisDatabase]:
    """Opens a namespace, as another process would."""
    database = open_database(parse(url), namespace, **{"timeout": 10.0, "max_connections": 4, **options})
    try:
        yield database
    finally:
        database.close()


def claim(database: RedisDatabase, *tasks: str, limit: int = 100, now: int | None = None, token: str = "t1") -> Claimed:
    """Claims for `LEASE`."""
    return database.claim([ClaimRequest(task, LEASE) for task in tasks], limit, now, token)


def keys_of(claimed: Claimed) -> list[str]:
    """Returns the keys of what was claimed, in order."""
    return [row.key for row in claimed.rows]


def due_row(key: str, due_at: int = 0, token: str = "t0") -> Row:
    """Returns a row that nobody holds."""
    return register(key, key.partition(":")[0], due_at, token, spec='{"v":1}')


def insert(database: RedisDatabase, *rows: Row) -> None:
    """Stores rows that must not be there yet."""
    for start in range(0, len(rows), 1_000):
        batch = rows[start : start + 1_000]
        assert database.write([Change(row.key, None, row) for row in batch]) == [True] * len(batch)


def calls(redis: Any) -> dict[str, int]:
    """Returns how often each command was executed, inside of scripts too, since `config_resetstat`."""
    return {name.removeprefix("cmdstat_"): int(stats["calls"]) for name, stats in redis.info("commandstats").items()}
