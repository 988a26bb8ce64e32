"""The stores that the contract of `repository.py` is checked for. Another store is one more entry of `STORES`."""

# tokens are fences, and no passwords

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, TypeAlias

from anyscheduler.lease import Change, Row, register
from anyscheduler.memory import memory_repository
from anyscheduler.repository import ClaimRequest, Repository
from anyscheduler.sqlite import sqlite_repository

if TYPE_CHECKING:
    from pathlib import Path

Opener: TypeAlias = Callable[[], AbstractAsyncContextManager[Repository]]
"""Opens one place in a store; called again, it opens the same place once more, as another process would."""

_numbers = count()


@dataclass(frozen=True)
class Store:
    """A store under test.

    Attributes:
        name: How test ids call it.
        new_place: Returns the opener of a place that nobody has used before; files belong into the directory.
        is_shared: Whether those who open one place find the same rows in it.
    """

    name: str
    new_place: Callable[[Path], Opener]
    is_shared: bool


def _sqlite_file(directory: Path) -> Opener:
    return partial(sqlite_repository, sqlite_database=directory / f"schedules-{next(_numbers)}.db")


STORES = (
    Store("memory", lambda _: memory_repository, is_shared=False),
    Store("sqlite", _sqlite_file, is_shared=True),
)


LEASE = 1_000
"""What `requests` asks for, in microseconds."""


def requests(*tasks: str) -> list[ClaimRequest]:
    """Returns a request for each task, in their order."""
    return [ClaimRequest(task, LEASE) for task in tasks]


def free_row(key: str, due_at: int = 0, task: str = "", *, token: str = "t0", spec: str = "") -> Row:
    """Returns a row that nobody holds; its task is the part of the key before a colon unless it is given."""
    return register(key, task or key.partition(":")[0], due_at, token, spec=spec)


async def insert(repository: Repository, *rows: Row) -> None:
    """Stores rows that must not be there yet."""
    applied = await repository.write([Change(row.key, None, row) for row in rows])
    assert applied == [True] * len(rows)


async def stored_rows(repository: Repository, *tasks: str) -> list[Row]:
    """Returns all rows of the tasks."""
    return [row for task in tasks for row in await repository.list(task, "", 1_000_000)]
