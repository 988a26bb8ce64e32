"""The stores that the contract of `repository.py` is checked for. Another store is one more entry of `STORES`."""

# tokens are fences, and no passwords

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, TypeAlias

from anyscheduler.lease import Change, Row, register
from anyscheduler.memory import memory_repository
from anyscheduler.postgres import postgres_repository
from anyscheduler.redis import redis_repository
from anyscheduler.repository import ClaimRequest, Repository
from anyscheduler.sqlite import sqlite_repository
from tests.servers import shared

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
        has_clock: Whether it has a clock of its own, which those who share it go by.
        announces: Whether those who listen in one place learn what is written there.
    """

    name: str
    new_place: Callable[[Path], Opener]
    is_shared: bool = True
    has_clock: bool = True
    announces: bool = True


def _sqlite_file(directory: Path) -> Opener:
    return partial(sqlite_repository, sqlite_database=directory / f"schedules-{next(_numbers)}.db")


def _postgres_table(_: Path) -> Opener:
    return partial(
        postgres_repository,
        postgres_url=shared.postgres_url(),
        postgres_table_name=f"conformance_{os.getpid()}_{next(_numbers)}",
    )


def _redis_namespace(_: Path) -> Opener:
    return partial(
        redis_repository,
        redis_url=shared.redis_url(),
        redis_namespace=f"conformance-{os.getpid()}-{next(_numbers)}",
    )


STORES = (
    Store("memory", lambda _: memory_repository, is_shared=False, has_clock=False, announces=False),
    Store("sqlite", _sqlite_file, has_clock=False, announces=False),
    Store("postgres", _postgres_table),
    Store("redis", _redis_namespace),
)


LEASE = 1_000
"""What `requests` asks for, in microseconds."""


def requests(*tasks: str) -> list[ClaimRequest]:
    """Returns a request for each task, in their order."""
    return [ClaimRequest(task, LEASE) for task in tasks]


def free_row(key: str, due_at: int = 0, *, token: str = "t0", spec: str = "") -> Row:
    """Returns a row that nobody holds."""
    return register(key, key.partition(":")[0], due_at, token, spec=spec)


async def insert(repository: Repository, *rows: Row) -> None:
    """Stores rows that must not be there yet."""
    applied = await repository.write([Change(row.key, None, row) for row in rows])
    assert applied == [True] * len(rows)


async def stored_rows(repository: Repository, *tasks: str) -> list[Row]:
    """Returns all rows of the tasks."""
    return [row for task in tasks for row in await repository.list(task, "", 1_000_000)]
