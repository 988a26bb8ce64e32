"""The operations of the contract, each one transaction.

Knows: `Row`, SQL, one connection. Must not know: leases, triggers, the event loop, how a file is opened.
"""

from __future__ import annotations

import json
import sqlite3
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from anyscheduler.lease import Change, Row, later_token
from anyscheduler.repository import Claimed, ClaimRequest
from anyscheduler.sqlite.connection import connect, transaction

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_COLUMNS = ", ".join(Row._fields)
_STORED_COLUMNS = ", ".join(f"stored.{field}" for field in Row._fields)
_AMONG = "rowid IN (SELECT value FROM json_each(?))"

_TYPES: Final = (str, str, int, int, str, str, str)
_NOT_A_ROW: Final = "not a row: "
"""How the state begins of a row that could not be read: what stands there is shown, and never written back."""
_LAST: Final = 2**63 - 1
_UNREADABLE: Final = "Could not decode to UTF-8"
"""How the driver's error begins when it has met a text that is none."""


def _row(record: Sequence[Any]) -> Row:
    """Returns a row of whatever is stored.

    In a file that was damaged, or written to past the checks of the table, a value can have another type. Such a row
    comes out as one that the rules of leases will set aside, with what it held as its state, which is none.
    """
    row = Row(*record)
    if tuple(map(type, row)) == _TYPES:
        return row
    until = row.claimable_at if isinstance(row.claimable_at, int) else 0
    # A key that is no text is not to be taken for one that is.
    key = row.key if isinstance(row.key, str) else repr(row.key)
    return Row(key, _text(row.task), 0, until, _text(row.token), "", f"{_NOT_A_ROW}{record}")


def _readable(text: bytes) -> str:
    """Returns something for whatever bytes: raising would fail the claim of every other row with the damaged one."""
    return text.decode("utf-8", "replace")


def _text(value: Any) -> str:
    return _readable(value) if isinstance(value, bytes) else str(value)


class SqliteDatabase:
    """A table of a SQLite file, over one connection that one thread uses at a time; see `threaded.Database`."""

    errors: Final = (sqlite3.Error, OverflowError, UnicodeEncodeError)

    def __init__(self, path: str, table: str) -> None:
        self._connection = connect(path, table)
        self._table = f'"{table}"'

    def claim(
        self,
        requests: Sequence[ClaimRequest],
        limit: int,
        now: int | None,
        token: str,
        not_after: int | None = None,  # noqa: ARG002  # it goes by the clock of this machine
    ) -> Claimed:
        assert now is not None, "there is no clock of its own"
        names = [task for task, _ in requests]
        tasks = json.dumps(names)
        # Outside the transaction first: a poll that finds nothing due leaves the write lock to others.
        earliest = self._earliest(tasks)
        if earliest is None or earliest > now:
            return Claimed([], earliest, now)
        with transaction(self._connection):
            found = self._due(names, tasks, limit, now)
            rows = [
                _row((key, task, due_at, now + requests[request].lease, later_token(token, _text(stored)), spec, state))
                for key, task, due_at, _, stored, spec, state, request, _ in found
            ]
            leased: dict[tuple[int, str], list[int]] = {}
            for row, (*_, rowid) in zip(rows, found, strict=True):
                leased.setdefault((row.claimable_at, row.token), []).append(rowid)
            # One statement for all with one lease: one for each row takes twice as long.
            for values, rowids in leased.items():
                self._connection.execute(
                    f"UPDATE {self._table} SET claimable_at = ?, token = ? WHERE {_AMONG}",
                    (*values, json.dumps(rowids)),
                )
            return Claimed(rows, self._earliest(tasks), now)

    def _due(self, names: Sequence[str], tasks: str, limit: int, now: int) -> list[Any]:
        """Returns up to `limit` due rows with the index of their request and their rowid, in the order of fairness.

        `tasks` is the JSON of `names`.

        First the first row of each task that has any. If there is room for more, and tasks have more: of a single task
        what comes next; else as many rows of each as an even share of the limit, and if tasks have fewer than that and
        the limit is not reached, again with a larger share. Only the index is read for that, and the whole row of no
        more than is returned, beside those first ones; so neither waiting rows nor a long backlog cost anything.
        """
        first = self._fetch(
            f"""
            SELECT {_STORED_COLUMNS}, request.key, stored.rowid
            FROM json_each(:tasks) AS request CROSS JOIN {self._table} AS stored
            ON stored.rowid = (
                SELECT rowid FROM {self._table} WHERE task = request.value AND claimable_at <= :now
                ORDER BY claimable_at, key LIMIT 1
            )
            LIMIT :limit
            """,
            {"tasks": tasks, "now": now, "limit": limit},
        )
        # By request: sorting whole rows in SQL takes longer.
        first.sort(key=itemgetter(-2))
        count = len(first)
        if count in (0, limit):
            return first
        if count == 1:
            # Nothing has to be shared out then, and the index has them in their order.
            place = first[0][-2]
            return self._fetch(
                f"""
                SELECT {_COLUMNS}, :place, rowid FROM {self._table} WHERE task = :task AND claimable_at <= :now
                ORDER BY claimable_at, key LIMIT :limit
                """,
                {"place": place, "task": names[place], "now": now, "limit": limit},
            )
        requests = json.dumps([[record[-2], names[record[-2]]] for record in first])
        more = self._connection.execute(
            f"""
            SELECT 1 FROM json_each(:requests) AS request WHERE (
                SELECT count(*) FROM (
                    SELECT 1 FROM {self._table}
                    WHERE task = json_extract(request.value, '$[1]') AND claimable_at <= :now LIMIT 2
                )
            ) > 1 LIMIT 1
            """,
            {"requests": requests, "now": now},
        ).fetchone()
        if more is None:
            return first
        share = -(-limit // count)
        while True:
            found = self._fetch(
                f"""
                WITH candidates AS (
                    SELECT stored.rowid AS id, json_extract(request.value, '$[0]') AS request,
                        row_number() OVER (PARTITION BY request.key ORDER BY stored.claimable_at, stored.key) AS turn
                    FROM json_each(:requests) AS request CROSS JOIN {self._table} AS stored
                    ON stored.rowid IN (
                        SELECT rowid FROM {self._table}
                        WHERE task = json_extract(request.value, '$[1]') AND claimable_at <= :now
                        ORDER BY claimable_at, key LIMIT :share
                    )
                ), chosen AS (SELECT * FROM candidates ORDER BY turn, request LIMIT :limit)
                SELECT {_STORED_COLUMNS}, chosen.request, chosen.id
                FROM chosen CROSS JOIN {self._table} AS stored ON stored.rowid = chosen.id
                ORDER BY chosen.turn, chosen.request
                """,
                {"requests": requests, "now": now, "share": share, "limit": limit},
            )
            if len(found) == limit or share == limit:
                return found
            share = limit

    def write(self, changes: Sequence[Change], *, announce: bool = False) -> list[bool]:  # noqa: ARG002  # there is nobody to tell
        with transaction(self._connection):
            # The transaction holds the write lock, so that what is compared here is what is changed below.
            stored: dict[str, tuple[str, int]] = {
                key: (_text(token), rowid)
                for key, token, rowid in self._select_by_key("key, token, rowid", [change.key for change in changes])
            }
            gone: list[int] = []
            new: list[Row] = []
            aside: list[tuple[object, ...]] = []
            changed: list[tuple[object, ...]] = []
            applied: list[bool] = []
            for key, expected, row in changes:
                token, rowid = stored.get(key, (None, 0))
                applied.append(token == expected)
                if token != expected:
                    continue
                if row is None:
                    gone.append(rowid)
                elif row.state.startswith(_NOT_A_ROW):
                    aside.append((row.claimable_at, row.token, rowid))
                elif expected is None:
                    new.append(row)
                else:
                    changed.append((row.due_at, row.claimable_at, row.token, row.spec, row.state, rowid))
            if gone:
                self._connection.execute(f"DELETE FROM {self._table} WHERE {_AMONG}", (json.dumps(gone),))
            self._connection.executemany(
                f"INSERT INTO {self._table} ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",
                new,
            )
            self._connection.executemany(
                f"UPDATE {self._table} SET due_at = ?, claimable_at = ?, token = ?, spec = ?, state = ? "
                "WHERE rowid = ?",
                changed,
            )
            self._connection.executemany(
                f"UPDATE {self._table} SET claimable_at = ?, token = ? WHERE rowid = ?",
                aside,
            )
            return applied

    def read(self, keys: Sequence[str]) -> dict[str, Row]:
        return {record[0]: _row(record) for record in self._select_by_key(_COLUMNS, keys)}

    def page(self, task: str, after: str, limit: int) -> list[Row]:
        found = self._fetch(
            f"""
            SELECT {_COLUMNS} FROM {self._table} WHERE key = :task AND key > :after
            UNION ALL
            SELECT * FROM (
                SELECT {_COLUMNS} FROM {self._table}
                WHERE key >= :task || ':' AND key < :task || ';' AND key > :after ORDER BY key LIMIT :limit
            )
            LIMIT :limit
            """,
            {"task": task, "after": after, "limit": limit},
        )
        return [_row(record) for record in found]

    def tasks(self) -> list[str]:
        # SQLite has no skip scan for DISTINCT; this walks from each value to the next one through the index.
        found = self._fetch(
            f"""
            WITH RECURSIVE present(task) AS (
                SELECT min(task) FROM {self._table}
                UNION ALL
                SELECT (SELECT min(task) FROM {self._table} WHERE task > present.task)
                FROM present WHERE present.task IS NOT NULL
            ) SELECT task FROM present WHERE task IS NOT NULL
            """
        )
        return [_text(task) for (task,) in found]

    def time(self) -> None:
        pass

    def listener(self) -> None:
        pass

    def abort(self, thread: int) -> None:
        pass

    def close(self) -> None:
        self._connection.close()

    def _earliest(self, tasks: str) -> int | None:
        # What is no number sorts behind all of them, and is never claimable.
        (earliest,) = self._connection.execute(
            f"""
            SELECT min((
                SELECT CAST(min(claimable_at) AS INTEGER) FROM {self._table}
                WHERE task = request.value AND claimable_at <= {_LAST}
            )) FROM json_each(?) AS request
            """,
            (tasks,),
        ).fetchone()
        return None if earliest is None else int(earliest)

    def _select_by_key(self, columns: str, keys: Sequence[str]) -> list[Any]:
        return self._fetch(
            f"SELECT {columns} FROM {self._table} WHERE key IN (SELECT value FROM json_each(?))",
            (json.dumps(keys),),
        )

    def _fetch(self, statement: str, parameters: Mapping[str, object] | Sequence[object] = ()) -> list[Any]:
        """Returns the records that a statement finds, with signs for what cannot be read of a damaged text."""
        try:
            return self._connection.execute(statement, parameters).fetchall()
        except sqlite3.OperationalError as error:
            if not str(error).startswith(_UNREADABLE):
                raise
            # From now on, since it is still there the next time; it takes a third longer for all the others.
            self._connection.text_factory = _readable
            return self._connection.execute(statement, parameters).fetchall()
