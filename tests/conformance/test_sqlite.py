"""What only the SQLite store has: a file, its lock, and query plans."""

# tokens are fences, and no passwords

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast, overload

import anyio
import pytest

import anyscheduler.sqlite.connection
from anyscheduler.errors import ConfigurationError, RepositoryError
from anyscheduler.lease import Change, Row
from anyscheduler.repository import Claimed
from anyscheduler.sqlite import sqlite_repository
from anyscheduler.sqlite.database import SqliteDatabase
from anyscheduler.threaded import ThreadedRepository
from tests.conformance.stores import LEASE, free_row, insert, requests, stored_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NOW = 1_000_000
NOBODY = 65_534


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "schedules.db"


def raw(path: Path) -> sqlite3.Connection:
    """Another program that has the file open, and never waits for a lock."""
    return sqlite3.connect(path, isolation_level=None, timeout=0)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another program in the middle of a write."""
    with closing(raw(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


async def open_and_close(path: str | Path, **options: Any) -> None:
    async with sqlite_repository(sqlite_database=path, **options):
        pass


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["anyscheduler", "order", "SELECT", "t1", "_", "_1", "A" * 63, "index", "rowid", "key", "sqlit_e"]
)
@pytest.mark.anyio
async def test_a_table_name_of_letters_digits_and_underscores_works_whatever_it_means_to_sql(
    path: Path, name: str
) -> None:
    async with sqlite_repository(sqlite_database=path, sqlite_table_name=name) as repository:
        await insert(repository, free_row("a"))
        assert (await repository.claim(requests("a"), 5, NOW, "t1")).rows != []
        assert await repository.tasks() == ["a"]
        assert await repository.write([Change("a", "t1", None)]) == [True]


def test_the_options_alone_open_nothing(path: Path) -> None:
    sqlite_repository(sqlite_database=path)

    assert not path.exists()


@pytest.mark.anyio
async def test_the_path_may_be_text_or_path_and_the_description_shows_it(path: Path) -> None:
    for given in (path, str(path)):
        async with sqlite_repository(sqlite_database=given) as repository:
            assert str(path) in repository.description


@pytest.mark.parametrize(
    "name", ["with space.db", "100%.db", "a?mode=ro", "file:x", "#.db", "\u00e9\U0001f600.db", "'"]
)
@pytest.mark.anyio
async def test_a_file_may_have_any_name(tmp_path: Path, name: str) -> None:
    await open_and_close(tmp_path / name)

    assert (tmp_path / name).is_file()


@pytest.mark.anyio
async def test_two_table_names_share_a_file_and_nothing_else(path: Path) -> None:
    async with (
        sqlite_repository(sqlite_database=path, sqlite_table_name="one") as one,
        sqlite_repository(sqlite_database=path, sqlite_table_name="two") as two,
    ):
        await insert(one, free_row("a"))
        assert await two.tasks() == []
        assert await two.claim(requests("a"), 5, NOW, "t1") == Claimed([], None, NOW)


@pytest.mark.anyio
async def test_each_context_on_memory_has_a_database_of_its_own() -> None:
    async with (
        sqlite_repository(sqlite_database=":memory:") as one,
        sqlite_repository(sqlite_database=":memory:") as two,
    ):
        await insert(one, free_row("a"))
        assert await two.tasks() == []
        assert await one.tasks() == ["a"]
    assert not Path(":memory:").exists()


# --- the file ---------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_the_files_are_readable_by_their_owner_only_whatever_the_umask_says(path: Path) -> None:
    umask = os.umask(0)
    try:
        async with sqlite_repository(sqlite_database=path) as repository:
            await insert(repository, free_row("a"))
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(umask)

    assert modes == {"schedules.db": 0o600, "schedules.db-wal": 0o600, "schedules.db-shm": 0o600}


@pytest.mark.anyio
async def test_the_file_that_a_link_points_to_is_as_private(path: Path) -> None:
    link = path.with_name("link")
    link.symlink_to(path)

    await open_and_close(link)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.anyio
async def test_a_file_that_exists_keeps_the_mode_that_it_was_given(path: Path) -> None:
    path.touch()
    path.chmod(0o660)

    await open_and_close(path)

    assert stat.S_IMODE(path.stat().st_mode) == 0o660


def _as_directory(path: Path) -> None:
    path.mkdir()


def _without_its_directory(path: Path) -> None:
    path.parent.rmdir()


def _as_another_format(path: Path) -> None:
    path.write_bytes(b"%PDF-1.7 is certainly not a database" * 100)


def _truncated(path: Path) -> None:
    with closing(raw(path)) as connection:
        connection.execute("CREATE TABLE filler (text)")
        connection.executemany("INSERT INTO filler VALUES (?)", [("x" * 1_000,)] * 100)
    with path.open("r+b") as file:
        file.truncate(4_096)


def _truncated_in_the_header(path: Path) -> None:
    _truncated(path)
    with path.open("r+b") as file:
        file.truncate(50)


def _with_a_table_of_another_program(path: Path) -> None:
    with closing(raw(path)) as connection:
        connection.execute("CREATE TABLE anyscheduler (id INTEGER PRIMARY KEY, task TEXT)")


def _with_a_view_of_that_name(path: Path) -> None:
    with closing(raw(path)) as connection:
        connection.execute("CREATE VIEW anyscheduler AS SELECT 1 AS task")


@pytest.mark.parametrize(
    "spoil",
    [
        _as_directory,
        _without_its_directory,
        _as_another_format,
        _truncated,
        _truncated_in_the_header,
        _with_a_table_of_another_program,
        _with_a_view_of_that_name,
    ],
)
@pytest.mark.anyio
async def test_what_cannot_be_used_as_a_database_is_refused_at_the_start_with_its_path(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    directory = tmp_path / "data"
    directory.mkdir()
    path = directory / "s.db"
    spoil(path)
    before = path.read_bytes() if path.is_file() else None

    with pytest.raises(ConfigurationError, match="sqlite_database=") as caught:
        await open_and_close(path)

    assert "s.db" in str(caught.value)
    # Nothing was made of it that it was not; what SQLite notes in the header of a database is its own affair.
    assert before is None or path.read_bytes()[:16] == before[:16]


@pytest.mark.parametrize(("file_mode", "directory_mode"), [(0o444, 0o777), (0o666, 0o555)])
def test_what_may_not_be_written_to_is_refused_at_the_start_with_its_path(file_mode: int, directory_mode: int) -> None:
    # Not in tmp_path, which only its owner may enter.
    with tempfile.TemporaryDirectory() as created:
        directory = Path(created)
        path = directory / "s.db"
        anyio.run(open_and_close, path)
        path.chmod(file_mode)
        directory.chmod(directory_mode)
        user = os.geteuid()
        if user == 0:  # root may write to everything
            os.seteuid(NOBODY)
        try:
            with pytest.raises(ConfigurationError, match="sqlite_database=") as caught:
                anyio.run(open_and_close, path)
        finally:
            os.seteuid(user)
            directory.chmod(0o777)

    assert "s.db" in str(caught.value)


# To sqlite3 such text is an error of the whole statement.
@pytest.mark.parametrize("column", ["spec", "state", "token"])
@pytest.mark.anyio
async def test_text_that_is_damaged_in_the_file_is_the_affair_of_its_own_row(path: Path, column: str) -> None:
    async with sqlite_repository(sqlite_database=path) as repository:
        await insert(repository, *(free_row(f"a:{number}", number) for number in range(3)))
        with closing(raw(path)) as other:
            other.execute(f"UPDATE anyscheduler SET {column} = CAST(x'7bff' AS TEXT) WHERE key = 'a:1'")

        assert [row.key for row in await stored_rows(repository, "a")] == ["a:0", "a:1", "a:2"]
        assert sorted(await repository.read(["a:0", "a:1"])) == ["a:0", "a:1"]
        assert await repository.write([Change("a:2", "t0", None), Change("a:1", "t0", None)]) == [
            True,
            column != "token",
        ]
        claimed = await repository.claim(requests("a"), 10, NOW, "t1")
        assert [row.key for row in claimed.rows] == (["a:0", "a:1"] if column == "token" else ["a:0"])


@pytest.mark.parametrize("operation", ["claim of one task", "claim of two tasks", "write"])
@pytest.mark.anyio
async def test_whatever_first_meets_a_damaged_text_goes_on_inside_its_transaction(path: Path, operation: str) -> None:
    async with sqlite_repository(sqlite_database=path) as repository:
        await insert(repository, free_row("a:0", 0), free_row("a:1", 1), free_row("b:0", 0))
        with closing(raw(path)) as other:
            other.execute("UPDATE anyscheduler SET token = CAST(x'7bff' AS TEXT) WHERE key = 'a:1'")

        if operation == "write":
            changes = [Change("a:0", "t0", None), Change("a:1", "t0", None)]
            assert await repository.write(changes) == [True, False]
        else:
            tasks = "a" if operation == "claim of one task" else "ab"
            claimed = await repository.claim(requests(*tasks), 10, NOW, "t1")
            assert {row.key for row in claimed.rows} >= {"a:0", "a:1"}

        # The transaction has ended, so another connection can write.
        with closing(raw(path)) as other:
            other.execute("DELETE FROM anyscheduler WHERE key = 'b:0'")


@pytest.mark.anyio
async def test_a_key_that_is_damaged_in_the_file_is_the_affair_of_its_own_row(path: Path) -> None:
    async with sqlite_repository(sqlite_database=path) as repository:
        await insert(repository, *(free_row(f"a:{number}", number) for number in range(3)))
        with closing(raw(path)) as other:
            other.execute("UPDATE anyscheduler SET key = CAST(x'613aff' AS TEXT) WHERE key = 'a:1'")

        claimed = await repository.claim(requests("a"), 10, NOW, "t1")

        assert {"a:0", "a:2"} <= {row.key for row in claimed.rows}
        # It is leased like the others, and so does not come up again in every poll.
        assert await repository.claim(requests("a"), 10, NOW, "t2") == Claimed([], NOW + LEASE, NOW)
        assert len(await stored_rows(repository, "a")) == 3


# --- several connections ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("journal_mode", "lock"),
    [
        ("delete", "DEFERRED"),  # it reads, which is in the way of a change of the journal mode
        ("delete", "IMMEDIATE"),
        ("delete", "EXCLUSIVE"),
        ("wal", "IMMEDIATE"),
        ("wal", "EXCLUSIVE"),
    ],
)
def test_a_file_that_another_program_is_using_is_waited_for_at_the_start(
    path: Path, journal_mode: str, lock: str
) -> None:
    with ThreadPoolExecutor(1) as thread, closing(raw(path)) as other:
        other.execute(f"PRAGMA journal_mode = {journal_mode}")
        other.execute("CREATE TABLE another (text)")
        other.execute(f"BEGIN {lock}")
        other.execute("SELECT * FROM another").fetchall()
        opened = thread.submit(SqliteDatabase, str(path), "anyscheduler")
        with pytest.raises(TimeoutError):
            opened.result(0.05).close()
        other.execute("COMMIT")
        with closing(opened.result(30)) as database:
            assert database.tasks() == []


def test_eight_connections_can_create_the_table_at_the_same_time(tmp_path: Path) -> None:
    barrier = threading.Barrier(8)

    def create(path: str) -> list[str]:
        barrier.wait()
        with closing(SqliteDatabase(path, "anyscheduler")) as database:
            return database.tasks()

    with ThreadPoolExecutor(8) as threads:
        for number in range(40):
            results = list(threads.map(create, [str(tmp_path / f"{number}.db")] * 8))
            assert results == [[]] * 8


def test_eight_processes_can_create_the_table_at_the_same_time(path: Path) -> None:
    program = (
        "import sys\n"
        "from anyscheduler.sqlite.database import SqliteDatabase\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "database = SqliteDatabase(sys.argv[1], 'anyscheduler')\n"
        "print(database.tasks())\n"
        "database.close()\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(8)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    outputs = [process.communicate()[0] for process in processes]

    assert outputs == ["[]\n"] * 8
    assert [process.returncode for process in processes] == [0] * 8


def test_connections_that_claim_from_threads_never_get_the_same_row(path: Path) -> None:
    with closing(SqliteDatabase(str(path), "anyscheduler")) as database:
        database.write([Change(f"a:{number:03}", None, free_row(f"a:{number:03}")) for number in range(400)])
    barrier = threading.Barrier(4)

    def take(name: int) -> list[str]:
        keys: list[str] = []
        with closing(SqliteDatabase(str(path), "anyscheduler")) as database:
            barrier.wait()
            while rows := database.claim(requests("a"), 3, NOW, f"{name}.{len(keys)}").rows:
                keys += [row.key for row in rows]
        return keys

    with ThreadPoolExecutor(4) as threads:
        shares = list(threads.map(take, range(4)))

    assert sorted(key for share in shares for key in share) == [f"a:{number:03}" for number in range(400)]


@pytest.mark.anyio
async def test_a_file_that_stays_locked_is_a_repository_error_and_works_again_afterwards(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anyscheduler.sqlite.connection, "_BUSY_TIMEOUT_SECONDS", 0.02)
    row = free_row("a")
    async with sqlite_repository(sqlite_database=path) as repository:
        await insert(repository, row)
        with locked(path):
            with pytest.raises(RepositoryError, match="locked") as caught:
                await repository.write([Change("a", "t0", None)])
            with pytest.raises(RepositoryError, match="locked"):
                await repository.claim(requests("a"), 5, NOW, "t1")
            # Reading needs no lock.
            assert await repository.read(["a"]) == {"a": row}
            assert await stored_rows(repository, "a") == [row]
            assert await repository.tasks() == ["a"]
        assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
        assert str(path) in str(caught.value)
        assert [claimed.key for claimed in (await repository.claim(requests("a"), 5, NOW, "t1")).rows] == ["a"]
        assert await repository.write([Change("a", "t1", None)]) == [True]


@pytest.mark.anyio
async def test_a_short_lock_of_another_program_is_waited_for(path: Path) -> None:
    async with sqlite_repository(sqlite_database=path) as repository:
        async with anyio.create_task_group() as group:
            with locked(path):
                group.start_soon(insert, repository, free_row("a"))
                await anyio.sleep(0.05)
        assert await repository.read(["a"]) == {"a": free_row("a")}


@pytest.mark.anyio
async def test_a_file_that_stays_locked_at_the_start_is_tried_again_until_it_is_free_and_that_is_said_once(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(anyscheduler.sqlite.connection, "_BUSY_TIMEOUT_SECONDS", 0.02)
    await open_and_close(path)
    with locked(path), anyio.move_on_after(0.5) as patience:
        await open_and_close(path)
    assert patience.cancelled_caught
    assert [record.message.count("database is locked") for record in caplog.records] == [1]
    await open_and_close(path)


@pytest.mark.anyio
async def test_a_poll_that_finds_nothing_due_needs_no_write_lock(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anyscheduler.sqlite.connection, "_BUSY_TIMEOUT_SECONDS", 0.0)
    async with sqlite_repository(sqlite_database=path) as repository:
        with locked(path):
            assert await repository.claim(requests("a"), 5, NOW, "t1") == Claimed([], None, NOW)
        await insert(repository, free_row("a", NOW + 1), free_row("other"))
        with locked(path):
            assert await repository.claim(requests("a"), 5, NOW, "t1") == Claimed([], NOW + 1, NOW)


@pytest.mark.anyio
async def test_a_write_that_is_cancelled_while_it_waits_for_the_lock_is_complete(path: Path) -> None:
    async with sqlite_repository(sqlite_database=path) as repository:
        async with anyio.create_task_group() as group:
            with locked(path):
                group.start_soon(insert, repository, free_row("a"))
                await anyio.sleep(0.05)
                # This one waits for the thread, and so has not begun.
                group.start_soon(insert, repository, free_row("b"))
                await anyio.sleep(0.02)
                group.cancel_scope.cancel()
        assert await stored_rows(repository, "a", "b") == [free_row("a")]


# --- errors in the middle of a transaction ----------------------------------------------------------------------------


class Interrupted(Sequence[Change]):
    """Changes during whose application the process gets a signal."""

    def __init__(self, *changes: Change) -> None:
        self._changes = changes

    @overload
    def __getitem__(self, index: int) -> Change: ...
    @overload
    def __getitem__(self, index: slice) -> NoReturn: ...
    def __getitem__(self, index: int | slice) -> Change:
        if not isinstance(index, int):
            raise TypeError
        if index == len(self._changes):
            raise KeyboardInterrupt
        return self._changes[index]

    def __len__(self) -> int:
        return len(self._changes) + 1


def test_whatever_interrupts_a_transaction_it_is_rolled_back_and_the_connection_stays_usable(path: Path) -> None:
    with closing(SqliteDatabase(str(path), "anyscheduler")) as database, closing(raw(path)) as other:
        with pytest.raises(KeyboardInterrupt):
            database.write(Interrupted(Change("a", None, free_row("a"))))
        # The lock is free for others at once,
        other.execute("BEGIN IMMEDIATE")
        other.execute("ROLLBACK")
        # nothing was applied, and the connection works on.
        assert database.read(["a"]) == {}
        assert database.write([Change("a", None, free_row("a"))]) == [True]
        assert database.claim(requests("a"), 1, NOW, "t1").rows != []


@pytest.mark.parametrize("bad", [object(), 2**63, 1.5, None, "soon"])
@pytest.mark.anyio
async def test_a_row_that_sqlite_refuses_spoils_its_write_as_a_whole_and_no_later_one(path: Path, bad: Any) -> None:
    good, spoilt = free_row("a"), free_row("b")._replace(due_at=bad)
    async with sqlite_repository(sqlite_database=path) as repository:
        with pytest.raises((RepositoryError, OverflowError)):
            await repository.write([Change("a", None, good), Change("b", None, spoilt)])
        assert await repository.read(["a", "b"]) == {}
        await insert(repository, good)
        assert await repository.read(["a", "b"]) == {"a": good}


@pytest.mark.anyio
async def test_a_table_that_disappears_is_a_repository_error_until_it_is_back(path: Path) -> None:
    async with sqlite_repository(sqlite_database=path) as repository:
        await insert(repository, free_row("a"))
        with closing(raw(path)) as other:
            other.execute("ALTER TABLE anyscheduler RENAME TO moved")
            for call in (
                repository.claim(requests("a"), 5, NOW, "t1"),
                repository.write([Change("a", "t0", None)]),
                repository.read(["a"]),
                repository.list("a", "", 5),
                repository.tasks(),
            ):
                with pytest.raises(RepositoryError, match="anyscheduler"):
                    await call
            other.execute("ALTER TABLE moved RENAME TO anyscheduler")
        assert await repository.read(["a"]) == {"a": free_row("a")}


# --- cost -------------------------------------------------------------------------------------------------------------


def fill(path: Path, task: str, rows: int, claimable_at: int) -> None:
    """Adds rows of one task, the first claimable at the given instant and each a microsecond after the one before."""
    with closing(raw(path)) as connection:
        connection.execute(
            "WITH RECURSIVE numbers(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < :rows) "
            "INSERT INTO anyscheduler SELECT :task || ':' || printf('%09d', n), :task, :at + n, :at + n, 't0', '', '' "
            "FROM numbers",
            {"rows": rows, "task": task, "at": claimable_at},
        )


OPERATIONS: dict[str, Callable[[SqliteDatabase], object]] = {
    "poll": lambda database: database.claim(requests("idle", "unknown", "crowd"), 10, NOW, "t1"),
    "claim": lambda database: database.claim(requests("due", "also", "idle", "crowd", "unknown"), 10, NOW, "t1"),
    "write": lambda database: database.write(
        [
            Change("new", None, free_row("new")),
            Change("idle:000000003", "t0", free_row("idle:000000003", token="t5")),
            Change("idle:000000004", "t0", None),
            Change("idle:000000005", "wrong", None),
        ]
    ),
    "read": lambda database: database.read(["idle:000000001", "idle:000000002", "unknown"]),
    "page": lambda database: database.page("idle", "idle:000000500", 10),
    "tasks": lambda database: database.tasks(),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_no_statement_reads_the_table_or_an_index_from_end_to_end(path: Path, operation: str) -> None:
    statements: list[str] = []
    with closing(SqliteDatabase(str(path), "anyscheduler")) as database, closing(raw(path)) as other:
        fill(path, "due", 50, 0)
        fill(path, "also", 50, 0)  # what is due of two tasks is shared out
        fill(path, "idle", 1_000, NOW + 1)
        database._connection.set_trace_callback(statements.append)
        OPERATIONS[operation](database)
        database._connection.set_trace_callback(None)
        plans = [
            detail
            for statement in statements
            if statement.lstrip().startswith(("SELECT", "WITH", "UPDATE", "DELETE"))
            for _, _, _, detail in other.execute(f"EXPLAIN QUERY PLAN {statement}")
        ]

    assert [plan for plan in plans if plan.startswith("SEARCH") and "USING" in plan] != []
    # What may be read from end to end is the request itself, and what was found for it.
    allowed = ("request", "json_each", "(subquery", "present", "candidates", "chosen", "CONSTANT ROW")
    assert [plan for plan in plans if plan.startswith("SCAN") and not plan[5:].startswith(allowed)] == []


def steps_of(path: Path, operation: Callable[[SqliteDatabase], object]) -> int:
    """Returns how many instructions of SQLite's virtual machine an operation takes."""
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    with closing(SqliteDatabase(str(path), "anyscheduler")) as database:
        database._connection.set_progress_handler(count, 1)
        operation(database)
        database._connection.set_progress_handler(None, 1)
    return steps


def test_no_operation_costs_more_because_of_the_rows_that_it_does_not_concern(tmp_path: Path) -> None:
    steps: dict[str, list[int]] = {name: [] for name in OPERATIONS}
    for rows in (2_000, 100_000):
        path = tmp_path / f"{rows}.db"
        SqliteDatabase(str(path), "anyscheduler").close()
        fill(path, "due", 20, 0)
        fill(path, "also", 20, 0)
        fill(path, "idle", rows, NOW + 1)  # not due yet
        fill(path, "other", rows, 0)  # overdue, and of a task that nobody here knows
        for name, operation in OPERATIONS.items():
            steps[name].append(steps_of(path, operation))

    # Equal but for the depth of the tree, which takes no instructions.
    assert {name: many for name, (_, many) in steps.items()} == {name: few for name, (few, _) in steps.items()}


def test_an_overdue_crowd_makes_a_claim_no_dearer(tmp_path: Path) -> None:
    steps = []
    for rows in (2_000, 100_000):
        path = tmp_path / f"{rows}.db"
        SqliteDatabase(str(path), "anyscheduler").close()
        fill(path, "due", 20, 0)
        fill(path, "crowd", rows, 0)
        steps.append(steps_of(path, OPERATIONS["claim"]))

    assert steps[1] == steps[0]


@pytest.mark.anyio
async def test_bodies_that_fill_the_default_threads_do_not_starve_the_store(path: Path) -> None:
    release = threading.Event()
    async with sqlite_repository(sqlite_database=path) as repository:
        limiter = anyio.to_thread.current_default_thread_limiter()
        async with anyio.create_task_group() as group:
            for _ in range(int(limiter.total_tokens)):
                group.start_soon(partial(anyio.to_thread.run_sync, release.wait))
            try:
                while limiter.available_tokens:
                    await anyio.sleep(0)
                with anyio.fail_after(10):
                    await insert(repository, free_row("a"))
                    assert [*await repository.tasks()] == ["a"]
            finally:
                release.set()


def test_a_claimed_row_is_the_row_that_is_stored(path: Path) -> None:
    row = Row("a", "a", 3, 5, "t0", "{}", "[]")
    with closing(SqliteDatabase(str(path), "anyscheduler")) as database:
        database.write([Change("a", None, row)])
        claimed = database.claim(requests("a"), 1, NOW, "t1").rows
        assert claimed == [row._replace(claimable_at=NOW + LEASE, token="t1")]
        assert database.page("a", "", 9) == claimed


@pytest.mark.anyio
async def test_the_factory_yields_the_repository_of_the_documentation(path: Path) -> None:
    async with sqlite_repository(sqlite_database=path) as repository:
        assert isinstance(repository, ThreadedRepository)


_COPIES = """
import sqlite3, sys
other = sqlite3.connect(sys.argv[1])
print(other.execute("SELECT count(*) FROM anyscheduler").fetchone()[0])
other.close()
"""


@pytest.mark.anyio
async def test_a_second_context_on_a_file_leaves_the_locks_of_the_first_in_place(path: Path) -> None:
    # POSIX drops all locks of a process on a file when it closes any descriptor of it. Without its locks here, another
    # program takes itself for the last one, and removes the log in which the rows still are.
    async with sqlite_repository(sqlite_database=path) as repository:
        await insert(repository, free_row("a"))
        await open_and_close(path)
        for _ in range(2):
            seen = await anyio.run_process([sys.executable, "-c", _COPIES, str(path)])
            assert seen.stdout.split() == [b"1"]
        assert path.with_name(path.name + "-wal").exists()
        await insert(repository, free_row("b"))
        seen = await anyio.run_process([sys.executable, "-c", _COPIES, str(path)])
        assert seen.stdout.split() == [b"2"]


def test_a_call_that_asyncio_cut_off_keeps_the_connection_to_itself_until_it_ends(path: Path) -> None:
    async def scene() -> None:
        async with sqlite_repository(sqlite_database=path) as repository:
            # Each statement takes a while, so that the caller, and with it the place in the limiter, is gone while the
            # thread is still inside of its transaction.
            cast("Any", repository)._database._connection.set_trace_callback(lambda _: time.sleep(0.05))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(repository.write([Change("a", None, free_row("a"))]), 0.08)
            assert await repository.write([Change("b", None, free_row("b"))]) == [True]
            assert set(await repository.read(["a", "b"])) == {"a", "b"}

    asyncio.run(scene())
