"""The store in a SQLite file: shared by any number of processes on one machine.

Knows: `Row`, SQL, the sqlite3 driver. Must not know: leases, triggers.

`_Database` is plain synchronous code, one transaction per method; `threaded.py` runs it, one call at a time.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import threading
import time
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.to_thread

from anyscheduler import options
from anyscheduler.backoff import Backoff, Outage
from anyscheduler.errors import ConfigurationError
from anyscheduler.lease import Change, Row, later_token
from anyscheduler.repository import Claimed, ClaimRequest
from anyscheduler.threaded import ThreadedRepository

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from contextlib import AbstractAsyncContextManager

    from anyscheduler.repository import Repository

_BUSY_TIMEOUT_SECONDS = 2.0
_TABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_TRANSIENT = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL}
"""Errors that pass: another program holds the file, or the disk is full."""

_creating = threading.Lock()
"""Held while a file is created, so that no other thread connects to it before the descriptor is closed again."""

_COLUMNS = ", ".join(Row._fields)
_AMONG = "rowid IN (SELECT value FROM json_each(?))"

_CHECKPOINT_PAGES = 4_000
"""After how many pages (16 MiB as a rule) the log is copied into the file, which waits for the disk. With SQLite's own
1,000 that is a third of the time that a thousand executions take."""
_TYPES: Final = (str, str, int, int, str, str, str)
_NOT_A_ROW: Final = "not a row: "
"""How the state begins of a row that could not be read: what stands there is shown, and never written back."""
_LAST: Final = 2**63 - 1


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


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


class _Database:
    """One connection to the file, used by one thread at a time."""

    errors: Final = (sqlite3.Error, OverflowError, UnicodeEncodeError)

    def __init__(self, path: str, table: str) -> None:
        self._path = path
        self._create_private(path)
        # autocommit: every transaction below begins and ends in plain sight. The rows are those of one statement only.
        self._connection = sqlite3.connect(
            path, timeout=_BUSY_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False
        )
        # A damaged text must come out as something: raising would fail the claim of every other row with it.
        self._connection.text_factory = partial(str, encoding="utf-8", errors="replace")
        self._table = f'"{table}"'
        try:
            self._use_wal()
            # In WAL mode NORMAL survives a killed process; a power cut may take back the last commits, as a whole.
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
            self._create_table(table)
        except BaseException:
            self._connection.close()
            raise

    def claim(
        self,
        requests: Sequence[ClaimRequest],
        limit: int,
        now: int | None,
        token: str,
        not_after: int | None = None,  # noqa: ARG002  # it goes by the clock of this machine
    ) -> Claimed:
        assert now is not None, "there is no clock of its own"
        tasks = json.dumps([task for task, _ in requests])
        # Outside the transaction first: a poll that finds nothing due leaves the write lock to others.
        earliest = self._earliest(tasks)
        if earliest is None or earliest > now:
            return Claimed([], earliest, now)
        with self._transaction():
            found = self._due(tasks, limit, now)
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
                    f"UPDATE {self._table} SET claimable_at = ?, token = ? WHERE {_AMONG}",  # noqa: S608
                    (*values, json.dumps(rowids)),
                )
            return Claimed(rows, self._earliest(tasks), now)

    def _due(self, tasks: str, limit: int, now: int) -> list[Any]:
        """Returns up to `limit` due rows with the index of their request and their rowid, in the order of fairness.

        First the tasks that have any, then as many rows of each as an even share of the limit; if tasks have fewer than
        that and the limit is not reached, again with a larger share. Only the index is read for that, and the whole
        row of no more than is returned, so neither waiting rows nor a long backlog cost anything.
        """
        due = self._connection.execute(
            f"""
            SELECT json_group_array(json_array(key, value)), count(*) FROM (
                SELECT key, value FROM json_each(:tasks) AS request
                WHERE EXISTS (SELECT 1 FROM {self._table} WHERE task = request.value AND claimable_at <= :now)
                LIMIT :limit
            )
            """,  # noqa: S608  # the name is checked and quoted; the columns are ours
            {"tasks": tasks, "now": now, "limit": limit},
        ).fetchone()
        requests, count = due
        share = -(-limit // max(count, 1))
        while True:
            found = self._connection.execute(
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
                SELECT {", ".join("stored." + field for field in Row._fields)}, chosen.request, chosen.id
                FROM chosen CROSS JOIN {self._table} AS stored ON stored.rowid = chosen.id
                ORDER BY chosen.turn, chosen.request
                """,  # noqa: S608
                {"requests": requests, "now": now, "share": share, "limit": limit},
            ).fetchall()
            if len(found) == limit or share == limit:
                return found
            share = limit

    def write(self, changes: Sequence[Change], *, announce: bool = False) -> list[bool]:  # noqa: ARG002  # there is nobody to tell
        with self._transaction():
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
                self._connection.execute(f"DELETE FROM {self._table} WHERE {_AMONG}", (json.dumps(gone),))  # noqa: S608
            self._connection.executemany(
                f"INSERT INTO {self._table} ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
                new,
            )
            self._connection.executemany(
                f"UPDATE {self._table} SET due_at = ?, claimable_at = ?, token = ?, spec = ?, state = ? "  # noqa: S608
                "WHERE rowid = ?",
                changed,
            )
            self._connection.executemany(
                f"UPDATE {self._table} SET claimable_at = ?, token = ? WHERE rowid = ?",  # noqa: S608
                aside,
            )
            return applied

    def read(self, keys: Sequence[str]) -> dict[str, Row]:
        return {record[0]: _row(record) for record in self._select_by_key(_COLUMNS, keys)}

    def page(self, task: str, after: str, limit: int) -> list[Row]:
        found = self._connection.execute(
            f"""
            SELECT {_COLUMNS} FROM {self._table} WHERE key = :task AND key > :after
            UNION ALL
            SELECT * FROM (
                SELECT {_COLUMNS} FROM {self._table}
                WHERE key >= :task || ':' AND key < :task || ';' AND key > :after ORDER BY key LIMIT :limit
            )
            LIMIT :limit
            """,  # noqa: S608
            {"task": task, "after": after, "limit": limit},
        )
        return [_row(record) for record in found.fetchall()]

    def tasks(self) -> list[str]:
        # SQLite has no skip scan for DISTINCT; this walks from each value to the next one through the index.
        found = self._connection.execute(
            f"""
            WITH RECURSIVE present(task) AS (
                SELECT min(task) FROM {self._table}
                UNION ALL
                SELECT (SELECT min(task) FROM {self._table} WHERE task > present.task)
                FROM present WHERE present.task IS NOT NULL
            ) SELECT task FROM present WHERE task IS NOT NULL
            """  # noqa: S608
        )
        return [_text(task) for (task,) in found.fetchall()]

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
            """,  # noqa: S608
            (tasks,),
        ).fetchone()
        return None if earliest is None else int(earliest)

    def _select_by_key(self, columns: str, keys: Sequence[str]) -> list[Any]:
        return self._connection.execute(
            f"SELECT {columns} FROM {self._table} WHERE key IN (SELECT value FROM json_each(?))",  # noqa: S608
            (json.dumps(keys),),
        ).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        # IMMEDIATE: a transaction that reads first and writes later would find its snapshot outdated and fail at once,
        # without waiting for the busy timeout.
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            # Whatever went wrong, KeyboardInterrupt included, the connection must not stay inside the transaction.
            # After some errors (a full disk) SQLite has rolled back by itself.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    @staticmethod
    def _create_private(path: str) -> None:
        """Creates the file readable by its owner alone; SQLite gives its companions (-wal, -shm) the same mode.

        A file that exists is left to SQLite: closing any descriptor of it would drop all the locks that this process
        has on it, those of another connection as well.
        Source: "How To Corrupt An SQLite Database File", section 2.2, of SQLite's documentation.
        """
        if path == ":memory:":
            return
        try:
            with _creating:
                # What a link points to is created, by SQLite too if it were left to it, and then for everybody.
                os.close(os.open(os.path.realpath(path), os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        except FileExistsError:
            return
        except OSError as error:
            reason = error.strerror
            raise ConfigurationError(f"sqlite_database={path!r} cannot be opened: {reason}") from error

    def _use_wal(self) -> None:
        # Several processes that open a new file at once would all switch its mode, which SQLite answers to all but one
        # with "locked", at once and without the busy timeout.
        give_up_at = time.monotonic() + _BUSY_TIMEOUT_SECONDS
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > give_up_at:
                    raise
                time.sleep(0.02)
            else:
                return

    def _create_table(self, table: str) -> None:
        with self._transaction():
            self._connection.execute(
                f"""
                CREATE TABLE IF NOT EXISTS {self._table} (
                    key TEXT NOT NULL PRIMARY KEY CHECK (typeof(key) = 'text'),
                    task TEXT NOT NULL CHECK (typeof(task) = 'text'),
                    due_at INTEGER NOT NULL CHECK (typeof(due_at) = 'integer'),
                    claimable_at INTEGER NOT NULL CHECK (typeof(claimable_at) = 'integer'),
                    token TEXT NOT NULL CHECK (typeof(token) = 'text'),
                    spec TEXT NOT NULL CHECK (typeof(spec) = 'text'),
                    state TEXT NOT NULL CHECK (typeof(state) = 'text')
                )
                """
            )
            self._connection.execute(
                f'CREATE INDEX IF NOT EXISTS "{table}.claimable" ON {self._table} (task, claimable_at, key)'
            )
            self._connection.execute(f"SELECT {_COLUMNS} FROM {self._table} LIMIT 0")  # noqa: S608
            # Deletes nothing, and fails if the file may not be written to, which nothing before needs to notice.
            self._connection.execute(f"DELETE FROM {self._table} WHERE 0")  # noqa: S608


def sqlite_repository(
    *, sqlite_database: str | os.PathLike[str], sqlite_table_name: str = "anyscheduler"
) -> AbstractAsyncContextManager[Repository]:
    """Returns a context manager that opens a SQLite file as the store, and creates file and table if they are missing.

    Args:
        sqlite_database: The path of the file, in a directory that exists and that processes may write to; `:memory:`
            for a database of this context alone. A file that is created is readable by its owner only.
        sqlite_table_name: The table to use: a letter or an underscore, then letters, digits and underscores, at most
            63 characters together. Apps that are to share nothing can share a file under different table names.

    Raises:
        ConfigurationError: The options are malformed (at this call), or the file cannot be used as a database because
            it is missing its directory, is a directory, is read-only, or is something else (when it is opened).
    """
    given: object = sqlite_database
    path = os.fspath(given) if isinstance(given, str | os.PathLike) else ""
    if not isinstance(path, str) or not path or "\0" in path:
        options.refuse("sqlite_database", given, "the path of a file")
    name: object = sqlite_table_name
    if not isinstance(name, str) or _TABLE_NAME.fullmatch(name) is None:
        options.refuse("sqlite_table_name", sqlite_table_name, "letters, digits and underscores, at most 63")
    if sqlite_table_name.lower().startswith("sqlite_"):
        options.refuse("sqlite_table_name", sqlite_table_name, "not a name that SQLite keeps for itself")
    if path != ":memory:":
        # Absolute, so that its log lines tell where it is, and a changed working directory does not matter.
        path = str(Path(path).absolute())
    return _open(path, sqlite_table_name)


@asynccontextmanager
async def _open(path: str, table: str) -> AsyncIterator[Repository]:
    limiter = anyio.CapacityLimiter(1)
    backoff = Backoff("opening the SQLite file", Outage())
    database = None
    while database is None:
        try:
            database = await anyio.to_thread.run_sync(_Database, path, table, limiter=limiter)
        except sqlite3.Error as error:
            if error.sqlite_errorcode & 0xFF not in _TRANSIENT:
                raise ConfigurationError(f"sqlite_database={path!r} cannot be used: {error}") from error
            await anyio.sleep(backoff.failed(error))
    backoff.succeeded()
    repository = ThreadedRepository(database, f"SQLite file {path!r}, table {table!r}", threads=1)
    try:
        yield repository
    finally:
        await repository.close()
