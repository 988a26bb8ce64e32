"""URLs, paths, tables and namespaces that are none: refused when the option is given, without the password."""

from __future__ import annotations

import functools
import math
import traceback
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from anyscheduler import ConfigurationError, Scheduler
from anyscheduler.postgres import postgres_repository
from anyscheduler.redis import redis_repository
from anyscheduler.redis.address import parse
from anyscheduler.sqlite import sqlite_repository
from tests.bad_inputs.refusals import as_shown, label, refused

if TYPE_CHECKING:
    from collections.abc import Callable

SECRETS = ("canary", "ter2")
"""Parts of the passwords below, as they are and as a reader of URLs may cut them."""


def refused_for_good(give: Callable[[], object], *words: str) -> None:
    """Expects a refusal that shows no password, not even as what it was caused by."""
    with refused(*words):
        try:
            give()
        except ConfigurationError as error:
            told = "".join(traceback.format_exception(error, limit=0))
            assert [secret for secret in SECRETS if secret in told] == []
            raise


# --- Redis ------------------------------------------------------------------------------------------------------------

BAD_REDIS_URLS: list[Any] = [
    "",
    "localhost",
    "localhost:6379",
    "http://localhost",
    "postgres://localhost",
    "redis:localhost",
    "redis://",
    "redis:///0",
    "redis://:6379",
    "redis://localhost:99999",
    "redis://localhost:0",
    "redis://localhost:port",
    "redis://localhost/x",
    "redis://localhost/-1",
    "redis://localhost?db=x",
    "redis://localhost?bogus=1",
    "redis://localhost\n",
    "redis://[::1",
    "unix://",
    "unix://?db=0",
    "redis+sentinel://localhost:26379",
    "redis+sentinel://localhost:26379/",
    "redis+sentinel:///service",
    "redis+sentinel://a:1,,b:2/service",
    "redis+sentinel://a:99999/service",
    "redis+sentinel://a:0/service",
    "redis+sentinel://a:1/service/x",
    "redis+sentinel://a:1/service?bogus=1",
    None,
    5,
    True,
    b"redis://localhost",
    Path("/run/redis.sock"),
    # As many again: what is in the host or the path,
    "redis://h%00",
    "redis://h%0a",
    "redis://h%2fx",
    "redis://h h",
    "redis://h\t",
    "redis://[]",
    "redis://[zz]",
    "redis://::1",
    "redis://h:-1",
    "redis://h:1_0",
    "redis://h: 6379",
    "redis://h:\uff10",
    "redis://\u202eh",
    "redis://h/1e1",
    "redis://h/+1",
    "redis://h/0/0",
    "redis://h/9999999999",
    "redis://h/\uff11",
    "redis://h/0#fragment",
    "redis:///",
    "redis:/h",
    "redis2://h",
    "://h",
    "\ud800",
    "unix:///run/%00",
    # and in the query.
    "redis://h?a",
    "redis://h?=",
    "redis://h?&",
    "redis://h?db=",
    "redis://h?db=-1",
    "redis://h?db=True",
    "redis://h?db=1e400",
    "redis://h?host=other",
    "redis://h?port=99999",
    "redis://h?path=/x",
    "redis://h?protocol=9",
    "redis://h?health_check_interval=x",
    "redis://h?max_connections=5",
    "redis://h?timeout=5",
    "redis://h?socket_type=x",
    "redis://h?socket_read_size=0",
    "redis://h?socket_keepalive_options=x",
    "redis://h?redis_connect_func=x",
    "redis://h?command_packer=x",
    "redis://h?maint_notifications_config=x",
    "redis://h?connection_class=x",
    "redis://h?decode_responses=1",
    "redis://h?encoding=nonsense",
    "redis://h?ssl_cert_reqs=none",
    "rediss://h?ssl_cert_reqs=bogus",
    "redis+sentinel://a/service?db=-1",
    "redis+sentinel://a/service?host=other",
    "redis+sentinel://a/service?sentinel_socket_type=x",
    "redis+sentinel://a/service?sentinel_decode_responses=1",
    ["redis://h"],
    math.inf,
]


@pytest.mark.parametrize("url", BAD_REDIS_URLS, ids=label)
def test_a_bad_redis_url_is_refused_when_the_option_is_given(url: Any) -> None:
    refused_for_good(functools.partial(redis_repository, redis_url=url), "redis_url=")
    refused_for_good(functools.partial(Scheduler, redis_url=url), "redis_url=")


REDIS_URLS_WITH_A_PASSWORD = [
    "redis://:hunter2@localhost",
    "redis://user:hunter2@localhost:99999",
    "redis://user:hun/ter2@localhost",
    "redis://user:hun@ter2@localhost/x",
    "redis://user:hun?ter2#@localhost",
    "redis://:hunter2",
    "redis://:hunter2/0",
    "redis://user:hunter2@",
    "unix:///run/redis.sock?password=hunter2&db=x",
    "redis+sentinel://user:hunter2@a:1,b:2/service?sentinel_password=ter2&bogus=1",
    "http://user:hunter2@localhost",
    "rediss://user:hunter2@localhost?bogus=1",
    "redis://[:hunter2@localhost",
    "redis://user:hunter2",
    "redis://user:hunter2%40localhost:6379/0",
    "redis://user:12?ter2@localhost/0",
    "redis://user:12#ter2@localhost/0",
    "redis://localhost/0?username=user&password=hun@ter2",
    "redis://localhost/0?password=hun#ter2",
    "redis://localhost/0?PASSWORD=hunter2",
    "redis://localhost/0?ssl_password=hun@ter2",
    "rediss://localhost/0?ssl_password=hun@ter2",
    "unix:///run/redis.sock?password=hun@ter2",
    "redis+sentinel://user:12?ter2@a:1/service",
    "redis+sentinel://a:1/service?sentinel_password=hun@ter2",
    "redis+sentinel://a:1/service?db=hunter2",
    "user:hunter2@localhost:6379/0",
    "redis://user:hunter2@h%0a",
    "redis://h?password=dbhunter2",
    "redis://user:hunter2@h?socket_type=x",
    "redis://user:hunter2@h?db=-1",
]


@pytest.mark.parametrize("url", REDIS_URLS_WITH_A_PASSWORD, ids=label)
def test_no_error_and_no_description_shows_a_password(url: str) -> None:
    try:
        shown = parse(url).shown
    except ConfigurationError as error:
        shown = "".join(traceback.format_exception(error, limit=0))
    assert "ter2" not in shown
    assert shown.rstrip("\n").isprintable()


@pytest.mark.parametrize("query", ["password=db", "username=mydb&password=p", "client_name=db"])
def test_a_query_that_only_looks_as_if_it_named_a_database_is_read_right(query: str) -> None:
    assert parse(f"redis://h/3?{query}").options["db"] == 3
    assert parse(f"redis://h?{query}").options["db"] == 0


BAD_NAMESPACES: list[Any] = ["", "x" * 256, "\u00e9" * 128, "a\nb", "a\0b", "\ud800", None, 5, b"x",
                             "\x1b[31m", "\u2028", "\x7f", "\u202e", True, ["x"], math.nan, Path("x")]  # fmt: skip


@pytest.mark.parametrize("namespace", BAD_NAMESPACES, ids=label)
def test_a_bad_namespace_is_refused(namespace: Any) -> None:
    with refused("redis_namespace=", "1 to 255 bytes without control characters"):
        redis_repository(redis_url="redis://localhost", redis_namespace=namespace)


@pytest.mark.parametrize(
    "namespace", ["{}", "a:b", "a*", "}:rows", "\U0001f600", "\u05d0", " ", "%", "x" * 255], ids=label
)
def test_an_odd_namespace_is_one(namespace: str) -> None:
    redis_repository(redis_url="redis://localhost", redis_namespace=namespace)


# --- PostgreSQL -------------------------------------------------------------------------------------------------------

BAD_POSTGRES_URLS: list[Any] = [
    "",
    "canary",
    "mysql://app:canary@host/db",
    "postgresql+psycopg://app:canary@host/db",
    "host=localhost password=canary",
    "postgresql://",
    "postgresql:///db",
    "postgresql://app:canary@/db",
    "postgresql://app:canary@:5432/db",
    "postgresql://app:canary@host:99999/db",
    "postgresql://app:canary@host:0/db",
    "postgresql://app:canary@host:port/db",
    "postgresql://app:canary@host/db?sslmod=require",
    "postgresql://app:canary%zz@host/db",
    "postgresql://app:[canary@host/db",
    "postgresql://app:canary@host/d\0b",
    # What was not percent-encoded lands in the name of the host or of the database.
    "postgresql://app:p@canary@host/db",
    "postgresql://app:p/canary@host/db",
    "postgresql://app:12/canary@host/db",
    None,
    5,
    b"postgresql://app:canary@host/db",
    # As many again.
    "POSTGRESQL://app:canary@host/db",
    "postgresql:app:canary@host/db",
    "postgresql:/app:canary@host/db",
    "postgresql2://app:canary@host/db",
    " postgresql://app:canary@host/db",
    "://app:canary@host/db",
    "\ud800",
    "postgresql://app:canary@h%00/db",
    "postgresql://app:canary@[::1/db",
    "postgresql://app:canary@[zz]/db",
    "postgresql://app:canary@[]/db",
    "postgresql://app:canary@h:-1/db",
    "postgresql://app:canary@h:\uff10/db",
    "postgresql://app:canary@h:1,g:99999/db",
    "postgresql://app:canary@host/%00",
    "postgresql://app:canary@host/%ff",
    "postgresql://app:canary@host/db?port=0",
    "postgresql://app:canary@host/db?port=99999",
    "postgresql://app:canary@host/db?a",
    "postgresql://app:canary@host/db?a=b=c",
    "postgresql://app:canary@host/db?colour=red",
    "postgresql://app:canary@host/db?options=%00",
    "postgresql://app:canary@host/db?connect_timeout=x",
    "postgresql://app:canary@host/db?connect_timeout=nan",
    "postgresql://app:canary@host/db?connect_timeout=1.5",
    "postgresql://app:canary@host/db?keepalives=x",
    "postgresql://app:canary@host/db?keepalives_idle=1e400",
    "postgresql://app:canary@host/db?tcp_user_timeout=x",
    "postgresql://app:canary@host/db?replication=database",
    Path("postgresql://host/db"),
    ["postgresql://host/db"],
    True,
    math.nan,
]


@pytest.mark.parametrize("url", BAD_POSTGRES_URLS, ids=label)
def test_a_bad_postgres_url_is_refused_when_the_option_is_given(url: Any) -> None:
    refused_for_good(functools.partial(postgres_repository, postgres_url=url), "postgres_url=")
    refused_for_good(functools.partial(Scheduler, postgres_url=url), "postgres_url=")


@pytest.mark.parametrize(
    ("url", "cause"),
    [
        ("", "it is empty"),
        ("postgresql+psycopg://app:canary@host/db", "no driver is named in the scheme"),
        ("postgresql://app:canary@host/db?nonsense=1", "libpq has no parameter 'nonsense'"),
        ("postgresql://app:canary@host/db?replication=1", "libpq has no parameter 'replication'"),
        ("postgresql://app:canary@host/db?connect_timeout=5s", "connect_timeout is a whole number"),
        ("postgresql://app:canary@host:70000/db", "a port is from 1 to 65535"),
    ],
)
def test_a_postgres_url_that_is_refused_says_which_part_of_it_is_wrong(url: str, cause: str) -> None:
    refused_for_good(functools.partial(postgres_repository, postgres_url=url), cause)


BAD_POSTGRES_TABLES: list[Any] = ["", "a;drop table x", '"x"', "x\n", "x ", "x y", "1x", "x-y", "x" * 49, "x" * 200,
                                  "\u00e9", "\u0661x", "x\0", "a.b.c", ".x", "x.", "a.\n", '"a".b', None, True, 5, b"x",
                                  Path("x"), "x'", "x`", "x--", "x/*", "$1", "%s", "x\\", "\U0001f600", "\ud800",
                                  "*", "(x)", "x\u0661", ["x"], math.inf]  # fmt: skip


@pytest.mark.parametrize("name", BAD_POSTGRES_TABLES, ids=label)
def test_a_bad_postgres_table_is_refused_when_the_option_is_given(name: Any) -> None:
    with refused("postgres_table_name=", as_shown(name)):
        postgres_repository(postgres_url="postgresql://nowhere.invalid/db", postgres_table_name=name)


# --- SQLite -----------------------------------------------------------------------------------------------------------

BAD_SQLITE_TABLES: list[Any] = [
    "",
    "a;drop table x",
    '"x"',
    "x\n",
    "x ",
    " x",
    "x y",
    "1x",
    "main.x",
    "x-y",
    "x" * 64,
    "x" * 200,
    "\u00e9",
    "\u0661x",
    "x\u0661",
    "x\0",
    "sqlite_master",
    "SQLITE_x",
    None,
    True,
    5,
    b"x",
    Path("x"),
    "x'",
    "x`",
    "x--",
    "x/*",
    "?1",
    "%s",
    "x\\",
    "\U0001f600",
    "\ud800",
    "*",
    "(x)",
    "Sqlite_sequence",
    ["x"],
    math.inf,
]


@pytest.mark.parametrize("name", BAD_SQLITE_TABLES, ids=label)
def test_a_bad_sqlite_table_is_refused_before_a_file_is_opened(tmp_path: Path, name: Any) -> None:
    path = tmp_path / "schedules.db"
    with refused("sqlite_table_name=", as_shown(name)):
        sqlite_repository(sqlite_database=path, sqlite_table_name=name)
    assert not path.exists()


@pytest.mark.parametrize(
    "given", ["", "a\0b", b"schedules.db", 5, None, True, ["x"], "\0", {}, math.nan, object], ids=label
)
def test_a_path_that_is_none_is_refused_when_the_option_is_given(given: Any) -> None:
    with refused("sqlite_database=", as_shown(given), "the path of a file"):
        sqlite_repository(sqlite_database=given)


# --- limits -----------------------------------------------------------------------------------------------------------

REDIS = functools.partial(redis_repository, redis_url="redis://localhost")
POSTGRES = functools.partial(postgres_repository, postgres_url="postgresql://nowhere.invalid/db")
BAD_LIMITS: list[tuple[Callable[..., object], str, list[Any]]] = [
    (REDIS, "redis_command_timeout", [5, timedelta(0), timedelta(days=1), None, "5s", math.nan, timedelta.max]),
    (REDIS, "redis_max_connections", [0, True, 1.5, 10_000, -1, None, "5", math.inf, 10**400]),
    (POSTGRES, "postgres_command_timeout", [5, timedelta(0), timedelta(days=1), None, "5s", math.nan, timedelta.max]),
    (POSTGRES, "postgres_pool_size", [0, True, 1.5, 1_001, -1, None, "5", math.inf, 10**400]),
    (POSTGRES, "postgres_skip_table_create", [0, 1, None, "yes", math.nan]),
]


@pytest.mark.parametrize(
    ("open_store", "option", "value"),
    [(open_store, option, value) for open_store, option, values in BAD_LIMITS for value in values],
    ids=label,
)
def test_a_limit_that_makes_no_sense_is_refused(open_store: Callable[..., object], option: str, value: Any) -> None:
    with refused(f"{option}=", as_shown(value)):
        open_store(**{option: value})
