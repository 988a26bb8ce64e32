"""The store in a SQLite file: shared by any number of processes on one machine.

Knows: its options. Must not know: rows, SQL.

`database.py` is plain synchronous code; `threaded.py` runs it, one call at a time.
"""

from __future__ import annotations

import os
import re
import sqlite3
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread

from anyscheduler import options
from anyscheduler.backoff import Backoff, Outage
from anyscheduler.errors import ConfigurationError
from anyscheduler.sqlite.database import SqliteDatabase
from anyscheduler.threaded import ThreadedRepository

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from anyscheduler.repository import Repository

_TABLE_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_TRANSIENT: Final = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL}
"""Errors that pass: another program holds the file, or the disk is full."""


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
            database = await anyio.to_thread.run_sync(SqliteDatabase, path, table, limiter=limiter)
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
