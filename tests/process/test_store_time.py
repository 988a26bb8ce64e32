"""Whose time counts, who hears of what: workers whose clock is off, that sleep for an hour, or run another version."""

from __future__ import annotations

import os
import re
import signal
import time
from collections import Counter
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

import anyscheduler
from anyscheduler import Context, Scheduler
from tests.process.ledger import (
    SECOND,
    Entry,
    assert_none_doubled,
    assert_none_early,
    assert_none_skipped,
    assert_nothing_is_leased,
    of_event,
)
from tests.process.programs import LOOPS
from tests.process.workers import Store, on_each

if TYPE_CHECKING:
    from anyscheduler import Task
    from tests.process.workers import Workers

GENEROUS = 5 * SECOND
"""How late something may begin on a machine that is busy with something else."""

OFF_SECONDS = 20

PACKAGE = str(Path(anyscheduler.__file__).parents[1])

# The interpreter imports it before anything else.
SITECUSTOMIZE = """
import os, time

_time_ns = time.time_ns
_offset = int(os.environ["CLOCK_IS_AHEAD_BY"]) * 10**9
time.time_ns = lambda: _time_ns() + _offset
time.time = lambda: time.time_ns() / 1e9
"""

# The bodies that are scheduled once take longer than the shorter lease, and none as long as the clock is off.
SHARED = """
app = Scheduler(**STORE)

async def work(context):
    record("begins", context)
    await anyio.sleep(float(context.args.get("seconds", 0)))
    record("ends", context)

for number in range(10):
    app.task(interval=timedelta(seconds=1), name=f"task {number}")(work)

extended = app.dynamic_task(name="extended", lease_duration=timedelta(seconds=2), heartbeat=True)(work)
leased = app.dynamic_task(name="leased", lease_duration=timedelta(seconds=15))(work)

@app.fixture()
async def schedules(app_context):
    if "LONG" in os.environ:
        for task in (extended, leased):
            await app_context.schedule_task(task, "x", execute_at=datetime.now(UTC), seconds=6)
    yield
"""
LONG = {"extended:x", "leased:x"}


@pytest.fixture
def stores(postgres_url: str, redis_url: str) -> list[Store]:
    """A new place in each store that has a clock of its own, and tells processes of each other."""
    return [Store.postgres(postgres_url), Store.redis(redis_url)]


def now() -> int:
    return time.time_ns() // 1000


def has_begun(tasks: set[str], ledger: list[Entry]) -> bool:
    return {entry.task for entry in ledger} >= tasks


@pytest.mark.parametrize("ahead_by", [OFF_SECONDS, -OFF_SECONDS])
def test_a_worker_whose_clock_is_off_runs_nothing_early_or_late_and_takes_no_lease_that_lives(
    stores: list[Store], tmp_path: Path, ahead_by: int
) -> None:
    (tmp_path / "sitecustomize.py").write_text(SITECUSTOMIZE, encoding="utf-8")

    def scenario(workers: Workers) -> None:
        right = workers.start(SHARED, "asyncio", LONG="yes")
        workers.until(partial(has_begun, LONG), "the long ones have begun")
        off = workers.start(
            SHARED,
            "trio",
            CLOCK_IS_AHEAD_BY=str(ahead_by),
            PYTHONPATH=os.pathsep.join([str(tmp_path), PACKAGE]),
        )
        workers.until(
            lambda ledger: {entry.task for entry in of_event("ends", ledger)} >= LONG, "the long ones have ended"
        )
        right.send(signal.SIGTERM)
        assert right.ends() == 0
        alone_since = now()

        def runs_alone(ledger: list[Entry]) -> bool:
            recent = [entry for entry in of_event("ends", ledger) if entry.scheduled_at > alone_since]
            return len({entry.scheduled_at for entry in recent if entry.pid == off.pid}) >= 2

        workers.until(runs_alone, "the one whose clock is off executes all by itself")
        off.send(signal.SIGTERM)
        assert off.ends() == 0

        ledger, rows = workers.ledger(), workers.store.rows()
        assert_none_early(ledger)
        assert_none_doubled(ledger)
        assert_none_skipped(ledger, rows, SECOND)
        assert_nothing_is_leased(rows)
        assert [entry for entry in of_event("begins", ledger) if entry.at > entry.scheduled_at + GENEROUS] == []
        assert {entry.pid for entry in ledger if entry.task in LONG} == {right.pid}
        (line,) = off.matching("the clock of this machine")
        (seconds, where) = re.findall(r"is ([0-9.]+) s (ahead of|behind) the store's", line)[0]
        assert abs(float(seconds) - OFF_SECONDS) < 1
        assert where == ("ahead of" if ahead_by > 0 else "behind")
        assert not right.matching("the clock")

    on_each(stores, tmp_path, scenario)


ASLEEP = """
app = Scheduler(**STORE, poll_interval=timedelta(hours=1))

@app.dynamic_task()
async def once(context):
    record("begins", context)
"""


def scheduler_of_once(store: Store) -> tuple[Scheduler, Task]:
    """An app that schedules instances of `once`, and runs none itself."""
    app = Scheduler(**store.options)

    @app.dynamic_task()
    async def once(context: Context) -> None:
        raise NotImplementedError

    return app, once


def test_a_worker_that_would_sleep_for_an_hour_begins_at_once_what_another_process_schedules(
    stores: list[Store], tmp_path: Path
) -> None:
    def scenario(workers: Workers) -> None:
        app, once = scheduler_of_once(workers.store)

        async def schedule(name: str) -> None:
            async with app.create() as app_context:
                await app_context.schedule_task(once, name, execute_at=datetime.now(UTC))

        # Each worker gets its turn alone: only one of several would be told from one that finds things by polling.
        for loop in LOOPS:
            program = workers.start(ASLEEP, loop)
            program.until("running 1 task on")
            for number in range(3):
                anyio.run(schedule, f"{loop} {number}")
                workers.until(partial(has_begun, {f"once:{loop} {number}"}), "it has begun")
            program.send(signal.SIGTERM)
            assert program.ends() == 0
        ledger = workers.ledger()
        assert len(ledger) == 3 * len(LOOPS)
        assert [entry for entry in ledger if entry.at > entry.scheduled_at + GENEROUS] == []
        assert workers.store.rows() == {}

    on_each(stores, tmp_path, scenario)


VERSION = """
app = Scheduler(**STORE)

async def work(context):
    record("begins", context)
    record("ends", context)

for name in os.environ["TASKS"].split():
    app.task(interval=timedelta(milliseconds=300), name=name)(work)
"""


def test_two_versions_of_an_app_run_what_they_know_and_another_place_in_the_same_store_shares_nothing(
    stores: list[Store], tmp_path: Path
) -> None:
    def scenario(workers: Workers) -> None:
        place, other_place = workers.store, workers.store.beside()
        older = workers.start(VERSION, "asyncio", TASKS="old both")
        workers.until(partial(has_begun, {"old", "both"}), "the older version runs")
        newer = workers.start(VERSION, "trio", TASKS="both new")
        elsewhere = workers.start(VERSION, list(LOOPS)[-1], place=other_place, TASKS="both elsewhere")

        def have_run(ledger: list[Entry]) -> bool:
            runs = Counter((entry.pid == elsewhere.pid, entry.task) for entry in of_event("ends", ledger))
            return len(runs) == 5 and min(runs.values()) >= 5

        workers.until(have_run, "all have run")
        older.send(signal.SIGTERM)
        assert older.ends() == 0
        again = workers.start(VERSION, "asyncio", TASKS="old both")
        workers.until(lambda ledger: any(entry.pid == again.pid for entry in ledger), "the older version runs again")
        for program in (newer, again, elsewhere):
            program.send(signal.SIGTERM)
            assert program.ends() == 0

        unknown = {program: program.matching("WARNING") for program in (older, newer, again, elsewhere)}
        assert [len(lines) for lines in unknown.values()] == [0, 1, 1, 0]
        assert unknown[newer][0].endswith("they are left untouched: old")
        assert unknown[again][0].endswith("they are left untouched: new")
        ledger = workers.ledger()
        known = {older.pid: {"old", "both"}, again.pid: {"old", "both"}, newer.pid: {"both", "new"}}
        assert [entry for entry in ledger if entry.task not in known.get(entry.pid, {"both", "elsewhere"})] == []
        for there, tasks, pids in (
            (place, {"old", "both", "new"}, known.keys()),
            (other_place, {"both", "elsewhere"}, {elsewhere.pid}),
        ):
            rows, own = there.rows(), [entry for entry in ledger if entry.pid in pids]
            assert rows.keys() == tasks
            assert_none_doubled(own)
            assert_none_skipped(own, rows, 300_000)
            assert_nothing_is_leased(rows)

    on_each(stores, tmp_path, scenario)
