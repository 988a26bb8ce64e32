"""What the servers and the proxy for tests can do, so that a test of anyscheduler that fails does not fail for them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import psutil
import psycopg
import pytest
from redis import Redis, RedisCluster
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

from tests.servers.guard import Guard, is_alive
from tests.servers.postgres import PostgresServer, start_postgres
from tests.servers.process import (
    HOST,
    PASSWORD,
    QUOTED_PASSWORD,
    PortTakenError,
    ServerFailedError,
    start_on_free_port,
    wait_until,
)
from tests.servers.proxy import Proxy, new_certificate
from tests.servers.redis import RedisServer, client, start_redis, start_redis_cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.servers.process import Server

_A_WHILE = 0.3
"""Seconds after which something that is prevented still must not have happened; it takes a millisecond otherwise."""


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    with start_postgres(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with start_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(params=["postgres", "redis"])
def server(request: pytest.FixtureRequest) -> Server:
    """Each of the two, running."""
    running: Server = request.getfixturevalue(request.param)
    return running


def connect(url: str) -> Any:
    """Opens a connection to whichever server the URL is of."""
    if url.startswith("postgres"):
        return psycopg.connect(url, autocommit=True, connect_timeout=60)
    with ExitStack() as failed:
        connection = Redis.from_url(url, single_connection_client=True, retry=Retry(NoBackoff(), 0))
        failed.callback(connection.close)
        ask(connection)
        failed.pop_all()
    return connection


def ask(connection: Any) -> None:
    """Makes one round trip."""
    if isinstance(connection, Redis):
        assert connection.ping()
    else:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def url_of(server: Any) -> str:
    url: str = server.url
    return url


BROKEN = (psycopg.OperationalError, RedisConnectionError)


def hangs_until(end: Callable[[], None], action: Callable[[], None]) -> bool:
    """Returns whether the action was still under way a while after it began; calls `end` and waits for it."""
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(action)
        time.sleep(_A_WHILE)
        hung = not under_way.done()
        end()
        under_way.result()
    return hung


def test_postgres_keeps_its_data_when_it_is_restarted_and_when_it_crashes(postgres: PostgresServer) -> None:
    database = postgres.new_database()
    with connect(database) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS number")
    postgres.restart()
    with connect(database) as connection:
        connection.execute("INSERT INTO kept VALUES (2)")
    postgres.kill()
    postgres.start()
    with connect(database) as connection:
        assert connection.execute("SELECT number FROM kept ORDER BY 1").fetchall() == [(1,), (2,)]


def test_redis_keeps_its_data_when_it_is_restarted_and_when_it_crashes(tmp_path: Path) -> None:
    with start_redis(tmp_path, appendfsync="always") as server:
        with client(server) as connection:
            connection.set("first", 1)
        server.restart()
        with client(server) as connection:
            connection.set("second", 2)
        server.kill()
        server.start()
        with client(server) as connection:
            assert connection.mget("first", "second") == [b"1", b"2"]


def test_an_ordinary_stop_of_postgres_waits_for_its_clients(postgres: PostgresServer) -> None:
    with connect(postgres.url) as connection:
        assert hangs_until(connection.close, lambda: postgres.stop(fast=False))
    postgres.start()


def test_settings_reach_the_server(tmp_path: Path) -> None:
    with start_postgres(tmp_path, max_connections="7") as postgres, connect(postgres.url) as connection:
        assert connection.execute("SHOW max_connections").fetchone() == ("7",)
    with start_redis(tmp_path, maxmemory_policy="allkeys-lru") as redis, client(redis) as connection:
        assert connection.config_get("maxmemory-policy") == {"maxmemory-policy": "allkeys-lru"}


def test_a_server_that_can_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(ServerFailedError, match="shared_buffers"), start_postgres(tmp_path, shared_buffers="none"):
        raise AssertionError
    with pytest.raises(ServerFailedError, match="maxmemory-policy"), start_redis(tmp_path, maxmemory_policy="none"):
        raise AssertionError
    assert list(tmp_path.iterdir()) == []


def test_a_port_that_somebody_else_has_is_told_apart(server: Server) -> None:
    server.stop()
    with socket.create_server((HOST, server.port)), pytest.raises(PortTakenError):
        server.start()
    server.start()


def test_a_server_whose_port_was_taken_meanwhile_gets_another(redis: RedisServer, tmp_path: Path) -> None:
    ports = [redis.port]
    home = tmp_path / "home"
    home.mkdir()
    with Guard(home, signal.SIGTERM) as guard:
        server = start_on_free_port(lambda port: RedisServer(home, ports.pop() if ports else port, guard, {}))
        assert server.port != redis.port
        with client(server) as connection:
            ask(connection)
        server.stop()


def test_each_new_database_is_empty(postgres: PostgresServer) -> None:
    first, second = postgres.new_database(), postgres.new_database()
    with connect(first) as connection:
        connection.execute("CREATE TABLE mine ()")
    with connect(second) as connection:
        assert connection.execute("SELECT to_regclass('mine')").fetchone() == (None,)


def test_nobody_comes_in_without_the_password(server: Server) -> None:
    with pytest.raises(BROKEN):
        connect(url_of(server).replace(QUOTED_PASSWORD, quote(PASSWORD[:-1], safe="")))


def test_redis_is_reached_through_its_socket_too(redis: RedisServer) -> None:
    with connect(f"unix://:{QUOTED_PASSWORD}@{redis.unix_path}") as connection:
        ask(connection)


def test_a_frozen_server_answers_when_it_is_thawed(server: Server) -> None:
    with connect(url_of(server)) as connection:
        server.freeze()
        assert hangs_until(server.thaw, lambda: ask(connection))


def test_a_frozen_server_takes_new_connections_when_it_is_thawed(server: Server) -> None:
    server.freeze()
    assert hangs_until(server.thaw, lambda: connect(url_of(server)).close())


def test_a_frozen_server_can_be_stopped(server: Server) -> None:
    server.freeze()
    server.stop()
    server.start()
    with connect(url_of(server)) as connection:
        ask(connection)


def test_a_proxy_cuts_connections_and_takes_new_ones(server: Server) -> None:
    with Proxy(HOST, server.port) as proxy, closing(connect(proxy.url(url_of(server)))) as connection:
        proxy.cut()
        with pytest.raises(BROKEN):
            ask(connection)
        with connect(proxy.url(url_of(server))) as another:
            ask(another)


def test_a_proxy_that_refuses_connections_keeps_those_it_has(server: Server) -> None:
    with Proxy(HOST, server.port) as proxy, connect(proxy.url(url_of(server))) as connection:
        proxy.refuse()
        with pytest.raises(BROKEN):
            connect(proxy.url(url_of(server)))
        ask(connection)
        proxy.accept()
        with connect(proxy.url(url_of(server))) as another:
            ask(another)


def test_a_proxy_holds_back_what_is_sent_until_it_is_released(server: Server) -> None:
    with Proxy(HOST, server.port) as proxy, connect(proxy.url(url_of(server))) as connection:
        proxy.hold()
        assert hangs_until(proxy.release, lambda: ask(connection))


def test_a_proxy_can_be_cut_while_it_holds_back(server: Server) -> None:
    with Proxy(HOST, server.port) as proxy, closing(connect(proxy.url(url_of(server)))) as connection:
        proxy.hold()
        with ThreadPoolExecutor(1) as pool:
            under_way = pool.submit(ask, connection)
            time.sleep(_A_WHILE)
            proxy.cut()
            assert isinstance(under_way.exception(), BROKEN)


def test_a_proxy_to_a_server_that_is_gone_closes_the_connection(server: Server) -> None:
    with Proxy(HOST, server.port) as proxy:
        server.stop()
        with pytest.raises(BROKEN):
            connect(proxy.url(url_of(server)))
        server.start()
        with connect(proxy.url(url_of(server))) as connection:
            ask(connection)


@pytest.mark.parametrize("without_notifications", [False, True])
def test_a_proxy_can_swallow_notifications_and_nothing_else(
    postgres: PostgresServer, without_notifications: bool
) -> None:
    proxy = Proxy(HOST, postgres.port, without_notifications=without_notifications)
    with proxy, connect(proxy.url(postgres.url)) as connection:
        connection.execute("LISTEN news")
        connection.execute("NOTIFY news, 'first'")
        rows = connection.execute("SELECT repeat('A', number) FROM generate_series(1, 1000) AS number").fetchall()
        assert rows == [("A" * number,) for number in range(1, 1001)]
        connection.execute("NOTIFY news, 'second'")
        told = [notification.payload for notification in connection.notifies(timeout=0)]
        assert told == ([] if without_notifications else ["first", "second"])


def test_a_proxy_speaks_tls_for_a_server_that_does_not(server: Server, tmp_path: Path) -> None:
    tls, authority = new_certificate(tmp_path)
    trusting = {
        "postgresql": f"?sslmode=verify-full&sslnegotiation=direct&sslrootcert={authority}",
        "redis": f"?ssl_ca_certs={authority}",
    }
    with Proxy(HOST, server.port, tls=tls) as proxy:
        url = proxy.url(url_of(server))
        with connect(url + trusting[url_of(server).partition(":")[0]]) as connection:
            ask(connection)
        with pytest.raises(BROKEN):  # neither in the clear, nor with an authority that is not trusted
            connect(url)


def test_a_cluster_takes_keys_of_all_its_slots(tmp_path: Path) -> None:
    with start_redis_cluster(tmp_path) as nodes:
        with RedisCluster.from_url(nodes[0].url) as cluster:
            for number in range(100):
                cluster.set(f"key {number}", number)
            cluster.disconnect_connection_pools()  # close() leaves them open
        stored = []
        for node in nodes:
            with client(node) as connection:
                stored.append(connection.dbsize())
        assert sum(stored) == 100
        assert all(stored)


_OWNER = """
import os, signal, sys, time
from pathlib import Path
from tests.servers import shared
from tests.servers.guard import family
from tests.servers.postgres import start_postgres
from tests.servers.redis import start_redis

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has its background jobs ignore it
shared.postgres_url(), shared.redis_url()
with start_postgres(Path(sys.argv[1])) as postgres, start_redis(Path(sys.argv[1])) as redis:
    postgres.freeze()
    redis.freeze()
    print(*[process.pid for process in family(os.getpid())[1:]], flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda end: end.name)
def test_no_server_outlives_its_owner(end: signal.Signals, tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    own_names = ("ANYSCHEDULER_TEST_POSTGRES_URL", "ANYSCHEDULER_TEST_REDIS_URL")
    environment = {name: value for name, value in os.environ.items() if name not in own_names}
    with subprocess.Popen(
        [sys.executable, "-c", _OWNER, tmp_path],
        cwd=root,
        env={**environment, "PYTHONPATH": str(root), "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as owner:
        assert owner.stdout is not None
        started = [psutil.Process(int(pid)) for pid in owner.stdout.readline().split()]
        assert len(started) > 8  # four servers with a guard each, and what PostgreSQL consists of
        owner.send_signal(end)
    wait_until(lambda: not any(map(is_alive, started)), "all servers are gone")
    assert list(tmp_path.iterdir()) == []
