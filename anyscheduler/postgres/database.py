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
from anyscheduler.repository import Claimed, ClaimRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from anyscheduler.postgres.schema import Table

Pool: TypeAlias = "ConnectionPool[psycopg.Connection[Any]]"

_COLUMNS: Final = ", ".join(Row._fields)

_CANCEL_SECONDS: Final = 0.5

_CLOSE_SECONDS: Final = 0.5

_NOT_PREPARED: Final = (errors.InvalidSqlStatementName, errors.DuplicatePreparedStatement, errors.ProtocolViolation)
"""What a server answers that does not know a prepared statement, or knows another one by that name."""

_ONE_PLAN: Final = (
    "plan_cache_mode = force_generic_plan",
    "enable_seqscan = off",
    "enable_bitmapscan = off",
    "enable_hashjoin = off",
    "enable_mergejoin = off",
    "jit = off",
)

_NOW: Final = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"


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

    def claim(self, requests: Sequence[ClaimRequest], limit: int, now: int | None, token: str) -> Claimed:
        rows: list[Row] = []
        generous = False
        while True:
            *found, last = self._execute(
                _CLAIM.format(table=self._table.quoted),
                {
                    "tasks": [task for task, _ in requests],
                    "leases": [lease for _, lease in requests],
                    "limit": limit - len(rows),
                    "now": now,
                    "token": token,
                    "generous": generous,
                },
            )
            rows += [Row(*record[: len(Row._fields)]) for record in found]
            next_claimable, taken_at, is_cut = last[-3:]
            # More were due than were looked at: either a few tasks have nearly all of them, or other processes are
            # taking the same ones at this moment. Looked at again, and deeper, once.
            if len(rows) == limit or not is_cut or generous:
                return Claimed(rows, next_claimable, taken_at)
            generous, now = True, taken_at

    def write(self, changes: Sequence[Change], *, announce: bool = False) -> list[bool]:
        # One order for all processes, so that two of them do not wait for each other crosswise.
        ordered = sorted(changes)
        parts = []
        given: dict[str, object] = {"channel": self._table.channel}
        gone = [change for change in ordered if change.row is None]
        if gone:
            parts.append("gone")
            given["gone_key"] = _array(change.key for change in gone)
            given["gone_expected"] = _array(str(change.expected) for change in gone)
        for part, is_new in (("changed", False), ("new", True)):
            some = [change for change in ordered if change.row is not None and (change.expected is None) is is_new]
            if some:
                parts.append(part)
                given[f"{part}_expected"] = _array(str(change.expected) for change in some)
                columns = zip(*(change.row for change in some if change.row is not None), strict=True)
                for name, column in zip(Row._fields, columns, strict=True):
                    given[f"{part}_{name}"] = _array(map(str, column))
        if not parts:
            return []
        statement = _write_statement(self._table.quoted, parts, announce=announce)
        applied = {key for (key,) in self._execute(statement, given)}
        return [change.key in applied for change in changes]

    def read(self, keys: Sequence[str]) -> dict[str, Row]:
        statement = f"SELECT {_COLUMNS} FROM {self._table.quoted} WHERE key = ANY(%(keys)s::text[])"
        return {record[0]: Row(*record) for record in self._execute(statement, {"keys": list(keys)})}

    def page(self, task: str, after: str, limit: int) -> list[Row]:
        statement = f"""
            (SELECT {_COLUMNS} FROM {self._table.quoted} WHERE key = %(task)s AND key > %(after)s)
            UNION ALL
            (
                SELECT {_COLUMNS} FROM {self._table.quoted}
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
        ((now,),) = self._execute(f"SELECT {_NOW}", {})
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
        for setting in _ONE_PLAN:
            connection.execute(f"SET {setting}".encode(), prepare=False)
    else:
        connection.prepare_threshold = None


def _array(values: Iterable[str]) -> str:
    """Returns an array in PostgreSQL's own notation; what psycopg makes of a list takes ten times as long."""
    return '{"' + '","'.join(value.replace("\\", "\\\\").replace('"', '\\"') for value in values) + '"}'


def _cut(connection: psycopg.Connection[Any]) -> None:
    """Ends a connection that another thread is waiting for."""
    # A duplicate, because the other thread may close its descriptor at any time, and the number would then be that of
    # another file. If the connection is still open now, it was when the number was duplicated.
    with suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(connection.fileno())) as same:
        if not connection.closed:
            same.shutdown(socket.SHUT_RDWR)


def _write_statement(table: str, parts: Sequence[str], *, announce: bool) -> str:
    """Returns the statement that applies changes of the kinds in `parts` and gives the keys of those that applied."""
    applied = " UNION ALL ".join(f"SELECT * FROM {part}" for part in parts)
    # Rows to delete and rows to change would be locked one kind after the other, each in order of the keys; and two
    # processes could then wait for each other.
    is_mixed = {"gone", "changed"} <= set(parts)
    after = "AND (SELECT count(*) FROM held) >= 0" if is_mixed else ""
    steps = [_HELD.format(table=table)] if is_mixed else []
    steps += [_STEPS[part].format(table=table, after=after) for part in parts]
    steps.append(f"applied AS ({applied})")
    result = "SELECT key FROM applied"
    if announce:
        steps.append(_TOLD)
        # Referred to, because a step that nobody asks for is not carried out.
        result += " WHERE (SELECT count(*) FROM told) >= 0"
    return f"WITH {', '.join(steps)} {result}"  # the name is checked and quoted, the rest is ours


_HELD: Final = """
    held AS MATERIALIZED (
        SELECT key FROM {table} WHERE key = ANY(%(gone_key)s::text[] || %(changed_key)s::text[])
        ORDER BY key FOR UPDATE
    )"""

_STEPS: Final = {
    "gone": """
        gone AS (
            DELETE FROM {table} AS stored
            USING unnest(%(gone_key)s::text[], %(gone_expected)s::text[]) AS change(key, expected)
            WHERE stored.key = change.key AND stored.token = change.expected {after}
            RETURNING stored.key, NULL::bigint AS claimable_at
        )""",
    "changed": """
        changed AS (
            UPDATE {table} AS stored SET
                due_at = change.due_at, claimable_at = change.claimable_at,
                token = change.token, spec = change.spec, state = change.state
            FROM unnest(
                %(changed_expected)s::text[], %(changed_key)s::text[], %(changed_due_at)s::bigint[],
                %(changed_claimable_at)s::bigint[], %(changed_token)s::text[], %(changed_spec)s::text[],
                %(changed_state)s::text[]
            ) AS change(expected, key, due_at, claimable_at, token, spec, state)
            WHERE stored.key = change.key AND stored.token = change.expected {after}
            RETURNING stored.key, stored.claimable_at
        )""",
    "new": """
        new AS (
            INSERT INTO {table} (key, task, due_at, claimable_at, token, spec, state)
            SELECT * FROM unnest(
                %(new_key)s::text[], %(new_task)s::text[], %(new_due_at)s::bigint[],
                %(new_claimable_at)s::bigint[], %(new_token)s::text[], %(new_spec)s::text[], %(new_state)s::text[]
            )
            ON CONFLICT (key) DO NOTHING
            RETURNING key, claimable_at
        )""",
}

_TOLD: Final = """
    told AS MATERIALIZED (
        SELECT pg_notify(%(channel)s, min(claimable_at)::text) FROM applied HAVING min(claimable_at) IS NOT NULL
    )"""

# In the names below: `place` is the index of a request, `turn` the how manyth row of its task a row is.
#
# request    each requested task that has rows, with the earliest of them
# due        those of them with rows that are due, and how many to look at of each: an even share and one more
# candidate  the rows that are looked at, by the index only
# chosen     the first ones in the order of fairness; more than needed where other processes take some at this moment
# locked     as many as may be claimed and nobody else is taking. A row that another process changed since the
#            statement began is left out: it has another ctid, and is claimable later
# claimed    the rows under their lease
#
# Rows are found again by their ctid, which costs less than by key. One that was changed meanwhile has another one.
_CLAIM: Final = f"""
    WITH clock AS MATERIALIZED (SELECT coalesce(%(now)s::bigint, {_NOW}) AS now),
    request AS MATERIALIZED (
        SELECT given.task, given.lease, given.place, head.claimable_at AS head
        FROM unnest(%(tasks)s::text[], %(leases)s::bigint[]) WITH ORDINALITY AS given(task, lease, place)
        CROSS JOIN LATERAL (
            SELECT claimable_at FROM {{table}} AS stored
            WHERE stored.task = given.task ORDER BY claimable_at LIMIT 1
        ) AS head
    ),
    due AS MATERIALIZED (
        SELECT task, lease, place, head, 1 + greatest(
            ceil(%(limit)s::float * CASE WHEN %(generous)s THEN 4 ELSE 1 END / count(*) OVER ()),
            CASE WHEN %(generous)s THEN %(limit)s ELSE 0 END
        )::bigint AS share
        FROM request WHERE head <= (SELECT now FROM clock)
    ),
    candidate AS MATERIALIZED (
        SELECT waiting.tid, waiting.claimable_at, due.lease, due.place, due.share,
            row_number() OVER (PARTITION BY due.place ORDER BY waiting.claimable_at, waiting.key) AS turn
        FROM due CROSS JOIN LATERAL (
            SELECT stored.ctid AS tid, key, claimable_at FROM {{table}} AS stored
            WHERE stored.task = due.task AND claimable_at <= (SELECT now FROM clock)
            ORDER BY claimable_at, key LIMIT due.share
        ) AS waiting
    ),
    chosen AS MATERIALIZED (
        SELECT tid, lease, place, turn FROM candidate
        ORDER BY turn, place LIMIT %(limit)s * CASE WHEN %(generous)s THEN 4 ELSE 1 END
    ),
    locked AS MATERIALIZED (
        SELECT stored.ctid AS tid, chosen.lease, chosen.place, chosen.turn
        FROM {{table}} AS stored JOIN chosen ON stored.ctid = chosen.tid
        WHERE stored.ctid = ANY(ARRAY(SELECT tid FROM chosen)) AND stored.claimable_at <= (SELECT now FROM clock)
        ORDER BY chosen.turn, chosen.place LIMIT %(limit)s FOR UPDATE OF stored SKIP LOCKED
    ),
    claimed AS (
        UPDATE {{table}} AS stored SET claimable_at = clock.now + locked.lease, token = %(token)s
        FROM locked CROSS JOIN clock
        WHERE stored.ctid = ANY(ARRAY(SELECT tid FROM locked)) AND stored.ctid = locked.tid
        RETURNING {", ".join("stored." + name for name in Row._fields)}, locked.turn, locked.place
    ),
    left_behind AS (
        SELECT claimable_at FROM candidate WHERE tid NOT IN (SELECT tid FROM locked)
    )
    (
        SELECT {_COLUMNS}, turn, place, NULL::bigint, NULL::bigint, NULL::boolean FROM claimed
        ORDER BY turn, place
    )
    UNION ALL
    SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
        least(
            (SELECT min(head) FROM request WHERE head > clock.now),
            (SELECT min(clock.now + lease) FROM locked),
            (SELECT min(claimable_at) FROM left_behind),
            (
                SELECT min(following.claimable_at) FROM due CROSS JOIN LATERAL (
                    SELECT claimable_at FROM {{table}} AS stored
                    WHERE stored.task = due.task AND claimable_at > clock.now ORDER BY claimable_at LIMIT 1
                ) AS following
            )
        ),
        clock.now,
        EXISTS (SELECT FROM candidate WHERE turn = share) OR (SELECT count(*) FROM candidate) > %(limit)s
    FROM clock
"""
