"""Four workers on each store, on different event loops: they share the work, and every occurrence is executed once."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

from tests.process.ledger import (
    SECOND,
    assert_none_doubled,
    assert_none_early,
    assert_none_skipped,
    assert_nothing_is_leased,
    assert_work_is_shared,
    of_event,
)
from tests.process.workers import Store, on_each

if TYPE_CHECKING:
    from pathlib import Path

    from tests.process.workers import Workers

WORKERS = 4
SECONDS = 20
TASKS = {"sqlite": 200, "postgres": 1_000, "redis": 1_000}

EVERY_SECOND = """
app = Scheduler(**STORE)

async def tick(context):
    record("begins", context)
    await anyio.sleep(0.01)
    record("ends", context)

for number in range(int(os.environ["TASKS"])):
    app.task(interval=timedelta(seconds=1), name=f"task {number}")(tick)
"""


def run_for_a_while(workers: Workers) -> None:
    tasks = TASKS[workers.store.kind]
    # All begin at the same time, with a place in the store that does not exist yet.
    group = workers.start_group(EVERY_SECOND, WORKERS, TASKS=str(tasks), LOG_LEVEL="WARNING")
    pids = {program.pid for program in group}
    workers.until(lambda ledger: pids <= {entry.pid for entry in ledger}, "all four have begun something")
    time.sleep(SECONDS)
    for program in group:
        program.send(signal.SIGTERM)
    assert [program.ends() for program in group] == [0] * WORKERS
    # On a machine that is busy with other things they say so.
    assert [line for program in group for line in program.lines if "woke up" not in line] == []

    ledger, rows = workers.ledger(), workers.store.rows()
    assert len(rows) == tasks
    assert len(of_event("begins", ledger)) > tasks * SECONDS / 2
    assert_none_early(ledger)
    assert_none_doubled(ledger)
    assert_none_skipped(ledger, rows, SECOND)
    assert_nothing_is_leased(rows)
    assert_work_is_shared(ledger, pids)


def test_four_workers_share_tasks_of_one_second_and_none_is_doubled_skipped_or_early(
    tmp_path: Path, postgres_url: str, redis_url: str
) -> None:
    stores = [Store.sqlite(tmp_path / "schedule.db"), Store.postgres(postgres_url), Store.redis(redis_url)]
    on_each(stores, tmp_path, run_for_a_while)
