"""The store of a soak: a server of its own behind a proxy, or a file; what can be done to it, and what lies in it.

Knows: servers, how each store keeps its index. Must not know: workers, when anything is done.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any

import anyio
from redis import Redis

from anyscheduler import lease
from anyscheduler.redis.keyspace import Keyspace, decode_key, task_of
from tests.process.workers import Store
from tests.servers.postgres import start_postgres
from tests.servers.proxy import Proxy
from tests.servers.redis import start_redis

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from anyscheduler.lease import Row
    from tests.servers.process import Server
    from tests.soak.plan import Cut

_URL = {"redis": "redis_url", "postgres": "postgres_url"}


class Place:
    """Where the schedules of one soak are.

    Attributes:
        options: What the workers are given for it; they come through the proxy.
    """

    def __init__(self, store: Store, server: Server | None, proxy: Proxy | None) -> None:
        self._store = store
        self._server = server
        self._proxy = proxy
        self._restarting = threading.Lock()
        self._network = threading.Lock()
        self.options: dict[str, Any] = dict(store.options)
        if proxy is not None:
            url = _URL[store.kind]
            self.options[url] = proxy.url(store.options[url])

    def restart(self, seconds: float, *, crash: bool) -> None:
        """Ends the server, without notice if it is to `crash`, and starts it again after so many seconds."""
        assert self._server is not None
        with self._restarting:
            if crash:
                self._server.kill()
            else:
                self._server.stop()
            time.sleep(seconds)
            self._server.start()

    def cut(self, cut: Cut) -> None:
        """Does to the connections of the workers what `Cut` describes, and returns when it is over."""
        assert self._proxy is not None
        with self._network:
            match cut.kind:
                case "hold":
                    self._proxy.hold()
                    time.sleep(cut.seconds)
                    self._proxy.release()
                case "refuse":
                    self._proxy.refuse()
                    self._proxy.cut()
                    time.sleep(cut.seconds)
                    self._proxy.accept()
                case _:
                    self._proxy.cut()

    def hold(self, seconds: float, *, writes: bool) -> None:
        """Keeps a transaction open on the SQLite file."""
        with closing(sqlite3.connect(self._store.options["sqlite_database"], isolation_level=None, timeout=30)) as held:
            held.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
            held.execute("SELECT count(*) FROM anyscheduler").fetchone()
            time.sleep(seconds)
            held.execute("ROLLBACK")

    def damage(self, key: str) -> None:
        """Stores a row that cannot be executed."""
        now = time.time_ns() // 1000
        row = lease.register(key, task_of(key), now, lease.new_token(now, 0), spec='{"v":1,"interval":')

        async def write() -> None:
            async with self._store.open() as repository:
                assert await repository.write([lease.Change(key, None, row)]) == [True]

        anyio.run(write)

    def rows(self) -> dict[str, Row]:
        """Returns everything that is stored, by key."""
        return self._store.rows()

    def orphans(self) -> list[str]:
        """Returns what in the index has no row, and which rows are not in it as they should be, each in words."""
        match self._store.kind:
            case "redis":
                return _orphans_of_redis(self._store.options, self.rows())
            case "sqlite":
                with closing(sqlite3.connect(self._store.options["sqlite_database"])) as connection:
                    found = [str(problem) for (problem,) in connection.execute("PRAGMA integrity_check")]
                return [] if found == ["ok"] else found
            case _:
                return []  # the server alone writes its indexes


@contextmanager
def open_place(kind: str, directory: Path) -> Iterator[Place]:
    """Starts what a store of this kind needs, with its files in a directory, and ends it in the end."""
    with ExitStack() as stack:
        match kind:
            case "sqlite":
                yield Place(Store.sqlite(directory / "schedule.db"), None, None)
            case "redis":
                redis = stack.enter_context(start_redis(directory, appendfsync="always"))
                proxy = stack.enter_context(Proxy("127.0.0.1", redis.port))
                yield Place(Store("redis", {"redis_url": redis.url, "redis_namespace": "soak"}), redis, proxy)
            case _:
                # No power is cut here: what the server has told the system survives its own end.
                postgres = stack.enter_context(start_postgres(directory, fsync="off", full_page_writes="off"))
                proxy = stack.enter_context(Proxy("127.0.0.1", postgres.port))
                yield Place(Store.postgres(postgres.url), postgres, proxy)


def _orphans_of_redis(options: dict[str, Any], rows: dict[str, Row]) -> list[str]:
    shard = Keyspace(options["redis_namespace"]).main
    redis: Any
    with closing(Redis.from_url(options["redis_url"])) as redis:
        listed = {decode_key(key) for key in redis.zrange(shard.keys, 0, -1)}
        tasks = {decode_key(task) for task in redis.smembers(shard.tasks)} | {
            task_of(key) for key in rows.keys() | listed
        }
        entries = [entry for task in tasks for entry in redis.zrange(shard.due(task), 0, -1, withscores=True)]
    due = {decode_key(key): int(score) for key, score in entries}
    return [
        *(f"{key!r} is listed, and has no row" for key in sorted(listed - rows.keys())),
        *(f"{key!r} is to be claimed, and has no row" for key in sorted(due.keys() - rows.keys())),
        *(f"the row of {key!r} is not listed" for key in sorted(rows.keys() - listed)),
        *(f"the row of {key!r} is nowhere to be claimed" for key in sorted(rows.keys() - due.keys())),
        *(
            f"{key!r} is to be claimed from {due[key]} on, and its row from {rows[key].claimable_at} on"
            for key in sorted(rows.keys() & due.keys())
            if due[key] != rows[key].claimable_at
        ),
    ]
