"""The operations of a store as SQL: one statement, and so one transaction and one round trip, for each.

Knows: `Row`, SQL, psycopg and its pool. Must not know: leases, triggers, how the table came about.

Since every statement commits by itself and a session keeps nothing that matters, any pooler in between will do.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import psycopg
from psycopg import capabilities, errors
from psycopg_pool import ConnectionPool, PoolTimeout

from anyscheduler.lease import Change, Row
from anyscheduler.postgres.listener import PostgresListener
from anyscheduler.postgres.statements import CLAIM, COLUMNS, NOW, write_statement
from anyscheduler.repository import Claimed, ClaimRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from anyscheduler.postgres.schema import Table

Pool: TypeAlias = "ConnectionPool[psycopg.Connection[Any]]"

_CANCEL_SECONDS: Final = 0.5

_CLOSE_SECONDS: Final = 0.5

_NOT_PREPARED: Final = (errors.InvalidSqlStatementName, errors.DuplicatePreparedStatement, errors.ProtocolViolation)
"""What a server answers that does not know a prepared statement, or knows another one by that name."""

_SETTINGS: Final = (
    "plan_cache_mode = force_generic_plan",
    "enable_seqscan = off",
    "enable_bitmapscan = off",
    "enable_hashjoin = off",
    "enable_mergejoin = off",
    "jit = off",
    # Where another level is the default, what two processes write at once would be an error for one of them.
    "default_transaction_isolation = 'read committed'",
)


class PostgresDatabase:
    """A table of schedules. Its methods may be called from several threads at once.

    Args:
        pool: Where connections come from.
        connect: Returns a connection that is not the pool's.
        table: The table, which exists.
    """

    errors: Final = (psycopg.Error, UnicodeError, OverflowError)

    def __init__(self, pool: Pool, connect: Callable[[], psycopg.Connection[Any]], table: Table) -> None:
        self._pool = pool
        self._connect = connect
        self._table = table
        self._in_use: dict[int, psycopg.Connection[Any]] = {}
        """The connection that a thread uses at the moment, by the thread's identifier."""

    def claim(
        self, requests: Sequence[ClaimRequest], limit: int, now: int | None, token: str, not_after: int | None = None
    ) -> Claimed:
        rows: list[Row] = []
        shown = 0
        generous = False
        while True:
            given = {
                "tasks": _array(task for task, _ in requests),
                "leases": _array(str(lease) for _, lease in requests),
                "limit": limit - len(rows),
                "now": now,
                "not_after": not_after,
                "token": token,
                "generous": generous,
            }
            try:
                *found, last = self._execute(CLAIM.format(table=self._table.quoted), given)
            except psycopg.Error:
                if not rows:
                    raise
                # What has been claimed must be known; whoever asks next meets the error.
                return Claimed(rows, shown, shown)
            rows += [Row(*record[: len(Row._fields)]) for record in found]
            next_claimable, taken_at, shown, is_cut = last[-4:]
            # More were due than were looked at: either a few tasks have nearly all of them, or other processes are
            # taking the same ones at this moment. Looked at again, and deeper, once.
            if len(rows) == limit or not is_cut or generous:
                return Claimed(rows, next_claimable, shown)
            generous, now = True, taken_at

    def write(self, changes: Sequence[Change], *, announce: bool = False) -> Sequence[bool | None]:
        parts = []
        given: dict[str, object] = {"channel": self._table.channel}
        gone = [change for change in changes if change.row is None]
        if gone:
            parts.append("gone")
            given["gone_key"] = _array(change.key for change in gone)
            given["gone_expected"] = _array(str(change.expected) for change in gone)
        for part, is_new in (("changed", False), ("new", True)):
            some = [change for change in changes if change.row is not None and (change.expected is None) is is_new]
            if some:
                # One order for all processes, so that two that insert do not wait for each other crosswise.
                some.sort()
                parts.append(part)
                given[f"{part}_expected"] = _array(str(change.expected) for change in some)
                columns = zip(*(change.row for change in some if change.row is not None), strict=True)
                for name, column in zip(Row._fields, columns, strict=True):
                    given[f"{part}_{name}"] = _array(map(str, column))
        if not parts:
            return []
        given["count"] = len(changes)
        applied = dict(self._execute(write_statement(self._table.quoted, parts, announce=announce), given))
        return [applied.get(change.key, False) for change in changes]

    def read(self, keys: Sequence[str]) -> dict[str, Row]:
        statement = f"SELECT {COLUMNS} FROM {self._table.quoted} WHERE key = ANY(%(keys)s::text[])"
        return {record[0]: Row(*record) for record in self._execute(statement, {"keys": list(keys)})}

    def page(self, task: str, after: str, limit: int) -> list[Row]:
        statement = f"""
            (SELECT {COLUMNS} FROM {self._table.quoted} WHERE key = %(task)s AND key > %(after)s)
            UNION ALL
            (
                SELECT {COLUMNS} FROM {self._table.quoted}
                WHERE key >= %(task)s || ':' AND key < %(task)s || ';' AND key > %(after)s
                ORDER BY key LIMIT %(limit)s
            )
            LIMIT %(limit)s
        """
        found = self._execute(statement, {"task": task, "after": after, "limit": limit})
        return [Row(*record) for record in found]

    def tasks(self) -> list[str]:
        # PostgreSQL does not skip from one value to the next for DISTINCT; this does, through the index.
        statement = f"""
            WITH RECURSIVE present(task) AS (
                (SELECT task FROM {self._table.quoted} ORDER BY task LIMIT 1)
                UNION ALL
                SELECT following.task FROM present CROSS JOIN LATERAL (
                    SELECT task FROM {self._table.quoted} AS stored
                    WHERE stored.task > present.task ORDER BY task LIMIT 1
                ) AS following
            ) SELECT task FROM present
        """
        return [task for (task,) in self._execute(statement, {})]

    def time(self) -> int:
        ((now,),) = self._execute(f"SELECT {NOW}", {})
        return int(now)

    def listener(self) -> PostgresListener | None:
        return PostgresListener.open(self._connect, self._table.channel, self._tell)

    def _tell(self, text: str) -> None:
        self._execute("SELECT pg_notify(%(channel)s, %(text)s)", {"channel": self._table.channel, "text": text})

    def abort(self, thread: int) -> None:
        connection = self._in_use.get(thread)
        if connection is None:
            return
        if capabilities.has_cancel_safe():
            # Without it the server would go on, and carry out a statement later that was given up long ago.
            with suppress(psycopg.Error):
                connection.cancel_safe(timeout=_CANCEL_SECONDS)
            give_up_at = time.monotonic() + _CANCEL_SECONDS
            while self._in_use.get(thread) is connection and time.monotonic() < give_up_at:
                time.sleep(0.01)
        if self._in_use.get(thread) is connection:
            _cut(connection)

    def close(self) -> None:
        self._pool.close(timeout=_CLOSE_SECONDS)

    def _execute(self, statement: str, given: Mapping[str, object]) -> list[Any]:
        with self._connection() as connection:
            try:
                return connection.execute(statement.encode(), given).fetchall()
            except _NOT_PREPARED:
                # Something in between has handed this session to another server process. Nothing was carried out.
                connection.prepare_threshold = None
                return connection.execute(statement.encode(), given, prepare=False).fetchall()

    @contextmanager
    def _connection(self) -> Iterator[psycopg.Connection[Any]]:
        thread = threading.get_ident()
        connection = self._take()
        self._in_use[thread] = connection
        try:
            yield connection
        except errors.ReadOnlySqlTransaction:
            # The primary was demoted, or its address leads to another server by now; a new connection will tell.
            connection.close()
            raise
        finally:
            del self._in_use[thread]
            was_cut = connection.closed
            self._pool.putconn(connection)
            if was_cut:
                # Its neighbours are, most likely: renewed now, and not one by one as the calls to come fail on them.
                self._pool.drain()

    def _take(self) -> psycopg.Connection[Any]:
        try:
            return self._pool.getconn()
        except PoolTimeout:
            # The pool does not say why it has none to give. Whoever tries for himself is told.
            self._connect().close()
            raise


def explain(error: Exception) -> str:
    """Returns what an error says, without the statement and the advice that libpq adds to it."""
    if isinstance(error, errors.UndefinedTable):
        return f"{error.diag.message_primary}; it is created when a process starts"
    if isinstance(error, psycopg.Error) and error.diag.message_primary:
        return error.diag.message_primary
    lines = [line.strip() for line in str(error).splitlines()]
    return "; ".join(line for line in lines if line and not line.startswith("Is the server running"))


def configure(connection: psycopg.Connection[Any]) -> None:
    """Decides what a new connection may keep in its session.

    Prepared statements make a call a third faster. Behind a pooler each transaction may get another server process,
    where the same name can stand for a statement of another app; a pooler shows a process number of its own.

    Each statement is planned once. So that a plan from when the table was small serves for millions of rows, and wrong
    statistics can do no harm, there is only one way left to carry it out: by the index, or by where a row lies.
    """
    is_direct = "SELECT pg_backend_pid() = %(pid)s"
    if connection.execute(is_direct, {"pid": connection.info.backend_pid}, prepare=False).fetchone() == (True,):
        connection.prepare_threshold = 0
        for setting in _SETTINGS:
            connection.execute(f"SET {setting}".encode(), prepare=False)
    else:
        connection.prepare_threshold = None


def _array(values: Iterable[str]) -> str:
    """Returns an array in PostgreSQL's own notation; what psycopg makes of a list takes ten times as long."""
    return "{" + ",".join('"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for value in values) + "}"


def _cut(connection: psycopg.Connection[Any]) -> None:
    """Ends a connection that another thread is waiting for."""
    # A duplicate, because the other thread may close its descriptor at any time, and the number would then be that of
    # another file. If the connection is still open now, it was when the number was duplicated.
    with suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(connection.fileno())) as same:
        if not connection.closed:
            same.shutdown(socket.SHUT_RDWR)
