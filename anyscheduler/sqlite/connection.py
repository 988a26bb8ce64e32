"""A connection to the file: how both come to be, and how a transaction ends.

Knows: files, the sqlite3 driver, the table. Must not know: what is read and written there.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from anyscheduler.errors import ConfigurationError
from anyscheduler.lease import Row

if TYPE_CHECKING:
    from collections.abc import Iterator

_BUSY_TIMEOUT_SECONDS = 2.0

_CHECKPOINT_PAGES: Final = 4_000
"""After how many pages (16 MiB as a rule) the log is copied into the file, which waits for the disk. With SQLite's own
1,000 that is a third of the time that a thousand executions take."""

_creating: Final = threading.Lock()
"""Held while a file is created, so that no other thread connects to it before the descriptor is closed again."""


def connect(path: str, table: str) -> sqlite3.Connection:
    """Returns a connection to the file, which any thread may use, one at a time; creates the file and the table.

    Raises:
        ConfigurationError: The file cannot be created.
        sqlite3.Error: It cannot be used.
    """
    _create_private(path)
    # autocommit: every transaction begins and ends in plain sight.
    connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        _use_wal(connection)
        # In WAL mode NORMAL survives a killed process; a power cut may take back the last commits, as a whole.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        _create_table(connection, table)
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Holds the write lock meanwhile; commits, or undoes everything if something is raised.

    Raises:
        sqlite3.Error: The lock could not be had within two seconds, or the file could not be written to.
    """
    # IMMEDIATE: a transaction that reads first and writes later would find its snapshot outdated and fail at once,
    # without waiting for the busy timeout.
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # Whatever went wrong, KeyboardInterrupt included, the connection must not stay inside the transaction.
        # After some errors (a full disk) SQLite has rolled back by itself.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _create_private(path: str) -> None:
    """Creates the file readable by its owner alone; SQLite gives its companions (-wal, -shm) the same mode.

    A file that exists is left to SQLite: closing any descriptor of it would drop all the locks that this process has on
    it, those of another connection as well.
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


def _use_wal(connection: sqlite3.Connection) -> None:
    # Several processes that open a new file at once would all switch its mode, which SQLite answers to all but one with
    # "locked", at once and without the busy timeout.
    give_up_at = time.monotonic() + _BUSY_TIMEOUT_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > give_up_at:
                raise
            time.sleep(0.02)
        else:
            return


def _create_table(connection: sqlite3.Connection, table: str) -> None:
    with transaction(connection):
        connection.execute(
            f"""
            CREATE TABLE IF NOT EXISTS "{table}" (
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
        connection.execute(f'CREATE INDEX IF NOT EXISTS "{table}.claimable" ON "{table}" (task, claimable_at, key)')
        connection.execute(f'SELECT {", ".join(Row._fields)} FROM "{table}" LIMIT 0')
        # Deletes nothing, and fails if the file may not be written to, which nothing before needs to notice.
        connection.execute(f'DELETE FROM "{table}" WHERE 0')
