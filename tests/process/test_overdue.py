"""A week down: everything is overdue at once when the app comes back.

The default run has a few thousand schedules. `ANYSCHEDULER_OVERDUE` is another number of them, and what was measured is
printed then:

    ANYSCHEDULER_OVERDUE=1000000 pytest -s -o faulthandler_timeout=0 tests/process/test_overdue.py
"""

from __future__ import annotations

import os
import signal
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

import anyio
import pytest

from anyscheduler.lease import Change, register
from tests.process.ledger import SECOND
from tests.process.workers import Store, Workers

if TYPE_CHECKING:
    from pathlib import Path

    from tests.process.programs import Program

_WANTED: Final = int(os.environ.get("ANYSCHEDULER_OVERDUE", "0"))

COUNT: Final = _WANTED or 8_000
DAY: Final = 86_400 * SECOND
LOOP: Final = {"sqlite": "asyncio", "postgres": "trio", "redis": "asyncio"}
PATIENCE: Final = 60.0
"""Seconds without any progress after which it is taken to be stuck."""

DAILY: Final = '{"v":1,"interval":86400000000,"fast_forward":true}'
ONCE: Final = '{"v":1,"execute_at":0}'

SOURCE: Final = f"""
import gc
from pathlib import Path

app = Scheduler(**STORE)
done = 0

def resident():
    # Not the peak, in which that of the process that has forked this one is contained.
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((line.split()[1] for line in lines if line.startswith("VmRSS")), "0")

@app.dynamic_task()
async def work(context):
    global done
    done += 1
    if done % {COUNT // 10} == 0:
        gc.collect()
        tell("done", done, sys.getallocatedblocks(), resident())

@app.task(interval=timedelta(milliseconds=100))
async def steady(context):
    tell("steady", micros(context.scheduled_at), done)
"""


class Progress(NamedTuple):
    """How far the worker was, how many blocks of memory it had in use, and its resident memory in KiB; 0 if unknown."""

    done: int
    blocks: int
    resident: int


def of(word: str, program: Program) -> list[list[int]]:
    """Returns the numbers that the worker has told behind a word."""
    lines = [line.split() for line in program.told]
    return [[int(number) for number in numbers] for first, *numbers in lines if first == word]


async def fill(store: Store, due_at: int) -> None:
    """Stores schedules that are due one microsecond after the other: one half once, one half daily."""
    async with store.open() as repository:
        for first in range(0, COUNT, 1_000):
            rows = [
                register(f"work:{number}", "work", due_at + number, "0", spec=DAILY if number % 2 else ONCE)
                for number in range(first, min(first + 1_000, COUNT))
            ]
            assert all(await repository.write([Change(row.key, None, row) for row in rows]))


def wait(program: Program) -> None:
    """Waits until all was executed once, as long as it goes on."""
    seen, since = 0, time.monotonic()
    while not any(count == COUNT for count, *_ in of("done", program)):
        done = max((executed for _, executed in of("steady", program)), default=0)
        seen, since = (done, time.monotonic()) if done > seen else (seen, since)
        assert time.monotonic() < since + PATIENCE, f"{done} of {COUNT}:\n{program}"
        time.sleep(0.1)


def comes_back(workers: Workers) -> None:
    due_at = time.time_ns() // 1_000 - 7 * DAY
    anyio.run(fill, workers.store, due_at)
    started = time.monotonic()
    program = workers.start(SOURCE, LOOP[workers.store.kind], LOG_LEVEL="WARNING")
    wait(program)
    took = time.monotonic() - started
    program.send(signal.SIGTERM)
    assert program.ends() == 0

    # Each was executed once: the ones are gone, and the others are due tomorrow, as if they had never been late.
    rows = [row for row in workers.store.rows().values() if row.task == "work"]
    assert {(row.key, row.due_at, row.claimable_at) for row in rows} == {
        (f"work:{number}", due, due) for number in range(1, COUNT, 2) for due in [due_at + number + 8 * DAY]
    }
    assert of("done", program)[-1][0] == COUNT
    # A static task missed nothing, and did not wait for their end.
    steady = of("steady", program)
    assert {after - before for (before, _), (after, _) in pairwise(steady)} == {SECOND // 10}
    assert [executed for _, executed in steady if 0 < executed < COUNT] != []
    # What was executed is forgotten: nothing of it stays, except in caches that are full one day. What was under way
    # when it was counted is not much at all of these moments.
    progress = [Progress(*numbers) for numbers in of("done", program)]
    first, last = (
        Progress(part[0].done, min(it.blocks for it in part), max(it.resident for it in part))
        for part in (progress[:5], progress[5:])
    )
    assert 2 * (last.blocks - first.blocks) < last.done - first.done
    assert last.resident - first.resident < 16 * 1_024
    if _WANTED:
        print(
            f"{workers.store.kind}: {COUNT:,} in {took:,.0f} s, {len(steady):,} runs of the static task, resident "
            f"{first.resident / 1_024:.1f} MiB in the first half and {last.resident / 1_024:.1f} in the second, "
            f"{last.blocks - first.blocks:,} blocks more"
        )


@pytest.mark.parametrize("kind", LOOP)
def test_what_a_week_down_has_left_overdue_is_drained_beside_static_tasks_and_memory_stays_flat(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    match kind:
        case "sqlite":
            store = Store.sqlite(tmp_path / "schedule.db")
        case "postgres":
            store = Store.postgres(request.getfixturevalue("postgres_url"))
        case _:
            store = Store.redis(request.getfixturevalue("redis_url"))
    with Workers(store, tmp_path) as workers:
        comes_back(workers)
