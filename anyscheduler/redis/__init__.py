"""The store in Redis: shared by any number of processes on any number of machines.

Knows: the options, how to wait for a server. Must not know: leases, triggers, commands.

`database.py` is plain synchronous code on redis-py, and `threaded.py` runs it. `keyspace.py` tells how rows are stored.
"""

from __future__ import annotations

import threading
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

try:
    import redis
except ModuleNotFoundError as error:
    if error.name != "redis":
        raise
    raise ModuleNotFoundError(
        'the Redis store needs redis-py: pip install "anyscheduler[redis]"', name="redis"
    ) from None

from anyscheduler import options
from anyscheduler.backoff import Backoff, Outage
from anyscheduler.redis.address import Address, parse
from anyscheduler.redis.connections import ERRORS, explain
from anyscheduler.redis.opening import open_database
from anyscheduler.threaded import ThreadedRepository

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from anyscheduler.redis.database import RedisDatabase
    from anyscheduler.repository import Repository

__all__ = ["redis_repository"]

_NAMESPACE_BYTES = 255


def redis_repository(
    *,
    redis_url: str,
    redis_namespace: str = "anyscheduler",
    redis_command_timeout: timedelta = timedelta(seconds=10),
    redis_max_connections: int = 4,
) -> AbstractAsyncContextManager[Repository]:
    """Returns a context manager that opens a Redis server (6.2 or newer), a Redis Cluster or a Valkey as the store.

    A server that cannot be reached is waited for, and said so once.

    Args:
        redis_url: `redis://[user:password@]host[:port][/db]`, or with `rediss://` for TLS;
            `unix:///path/to/socket?db=0`; `redis+sentinel://[user:password@]host:port,host:port/service[/db]`, where
            `?sentinel_username=&sentinel_password=` are for the Sentinels themselves. What is special in a user name or
            password is percent-encoded. A cluster is recognised by itself; any of its nodes will do.
        redis_namespace: Apps that are to share nothing can share a server under different namespaces: 1 to 255 bytes in
            UTF-8 without control characters.
        redis_command_timeout: How long a command may take, from 0.1 seconds to an hour; one that takes longer fails,
            and its connection is closed.
        redis_max_connections: How many commands may be under way at a time, from 1 to 1000. One more connection listens
            for what other processes schedule.

    Raises:
        ConfigurationError: The options are malformed (at this call), or the server refuses the password, lacks a right
            for this user, is too old, is a read-only replica, or holds something else (when it is opened). The URL is
            shown without its password.
    """
    address = parse(redis_url)
    namespace: object = redis_namespace
    if (
        not isinstance(namespace, str)
        or not namespace.isprintable()
        or not 0 < len(namespace.encode()) <= _NAMESPACE_BYTES
    ):
        options.refuse("redis_namespace", namespace, f"1 to {_NAMESPACE_BYTES} bytes without control characters")
    timeout = options.duration(
        "redis_command_timeout", redis_command_timeout, timedelta(milliseconds=100), timedelta(hours=1)
    )
    connections = options.whole_number("redis_max_connections", redis_max_connections, 1, 1000)
    return _open(address, redis_namespace, timeout.total_seconds(), connections)


@asynccontextmanager
async def _open(address: Address, namespace: str, patience: float, max_connections: int) -> AsyncIterator[Repository]:
    backoff = Backoff("opening Redis", Outage())
    work = partial(open_database, address, namespace, timeout=patience, max_connections=max_connections)
    database = None
    while database is None:
        try:
            database = await _open_in_thread(work)
        except ERRORS as error:
            await anyio.sleep(backoff.failed(redis.ConnectionError(f"{address.shown}: {explain(error)}")))
    backoff.succeeded()
    description = f"Redis {address.shown}, namespace {namespace!r}"
    repository = ThreadedRepository(database, description, threads=max_connections, patience=patience, explain=explain)
    try:
        yield repository
    finally:
        await repository.close()


async def _open_in_thread(work: Callable[[], RedisDatabase]) -> RedisDatabase:
    """Opens it in a thread; who waits for that can be cancelled, and the thread then closes what it still opens."""
    cancelled = threading.Event()

    def open_or_close() -> RedisDatabase:
        database = work()
        if cancelled.is_set():
            database.close()
        return database

    try:
        return await anyio.to_thread.run_sync(open_or_close, limiter=anyio.CapacityLimiter(1), abandon_on_cancel=True)
    except anyio.get_cancelled_exc_class():
        cancelled.set()
        raise
