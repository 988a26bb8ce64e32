"""What the tests of the PostgreSQL store share: names of their own, another client of the server, its counters.

Knows: psycopg, the catalog. Must not know: how the store does its work.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from urllib.parse import urlsplit

import anyio
import psycopg
import pytest

from anyscheduler.errors import ConfigurationError
from anyscheduler.postgres import postgres_repository

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anyscheduler.repository import Repository

_numbers = count(1)

SECRET = "canary"
"""Part of every password in these tests."""


def new_name(kind: str = "t") -> str:
    """Returns a name for a table, a schema or a role that nobody else has, also on a server that is shared."""
    return f"{kind}_{os.getpid()}_{next(_numbers)}"


def connect(url: str) -> psycopg.Connection[Any]:
    """Returns another client's connection, where each statement is a transaction; it is a context manager."""
    return psycopg.connect(url, autocommit=True, connect_timeout=10)


def execute(url: str, *statements: str) -> list[Any]:
    """Runs statements as another client, and returns what the last one gives."""
    with connect(url) as connection:
        cursor = connection.cursor()
        for statement in statements:
            cursor.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def channel_of(url: str, table: str) -> str:
    """Returns where changes of the table are announced."""
    ((oid,),) = execute(url, f"SELECT '{table}'::regclass::oid::bigint")
    return f"anyscheduler_{oid}"


def changed(url: str, *, user: str = "", password: str = "", path: str = "", query: str = "") -> str:
    """Returns the URL with other parts."""
    parts = urlsplit(url)
    address = parts.netloc.rpartition("@")[2]
    login = f"{user}:{password}@{address}" if user else parts.netloc
    return parts._replace(netloc=login, path=path or parts.path, query=query).geturl()


@contextmanager
def refused(*causes: str) -> Iterator[None]:
    """Expects that the store refuses to open, and names the causes and nothing secret."""
    with pytest.raises(ConfigurationError, match="postgres_url=") as caught:
        yield
    error: BaseException | None = caught.value
    for cause in causes:
        assert cause in str(error)
    while error is not None:
        assert SECRET not in str(error)
        error = error.__cause__


async def open_and_close(url: str, **options: Any) -> None:
    """Opens the store; what is not refused within a few seconds, but waited for, is a failure."""
    with anyio.fail_after(5):
        async with postgres_repository(postgres_url=url, **options):
            pass


class Effort(NamedTuple):
    """What the server did to a table and its indexes since they exist.

    Attributes:
        whole: How often it read all of the table.
        entries: How many rows and index entries it looked at.
        blocks: How many blocks it used, wherever it had them.
    """

    whole: int
    entries: int
    blocks: int

    def since(self, earlier: Effort) -> Effort:
        """Returns what was done since an earlier reading."""
        return Effort(*(now - before for now, before in zip(self, earlier, strict=True)))


def effort(url: str, repository: Repository, table: str) -> Effort:
    """Returns what was done to a table, all calls of a repository with one connection included."""
    # A session reports what it did at the end of a transaction, but not more often than once a second unless asked to.
    cast("Any", repository)._database._execute("SELECT pg_stat_force_next_flush()", {})
    ((whole, entries, blocks),) = execute(
        url,
        f"""
        SELECT coalesce(seq_scan, 0), coalesce(seq_tup_read, 0) + (
                SELECT coalesce(sum(idx_tup_read), 0) FROM pg_stat_user_indexes AS index WHERE index.relid = read.relid
            ), heap_blks_hit + heap_blks_read + idx_blks_hit + idx_blks_read
        FROM pg_stat_user_tables AS read JOIN pg_statio_user_tables AS used USING (relid)
        WHERE read.relid = '{table}'::regclass
        """,
    )
    return Effort(int(whole), int(entries), int(blocks))
