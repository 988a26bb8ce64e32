"""Empty stores to measure in, on servers that start when they are first needed.

Knows: how a server is made durable, and how an empty place on it is made. Must not know: who is measured there.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import psycopg
import psycopg.conninfo
import redis
from psycopg import sql

from tests.servers.postgres import PostgresServer, start_postgres
from tests.servers.redis import RedisServer, start_redis

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

Store: TypeAlias = Literal["memory", "sqlite", "postgres", "redis"]

STORES: dict[Store, str] = {"memory": "memory", "sqlite": "SQLite file", "postgres": "PostgreSQL", "redis": "Redis"}
"""All stores, and what they are called in the table."""


class Place(NamedTuple):
    """An empty store.

    Attributes:
        url: The URL or the path; "" for the one in memory.
        server: The process that serves it; None for those without one.
    """

    url: str
    server: int | None = None


class Stores(ExitStack):
    """Gives empty stores; closed, it ends the servers that it started."""

    def __enter__(self) -> Self:
        self._directory = Path(self.enter_context(TemporaryDirectory(prefix="benchmark-")))
        return self

    @contextmanager
    def empty(self, store: Store) -> Iterator[Place]:
        """Gives an empty store, and removes it afterwards."""
        match store:
            case "memory":
                yield Place("")
            case "sqlite":
                with TemporaryDirectory(dir=self._directory, ignore_cleanup_errors=True) as directory:
                    yield Place(str(Path(directory, "schedules.db")))
            case "postgres":
                with self._empty_database() as url:
                    yield Place(url, self._postgres.pid)
            case "redis":
                with redis.Redis.from_url(self._redis.url) as client:
                    client.flushall()
                yield Place(self._redis.url, self._redis.pid)

    def calm(self, store: Store, place: Place) -> None:
        """Has the server finish what it does some time after many rows were written, and would otherwise do later."""
        match store:
            case "postgres":
                with psycopg.connect(place.url, autocommit=True) as connection:
                    busy = "SELECT FROM pg_stat_activity WHERE backend_type = 'autovacuum worker'"
                    connection.execute("VACUUM ANALYZE")
                    connection.execute("CHECKPOINT")
                    while connection.execute(busy).fetchone():
                        time.sleep(0.1)
            case "redis":
                with redis.Redis.from_url(place.url) as client:
                    while client.info("persistence")["aof_rewrite_in_progress"]:
                        time.sleep(0.1)
            case "memory" | "sqlite":
                pass

    @contextmanager
    def vacuuming_often(self) -> Iterator[None]:
        """Has PostgreSQL look every 2 s, not minute, for what to vacuum: for an hour that passes in two minutes."""
        with psycopg.connect(self._postgres.url, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET autovacuum_naptime = '2s'")
            connection.execute("SELECT pg_reload_conf()")
            try:
                yield
            finally:
                connection.execute("ALTER SYSTEM RESET autovacuum_naptime")
                connection.execute("SELECT pg_reload_conf()")

    # What a service would have: nothing that was committed is lost, and memory for the rows. The rest are PostgreSQL's
    # defaults; the zone is that of most servers.
    @cached_property
    def _postgres(self) -> PostgresServer:
        settings = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "timezone": "UTC"}
        return self.enter_context(start_postgres(self._directory, shared_buffers="256MB", **settings))

    # The append-only file alone: a snapshot that falls into somebody's turn would be charged to them.
    @cached_property
    def _redis(self) -> RedisServer:
        return self.enter_context(start_redis(self._directory, appendonly="yes", appendfsync="everysec", save='""'))

    @contextmanager
    def _empty_database(self) -> Iterator[str]:
        url = self._postgres.new_database()
        name = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
        with psycopg.connect(self._postgres.url, autocommit=True) as connection:
            # What others wrote before is not written back in this turn.
            connection.execute("CHECKPOINT")
            try:
                yield url
            finally:
                connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(str(name))))
