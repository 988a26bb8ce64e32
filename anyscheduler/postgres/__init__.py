"""The store in PostgreSQL: shared by any number of processes on any number of machines.

Knows: options, connecting. The operations are in `database.py`, the table in `schema.py`.
"""

from __future__ import annotations

import logging
import re
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlsplit

import anyio
import anyio.to_thread

from anyscheduler import options
from anyscheduler.backoff import Backoff, Outage
from anyscheduler.errors import ConfigurationError
from anyscheduler.logs import in_one_line
from anyscheduler.threaded import ThreadedRepository

try:
    import psycopg
    from psycopg import pq
    from psycopg.conninfo import conninfo_to_dict, make_conninfo
    from psycopg_pool import ConnectionPool
except ImportError as error:
    raise ModuleNotFoundError(
        f'the PostgreSQL store needs psycopg and psycopg-pool ({error}): pip install "anyscheduler[postgres]"'
    ) from None

from anyscheduler.postgres.database import Pool, PostgresDatabase, configure, explain
from anyscheduler.postgres.schema import NAMES_ALLOWED, Names, Table, parse_name, prepare

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from anyscheduler.repository import Repository

_LEAST_PATIENCE: Final = timedelta(milliseconds=100)
_MOST_PATIENCE: Final = timedelta(hours=1)
_CONNECT_SECONDS: Final = 5
_MOST_CONNECTIONS: Final = 1_000
_LAST_PORT: Final = 65_535
_WHOLE_NUMBERS: Final = (
    "connect_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
)
"""What libpq reads as a number when it connects. Its complaint has the word timeout in it, as if waiting would help."""

_POOL_NAME: Final = "anyscheduler"

_HOPELESS: Final = (
    "28",  # invalid authorization: the user, the password, or pg_hba.conf
    "3D",  # no such database
    "3F",  # no such schema
    "42",  # insufficient privilege, and whatever else is wrong with the table
)
"""SQLSTATE classes of a server that has answered, against which waiting does not help."""

_TRANSIENT: Final = (
    "refused",
    "timeout",
    "timed out",
    "unreachable",
    "No route",
    "reset",
    "translate host name",
    "resolve",
    "No such file",
    "closed the connection",
    "the database system is",
    "too many",
    "connection slots",
    # With target_session_attrs: a failover is not over.
    "session is",
    "server is",
)
"""Words of a failed connection, for which libpq gives no code, that say that it may succeed later on."""


class _Connection(psycopg.Connection[Any]):
    """A connection of this package's; told apart from those of other pools of the application."""


class _SaidOnce(logging.Filter):
    """Drops what the pool says of this package's connections; the package says it once, and not for each of them."""

    def filter(self, record: logging.LogRecord) -> bool:
        args = record.args if isinstance(record.args, tuple) else ()
        return not any(isinstance(arg, _Connection) or str(arg).startswith(_POOL_NAME) for arg in args)


logging.getLogger("psycopg.pool").addFilter(_SaidOnce())


def postgres_repository(
    *,
    postgres_url: str,
    postgres_table_name: str = "anyscheduler",
    postgres_skip_table_create: bool = False,
    postgres_pool_size: int = 4,
    postgres_command_timeout: timedelta = timedelta(seconds=10),
) -> AbstractAsyncContextManager[Repository]:
    """Returns a context manager that opens a PostgreSQL table as the store, and creates it if it is missing.

    A server that cannot be reached when it is entered is waited for.

    Args:
        postgres_url: `postgresql://user:password@host:port/database?sslmode=...`, or with `postgres://`; percent-encode
            what is special in a password. Several hosts and all parameters of libpq work as it documents them.
        postgres_table_name: The table to use: a letter or an underscore, then letters, digits and underscores, at most
            48 characters together; before it, if wanted, a schema that exists and a dot. Apps that are to share nothing
            can share a database under different table names.
        postgres_skip_table_create: Whether the table is expected to be there, and never created.
        postgres_pool_size: How many connections this process may have, 1 to 1,000, beside the one that it listens on.
        postgres_command_timeout: How long the server may take for a statement before its connection is given up, 100
            milliseconds to an hour.

    Raises:
        ConfigurationError: An option is malformed (at this call), or the server refuses the user, is read-only, too
            old, or has something else under the table's name (when it is opened).
    """
    conninfo, shown = _check_url(postgres_url)
    names = parse_name(postgres_table_name)
    if names is None:
        options.refuse("postgres_table_name", postgres_table_name, NAMES_ALLOWED)
    options.flag("postgres_skip_table_create", postgres_skip_table_create)
    size = options.whole_number("postgres_pool_size", postgres_pool_size, 1, _MOST_CONNECTIONS)
    timeout = options.duration("postgres_command_timeout", postgres_command_timeout, _LEAST_PATIENCE, _MOST_PATIENCE)
    return _open(
        conninfo,
        shown,
        names,
        skip_create=postgres_skip_table_create,
        size=size,
        patience=timeout.total_seconds(),
    )


def _check_url(url: object) -> tuple[str, str]:
    """Returns what to connect with, and how it is shown to people: without the password."""
    allowed = "postgresql://user:password@host:port/database, with what is special in the password percent-encoded"
    if not isinstance(url, str):
        options.refuse("postgres_url", type(url), allowed)
    if not url:
        options.refuse("postgres_url", url, f"it is empty, give {allowed}")
    scheme, separator, _ = url.partition("://")
    # Only this much of it is shown: the rest may be, or hold, a password.
    seen = f"{scheme[:20]}://..." if separator else "..."
    if scheme.startswith(("postgresql+", "postgres+")):
        options.refuse("postgres_url", seen, f"no driver is named in the scheme: {allowed}")
    if scheme not in {"postgres", "postgresql"} or "\0" in url:
        options.refuse("postgres_url", seen, allowed)
    # A connection for replication understands no statements.
    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()} - {"replication"} | {"ssl"}
    unknown: list[str] = []
    try:
        query = parse_qsl(urlsplit(url).query, keep_blank_values=True)
        unknown = [name for name, _ in query if name not in known and name.isidentifier()]
        # Its own message is not passed on: it can quote the part of the URL that holds the password.
        parts = conninfo_to_dict(url)
        ports = [int(port) for port in str(parts.get("port", "")).split(",") if port]
        user = urlsplit(url).username
    except (psycopg.Error, ValueError):
        parts, ports, user = {}, [], None
    if unknown:
        options.refuse("postgres_url", seen, f"libpq has no parameter {unknown[0]!r}")
    if not all(0 < port <= _LAST_PORT for port in ports):
        options.refuse("postgres_url", seen, f"a port is from 1 to {_LAST_PORT}")
    for parameter in _WHOLE_NUMBERS:
        if not re.fullmatch(r"-?[0-9]{1,9}|", str(parts.get(parameter, ""))):
            options.refuse("postgres_url", seen, f"{parameter} is a whole number")
    hosts = parts.get("host") or parts.get("hostaddr")
    if any("@" in str(part) for part in (hosts, parts.get("dbname"))):
        # The rest of a password that was not encoded.
        options.refuse("postgres_url", seen, allowed)
    if not hosts:
        options.refuse("postgres_url", seen, f"a URL with a host in it: {allowed}")
    where = f"{hosts}:{parts['port']}" if "port" in parts else str(hosts)
    name = parts.get("user", user)
    shown = f"postgresql://{f'{name}@' if name else ''}{where}/{parts.get('dbname', '')}"
    return url, in_one_line(shown)


@asynccontextmanager
async def _open(
    conninfo: str, shown: str, names: Names, *, skip_create: bool, size: int, patience: float
) -> AsyncIterator[Repository]:
    own: dict[str, Any] = {
        "connect_timeout": _CONNECT_SECONDS,
        "fallback_application_name": "anyscheduler",
        # A peer that has vanished without a word is noticed, by the connection that listens as well.
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
    }
    given = conninfo_to_dict(conninfo)
    connecting = {name: value for name, value in own.items() if name not in given}
    # Not the user's to choose: keys and arguments may hold anything.
    connecting |= {"autocommit": True, "client_encoding": "utf8"}
    connect = partial(psycopg.connect, conninfo, **connecting)
    table = await _prepare_patiently(connect, conninfo, shown, names, skip_create=skip_create)
    pool: Pool = ConnectionPool(
        conninfo,
        connection_class=_Connection,
        kwargs=connecting,
        min_size=1,
        max_size=size,
        open=False,
        configure=configure,
        name=_POOL_NAME,
        # Less than a call may take, so that there is time left to find out why there is none.
        timeout=min(patience, _CONNECT_SECONDS) / 2,
        # It gives up soon and is asked again by each call, so that it does not sleep while the server is back.
        reconnect_timeout=1,
        num_workers=2,
    )
    database = PostgresDatabase(pool, connect, table)
    repository = ThreadedRepository(
        database, f"PostgreSQL {shown}, table {names.quoted}", threads=size, patience=patience, explain=explain
    )
    pool.open()
    try:
        yield repository
    finally:
        await repository.close()


async def _prepare_patiently(
    connect: Callable[[], psycopg.Connection[Any]], conninfo: str, shown: str, names: Names, *, skip_create: bool
) -> Table:
    def once() -> Table:
        with connect() as connection:
            return prepare(connection, names, skip_create=skip_create)

    backoff = Backoff("opening PostgreSQL", Outage())
    while True:
        try:
            table = await anyio.to_thread.run_sync(once, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1))
        except ConfigurationError as error:
            raise ConfigurationError(f"postgres_url={shown!r} cannot be used: {error}") from None
        except psycopg.Error as error:
            problem = in_one_line(" ".join(explain(error).split()))
            if _is_hopeless(error, conninfo):
                raise ConfigurationError(f"postgres_url={shown!r} cannot be used: {problem}") from error
            await anyio.sleep(backoff.failed(psycopg.OperationalError(f"{shown}: {problem}")))
        else:
            backoff.succeeded()
            return table


def _is_hopeless(error: psycopg.Error, conninfo: str) -> bool:
    if error.sqlstate is not None:
        return error.sqlstate.startswith(_HOPELESS)
    text = str(error)
    # A server that is starting says so in its own language; PQping knows it all the same.
    return not any(words in text for words in _TRANSIENT) and _ping(conninfo) != pq.Ping.REJECT


def _ping(conninfo: str) -> pq.Ping:
    limited = make_conninfo(
        conninfo, connect_timeout=conninfo_to_dict(conninfo).get("connect_timeout", _CONNECT_SECONDS)
    )
    return pq.Ping(pq.PGconn.ping(limited.encode()))
