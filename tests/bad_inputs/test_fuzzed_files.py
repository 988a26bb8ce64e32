"""Rows that were written past the store: other types in a SQLite file, other bytes in Redis. Nobody else's row suffers.

`ANYSCHEDULER_FUZZ_EXAMPLES` is as in `test_fuzzing.py`. In PostgreSQL a column has a type that nobody gets past.
"""

from __future__ import annotations

import math
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from anyscheduler.lease import Change, Row, release
from anyscheduler.repository import ClaimRequest
from anyscheduler.sqlite.database import SqliteDatabase
from tests.bad_inputs.test_fuzzing import fuzzed
from tests.conformance.redis_scene import opened
from tests.conformance.stores import free_row
from tests.servers.redis import client, start_redis

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from anyscheduler.redis.database import RedisDatabase
    from anyscheduler.threaded import Database

NOW: Final = 1_000_000
LEASE: Final = 1_000
TYPES: Final = (str, str, int, int, str, str, str)
GOOD: Final = ["a:1", "a:3", "b"]
ROWS: Final = [free_row(key, 5, spec='{"v":1}') for key in ("a:1", "a:2", "a:3", "b")]


def check(database: Database) -> None:
    """Checks that all can be done to the good ones, and that the damaged one comes out as a row, if at all."""
    requests = [ClaimRequest("a", LEASE), ClaimRequest("b", LEASE)]
    listed = [*database.page("a", "", 100), *database.page("b", "", 100)]
    claimed = database.claim(requests, 100, NOW, "t1").rows
    read = [*database.read([row.key for row in ROWS]).values()]
    for rows in (listed, claimed, read):
        assert [row for row in rows if [*map(type, row)] != [*TYPES]] == []
        assert set(GOOD) <= {row.key for row in rows}
    assert {"a", "b"} <= set(database.tasks())
    again = database.claim(requests, 100, NOW, "t2")
    assert again.rows == []
    assert again.next_claimable is not None
    # Whatever was claimed can be put aside, and that is what is stored then.
    changes = [release(row, NOW + 5 * LEASE, "t3") for row in claimed if row.key in {good.key for good in ROWS}]
    assert all(database.write(changes))
    put_aside = database.read([change.key for change in changes])
    assert {row.claimable_at for row in put_aside.values() if row.key in GOOD} == {NOW + 5 * LEASE}


# --- SQLite -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Iterator[tuple[SqliteDatabase, sqlite3.Connection]]:
    """A database, and somebody who writes to its file past the checks of the table."""
    path = str(tmp_path / "schedules.db")
    with closing(SqliteDatabase(path, "anyscheduler")) as database, closing(sqlite3.connect(path)) as other:
        other.isolation_level = None
        other.execute("PRAGMA ignore_check_constraints = ON")
        yield database, other


values = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=8),
    st.binary(max_size=8),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),  # which SQLite takes for NULL, and refuses
)


@given(st.sampled_from(Row._fields), values)
@example("claimable_at", "soon")
@example("claimable_at", b"\xff\x00")
@example("claimable_at", 1.5)
@example("claimable_at", math.inf)
@example("claimable_at", -math.inf)
@example("due_at", "soon")
@example("due_at", b"")
@example("due_at", 1.5)
@example("key", b"a:2\xff")
@example("task", b"\xff")
@example("token", b"t0")
@example("spec", b"{}")
@example("state", b"\xff")
@fuzzed(150)
def test_a_value_of_any_type_in_a_file_is_the_affair_of_its_own_row(
    file: tuple[SqliteDatabase, sqlite3.Connection], column: str, value: Any
) -> None:
    database, other = file
    other.execute("DELETE FROM anyscheduler")
    assert database.write([Change(row.key, None, row) for row in ROWS]) == [True] * len(ROWS)
    other.execute(f"UPDATE anyscheduler SET {column} = ? WHERE key = 'a:2'", (value,))
    rest = f"SELECT due_at, spec, state FROM anyscheduler WHERE key NOT IN ({', '.join(map(repr, GOOD))})"
    before = other.execute(rest).fetchall()

    check(database)

    assert other.execute(rest).fetchall() == before


# --- Redis ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def namespace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RedisDatabase, Any]]:
    """A database, and somebody with redis-cli."""
    with (
        start_redis(tmp_path_factory.mktemp("fuzzed")) as server,
        client(server) as redis,
        opened(server.url) as database,
    ):
        yield database, redis


TEXT: Final = b'[5,"t0",5,"","{\\"v\\":1}"]'
spoilt = st.builds(
    lambda start, length, put: TEXT[:start] + put + TEXT[start + length :],
    st.integers(0, len(TEXT)),
    st.integers(0, 6),
    st.binary(max_size=4) | st.sampled_from([b"9" * 20, b"9" * 5_000, b'"', b"\\", b"[", b"-", b".5", b"e9", b"null"]),
)


@given(spoilt | st.binary(max_size=30), st.none() | st.floats(allow_nan=False))
@example(b"[" + b"9" * 5_000 + b',"t0",5,"",""]', math.inf)
@example(b"", -math.inf)
@fuzzed(150)
def test_whatever_bytes_and_score_there_are_in_redis_they_are_the_affair_of_their_own_row(
    namespace: tuple[RedisDatabase, Any], text: bytes, score: float | None
) -> None:
    database, redis = namespace
    redis.delete(*(name for name in redis.keys("{anyscheduler}:*") if not name.endswith(b":format")), "unused")
    assert database.write([Change(row.key, None, row) for row in ROWS]) == [True] * len(ROWS)
    redis.hset("{anyscheduler}:rows", "a:2", text)
    if score is not None:
        redis.zadd("{anyscheduler}:due:a", {"a:2": score})

    check(database)
