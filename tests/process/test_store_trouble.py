"""A SQLite file that cannot be written for a while: the app says so, waits, and then does everything once."""

from __future__ import annotations

import signal
import sqlite3
import time
from contextlib import closing
from itertools import pairwise
from typing import TYPE_CHECKING

from tests.process.programs import DATABASE, LOOPS, leased, stored

if TYPE_CHECKING:
    from pathlib import Path

    from tests.process.programs import Program, Programs

FAILED = "the store failed while"
BACK = "the store is back after"

TICKING = """
app = Scheduler(sqlite_database="schedule.db", sqlite_table_name=os.environ.get("TABLE", "anyscheduler"))

async def tick(context):
    tell(context.task, micros(context.scheduled_at))
    await anyio.sleep(0.05)

for number in range(20):
    app.task(interval=timedelta(milliseconds=200), name=f"task{number}")(tick)
"""


def assert_each_ran_once(told: list[str], directory: Path, table: str = "anyscheduler") -> None:
    rows = stored(directory, table)
    assert len(rows) == 20
    for key, row in rows.items():
        runs = sorted(int(line.split()[1]) for line in told if line.split()[0] == key)
        assert len(runs) > 5
        # It caught up: each occurrence is there, 200 ms after the one before, and none is there twice.
        assert {after - before for before, after in pairwise([*runs, row.due_at])} == {200_000}, key
    assert leased(directory, table) == set()


def assert_trouble_was_told_once(program: Program) -> None:
    told = [FAILED if FAILED in line else BACK for line in program.matching(f"{FAILED}|{BACK}")]
    assert told == [FAILED, BACK], str(program)
    assert not program.matching("Traceback|ERROR|CRITICAL")


def test_a_file_that_another_program_locks_is_waited_for(programs: Programs, tmp_path: Path) -> None:
    # On one file, but with a table for each, so that each has something to do at any moment.
    together = [programs.run(TICKING, *LOOPS[name], TABLE=name) for name in LOOPS]
    for program in together:
        program.until("> task", times=20)
    # Other programs wait for each other as well, if their transactions are short.
    with closing(sqlite3.connect(tmp_path / DATABASE, isolation_level=None, timeout=30)) as other:
        other.execute("BEGIN IMMEDIATE")
        for program in together:
            program.until(FAILED)
        time.sleep(0.5)
        other.execute("ROLLBACK")
    for program in together:
        program.until(BACK)
        program.until("> task", times=len(program.told) + 100)
        program.send(signal.SIGTERM)
        assert program.ends(troubled=True) == 0
    for program, table in zip(together, LOOPS, strict=True):
        assert_each_ran_once(program.told, tmp_path, table)
        assert_trouble_was_told_once(program)


def test_a_file_system_that_is_full_is_waited_for(programs: Programs, loop: tuple[str, ...], tmp_path: Path) -> None:
    # A process whose files must not grow gets the same errors from the system as one whose disk is full, and needs
    # nobody to mount a small disk for it.
    source = f"""
def fill(number, frame):
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))

def empty(number, frame):
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

signal.signal(signal.SIGUSR1, fill)
signal.signal(signal.SIGUSR2, empty)
{TICKING}"""
    program = programs.run(source, *loop)
    program.until("> task", times=20)
    program.send(signal.SIGUSR1)
    program.until(FAILED)
    time.sleep(0.5)
    program.send(signal.SIGUSR2)
    program.until(BACK)
    program.until("> task", times=len(program.told) + 100)
    program.send(signal.SIGTERM)
    assert program.ends(troubled=True) == 0
    assert_each_ran_once(program.told, tmp_path)
    assert_trouble_was_told_once(program)


def test_a_file_that_is_locked_while_the_app_starts_is_waited_for(programs: Programs, tmp_path: Path) -> None:
    first = programs.run(TICKING)
    first.until("> task", times=20)
    first.send(signal.SIGTERM)
    assert first.ends() == 0
    with closing(sqlite3.connect(tmp_path / DATABASE, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        second = programs.run(TICKING)
        second.until("locked")
        other.execute("ROLLBACK")
    second.until("> task", times=120)
    second.send(signal.SIGTERM)
    assert second.ends(troubled=True) == 0
    assert_trouble_was_told_once(second)
    assert_each_ran_once([*first.told, *second.told], tmp_path)
