"""Several processes on one SQLite file: the work is shared, taken over, and never done twice."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import anyio

from anyscheduler import Context, Scheduler
from tests.process.programs import DATABASE, LOOPS, leased, stored

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from anyscheduler import Task
    from tests.process.programs import Programs

SECOND = 1_000_000
STATIC_TASKS = 80

# One write per line: the kernel appends each as a whole, whoever else appends.
RECORDING = f"""
app = Scheduler(sqlite_database="schedule.db", concurrency_limit=10)
records = os.open("records", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

async def record(context):
    line = f"{{os.getpid()}}|{{context.task}}|{{micros(context.scheduled_at)}}|{{time.time_ns() // 1000}}\\n"
    os.write(records, line.encode())
    await anyio.sleep(0.01)

for number in range({STATIC_TASKS}):
    app.task(interval=timedelta(seconds=1), name=f"task {{number}}")(record)

once = app.dynamic_task(name="once")(record)
"""


class Record(NamedTuple):
    """One execution; instants in microseconds since the epoch."""

    pid: int
    task: str
    scheduled_at: int
    started_at: int


def records(directory: Path) -> list[Record]:
    lines = (directory / "records").read_text(encoding="utf-8").splitlines()
    return [
        Record(int(pid), task, int(scheduled_at), int(started_at))
        for pid, task, scheduled_at, started_at in (line.split("|") for line in lines)
    ]


def scheduler_of_once() -> tuple[Scheduler, Task]:
    """An app that schedules instances of `once` into the file of the programs, and runs none itself."""
    app = Scheduler(sqlite_database=DATABASE)

    @app.dynamic_task()
    async def once(context: Context) -> None:
        raise NotImplementedError

    return app, once


def test_four_processes_run_every_occurrence_exactly_once_and_share_the_work(
    programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # All start on a file that does not exist yet.
    together = [programs.run(RECORDING, *LOOPS[name]) for name in ("asyncio", "trio", list(LOOPS)[-1], "trio")]
    for program in together:
        program.until(r"running \d+ tasks? on SQLite")
    began = time.monotonic()
    monkeypatch.chdir(tmp_path)
    app, once = scheduler_of_once()
    wanted: dict[str, int] = {}

    async def schedule_once_offs() -> None:
        chance = random.Random(4)
        async with app.create() as app_context:
            while time.monotonic() - began < 8:
                moment = datetime.now(UTC) + timedelta(microseconds=chance.randint(-100_000, 1_000_000))
                name = f"{len(wanted)}"
                await app_context.schedule_task(once, name, execute_at=moment)
                wanted[f"once:{name}"] = int((moment - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1))
                await anyio.sleep(0.1)

    anyio.run(schedule_once_offs)
    time.sleep(max(0.0, 10 - (time.monotonic() - began)))
    for program in together:
        program.send(signal.SIGTERM)
    assert [program.ends() for program in together] == [0, 0, 0, 0]  # which looks for trouble in the logs as well
    assert not any(program.matching("WARNING") for program in together)

    done = records(tmp_path)
    assert [record for record in done if record.started_at < record.scheduled_at] == []
    by_task: dict[str, list[int]] = defaultdict(list)
    for record in done:
        by_task[record.task].append(record.scheduled_at)
    once_offs = {task: runs for task, runs in by_task.items() if task.startswith("once:")}
    assert len(wanted) > 40
    assert once_offs == {task: [at] for task, at in wanted.items()}
    rows = stored(tmp_path)
    assert leased(tmp_path) == set()
    static = {task: sorted(runs) for task, runs in by_task.items() if task not in once_offs}
    assert static.keys() == rows.keys()
    for task, runs in static.items():
        assert len(runs) > 7
        # Each a second after the one before: none is missing, none is there twice.
        assert {after - before for before, after in pairwise([*runs, rows[task].due_at])} == {SECOND}, task
    shares = Counter(record.pid for record in done)
    assert shares.keys() == {program.pid for program in together}
    assert min(shares.values()) > len(done) / len(together) / 10, shares


TAKEN_OVER = """
app = Scheduler(sqlite_database="schedule.db")
every = {"interval": timedelta(milliseconds=300), "lease_duration": timedelta(seconds=1)}

@app.task(**every, heartbeat=True)
async def at_least_once(context):
    at = micros(context.scheduled_at)
    tell("begins at_least_once", at)
    await anyio.sleep(float(os.environ["SECONDS"]))
    tell("ends at_least_once", at)

@app.task(**every, execution_mode=ExecutionMode.AT_MOST_ONCE)
async def at_most_once(context):
    tell("begins at_most_once", micros(context.scheduled_at))
    await anyio.sleep(float(os.environ["SECONDS"]))

@app.dynamic_task(execution_mode=ExecutionMode.AT_MOST_ONCE)
async def once(context):
    tell("begins once", context.task.name)
    await anyio.sleep(float(os.environ["SECONDS"]))

@app.fixture()
async def schedules(app_context):
    if os.environ["SECONDS"] != "0":
        await app_context.schedule_task(once, "x", execute_at=datetime.now(UTC))
    yield
"""


def test_what_a_killed_process_was_executing_is_taken_over_after_its_lease_unless_it_runs_at_most_once(
    programs: Programs, loop: tuple[str, ...], tmp_path: Path
) -> None:
    first = programs.run(TAKEN_OVER, *loop, SECONDS="600")
    (begun,) = first.until("> begins at_least_once")
    first.until("> begins at_most_once")
    first.until("> begins once x")
    second = programs.run(TAKEN_OVER, *loop, SECONDS="0")
    second.until(r"running \d+ tasks? on SQLite")
    time.sleep(1.5)  # For longer than the lease: the heartbeat keeps it.
    assert not second.matching("> begins (at_least_once|once) ")
    first.send(signal.SIGKILL)
    assert first.ends() == -signal.SIGKILL
    assert second.until("> begins at_least_once")[0] == begun
    assert second.until("> ends at_least_once")[0] == begun.replace("begins", "ends")
    second.until("> begins at_least_once", times=3)  # it catches up
    second.send(signal.SIGTERM)
    assert second.ends() == 0
    starts = Counter([*first.told, *second.told])
    assert {line: count for line, count in starts.items() if "at_most_once" in line and count > 1} == {}
    assert starts["begins once x"] == 1
    assert "once:x" not in stored(tmp_path)
    assert leased(tmp_path) == set()


def test_an_instance_that_another_process_schedules_on_the_same_file_is_executed(
    programs: Programs, loop: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = """
app = Scheduler(sqlite_database="schedule.db")

@app.dynamic_task()
async def once(context):
    tell("hello", context.args["friend"])
"""
    program = programs.run(source, *loop)
    program.until(r"running \d+ tasks? on SQLite")
    monkeypatch.chdir(tmp_path)
    app, once = scheduler_of_once()

    async def schedule() -> None:
        async with app.create() as app_context:
            await app_context.schedule_task(once, "x", execute_at=datetime.now(UTC), friend="bill")

    anyio.run(schedule)
    program.until("> hello")
    program.send(signal.SIGINT)
    assert program.ends() == 0
    assert stored(tmp_path) == {}


def test_a_task_of_a_newer_deployment_is_left_alone_by_a_process_that_does_not_know_it(
    programs: Programs, tmp_path: Path
) -> None:
    newer = """
app = Scheduler(sqlite_database="schedule.db")

@app.task(interval=timedelta(milliseconds=50))
async def old(context):
    tell("old")

@app.task(interval=timedelta(milliseconds=50))
async def new(context):
    tell("new")
"""
    program = programs.run(newer)
    program.until("> new")
    program.send(signal.SIGINT)
    assert program.ends() == 0
    left = stored(tmp_path)["new"]
    older = programs.run(newer[: newer.rindex("@app")])
    older.until("> old", times=5)
    older.send(signal.SIGINT)
    assert older.ends() == 0
    assert len(older.matching("WARNING .*left untouched: new")) == 1
    assert stored(tmp_path)["new"] == left
