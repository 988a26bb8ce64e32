"""The soak's own parts: the plan, the failpoints, the log. What is wrong with them would make every run green."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from anyscheduler import RepositoryError, Scheduler
from anyscheduler.lease import Change, Row, commit, extend, register, release
from anyscheduler.memory import memory_repository
from anyscheduler.repository import ClaimRequest
from tests.soak.app import task_facts
from tests.soak.failpoints import FailingRepository, Failpoints, failing
from tests.soak.log import Facts, Kind, Line, LogWriter, read_log
from tests.soak.plan import (
    FOR_ALL_AFTER,
    LEASE_SECONDS,
    LEAST_HITS,
    WINDOWS,
    WORKERS,
    Failpoint,
    Hold,
    Kill,
    Restart,
    Stop,
    failpoints_for,
    make_plan,
)
from tests.soak.report import Report
from tests.soak.worker import Pending

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

STORES = ["sqlite", "redis", "postgres"]
LEASE = 3_000_000
DUE = 1_000


@pytest.mark.parametrize("store", STORES)
def test_a_seed_gives_the_same_plan_again_and_another_seed_another_one(store: str) -> None:
    assert make_plan(7, store, 60) == make_plan(7, store, 60)
    assert make_plan(7, store, 60) != make_plan(8, store, 60)


@pytest.mark.parametrize("seconds", [60.0, 600.0])
@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("seed", range(5))
def test_a_plan_breaks_as_much_as_was_promised_for_each_minute(seed: int, store: str, seconds: float) -> None:
    plan = make_plan(seed, store, seconds)
    minutes = seconds / 60
    count = Counter(type(fault) for fault in plan.faults)
    killed = Counter(point.action for point in plan.failpoints)["kill"]
    assert count[Kill] + killed >= 30 * minutes
    assert count[Stop] >= 9 * minutes
    assert count[Hold if store == "sqlite" else Restart] >= 3 * minutes
    assert count[Restart if store == "sqlite" else Hold] == 0
    assert min(fault.seconds for fault in plan.faults if isinstance(fault, Stop)) > LEASE_SECONDS
    assert min(plan.stop_seconds) > LEASE_SECONDS
    assert 0 < min(fault.at for fault in plan.faults) < max(fault.at for fault in plan.faults) < seconds


def test_a_plan_hits_each_window_often_enough_with_each_action_that_belongs_there() -> None:
    hits = Counter((point.window, point.action) for point in make_plan(7, "redis", 60).failpoints)
    for window in WINDOWS:
        fails = "error" if window.startswith("before") else "lost"
        actions = {action: count for (where, action), count in hits.items() if where == window}
        assert actions.keys() - {"stop"} == {"kill", "delay", fails}
        assert sum(actions.values()) > LEAST_HITS
    stopped = {window.split()[1] for (window, action) in hits if action == "stop"}
    assert stopped == {window.split()[1] for window in WINDOWS}


def test_each_worker_reads_its_own_failpoints_and_later_those_that_nobody_came_through(tmp_path: Path) -> None:
    plan = make_plan(7, "redis", 60)
    plan.save(tmp_path / "plan.json")
    for slot in range(WORKERS):
        read = failpoints_for(tmp_path / "plan.json", slot)
        assert [point.at for _, point in read] == sorted(point.at for _, point in read)
        assert {number: point for number, point in read if point.slot == slot} == {
            number: point for number, point in enumerate(plan.failpoints) if point.slot == slot
        }
        assert {number: point.at for number, point in read if point.slot != slot} == {
            number: point.at + FOR_ALL_AFTER for number, point in enumerate(plan.failpoints) if point.slot != slot
        }


def test_a_failpoint_happens_to_one_worker_whichever_comes_first(tmp_path: Path) -> None:
    plan = make_plan(7, "redis", 60)
    plan.save(tmp_path / "plan.json")
    logs = [LogWriter(tmp_path / f"{slot}.0.log", f"{slot}.0") for slot in range(2)]
    workers = [Pending(tmp_path, slot, log) for slot, log in enumerate(logs)]
    assert [workers[slot].hit(3, plan.failpoints[3]) for slot in (1, 0, 1)] == [True, False, False]
    assert 3 not in dict(Pending(tmp_path, 0, logs[0]).points)
    point = plan.failpoints[3]
    told = [(line.process, line.detail) for line in read_log(tmp_path.glob("*.log"))]
    assert told == [("1.0", f"{point.window} {point.action}")]


@pytest.fixture
async def hits() -> list[tuple[int, str]]:
    return []


@pytest.fixture
async def repository() -> AsyncIterator[Any]:
    async with memory_repository() as opened:
        yield opened


def through(repository: Any, hits: list[tuple[int, str]], *points: tuple[str, str]) -> FailingRepository:
    """Returns the repository behind failpoints that are due at once; `most` is what runs at most once."""
    pending = [(number, Failpoint(0.0, 0, window, action)) for number, (window, action) in enumerate(points)]

    def hit(number: int, point: Failpoint) -> bool:
        hits.append((number, point.window))
        return True

    failpoints = Failpoints(pending, begin=0.0, seconds=float("inf"), hit=hit)
    return FailingRepository(repository, failpoints, at_most_once=lambda task: task == "most")


async def claimed(repository: FailingRepository, task: str) -> Row:
    row = register(task, task, DUE, f"token of {task}")
    assert await repository.write([Change(task, None, row)]) == [True]
    (held,) = (await repository.claim([ClaimRequest(task, LEASE)], 1, DUE, f"claim of {task}")).rows
    return held


@pytest.mark.anyio
async def test_an_error_before_a_call_leaves_the_store_as_it_was_and_the_next_call_goes_through(
    repository: Any, hits: list[tuple[int, str]]
) -> None:
    failing_one = through(repository, hits, ("before register", "error"))
    change = Change("task", None, register("task", "task", DUE, "token"))
    with pytest.raises(RepositoryError, match="before register"):
        await failing_one.write([change])
    assert await repository.read(["task"]) == {}
    assert await failing_one.write([change]) == [True]
    assert hits == [(0, "before register")]


@pytest.mark.anyio
async def test_a_reply_is_lost_after_the_call_was_made(repository: Any, hits: list[tuple[int, str]]) -> None:
    failing_one = through(repository, hits, ("after register", "lost"))
    row = register("task", "task", DUE, "token")
    with pytest.raises(RepositoryError, match="after register"):
        await failing_one.write([Change("task", None, row)])
    assert await repository.read(["task"]) == {"task": row}


@pytest.mark.anyio
@pytest.mark.parametrize("call", ["start", "commit", "extend", "release", "register", "unregister"])
async def test_a_write_is_known_for_what_it_is(repository: Any, hits: list[tuple[int, str]], call: str) -> None:
    behind = through(repository, hits, *((f"before {each}", "error") for each in ("start", "commit", "extend")))
    del hits[:]
    most, least = await claimed(behind, "most"), await claimed(behind, "least")
    change = {
        "start": commit(most, DUE + 1, "next"),
        "commit": commit(least, DUE + 1, "next"),
        "extend": Change(least.key, least.token, extend(least, DUE + 2 * LEASE)),
        "release": release(least, DUE, "next"),
        "register": Change("other", None, register("other", "other", DUE, "token")),
        "unregister": Change("other", "token", None),
    }[call]
    behind = through(repository, hits, (f"before {call}", "error"))
    behind._held.update({row.key: row for row in (most, least)})
    with pytest.raises(RepositoryError):
        await behind.write([change])
    assert hits == [(0, f"before {call}")]


@pytest.mark.anyio
async def test_nothing_happens_before_its_time_or_once_the_load_has_ended_or_if_it_has_happened_elsewhere(
    repository: Any,
) -> None:
    point = Failpoint(0.0, 0, "before claim", "error")
    later = Failpoints([(0, point._replace(at=1e12))], 0.0, float("inf"), lambda _number, _point: True)
    over = Failpoints([(1, point)], 0.0, 0.0, lambda _number, _point: True)
    taken = Failpoints([(2, point)], 0.0, float("inf"), lambda _number, _point: False)
    for failpoints in (later, over, taken):
        behind = FailingRepository(repository, failpoints, at_most_once=lambda _: False)
        assert (await behind.claim([ClaimRequest("task", LEASE)], 1, DUE, "token")).rows == []


def test_an_app_takes_the_options_of_the_store_behind_the_failpoints() -> None:
    none = Failpoints([], 0.0, 0.0, lambda _number, _point: True)
    factory = failing(memory_repository, none, at_most_once=lambda _: False)
    assert isinstance(Scheduler(repository_factory=factory), Scheduler)
    with pytest.raises(ValueError, match="colour"):
        Scheduler(repository_factory=factory, colour="red")


def test_the_lines_of_several_processes_are_read_in_order_of_time_and_as_they_were_written(tmp_path: Path) -> None:
    writers = {name: LogWriter(tmp_path / f"{name}.log", name) for name in ("0.0", "driver")}
    writers["driver"].write(Kind.BEGIN, process="0.0", detail="slot=0")
    writers["0.0"].write(Kind.START, store=5, key="once:\u00e9 \u2028", due=4, token="t")
    writers["driver"].write(Kind.EXIT, process="0.0", detail="0")
    for writer in writers.values():
        writer.close()
    lines = read_log(tmp_path.glob("*.log"))
    assert [(line.kind, line.process, line.detail) for line in lines] == [
        (Kind.BEGIN, "0.0", "slot=0"),
        (Kind.START, "0.0", ""),
        (Kind.EXIT, "0.0", "0"),
    ]
    assert lines[1] == Line(Kind.START, "0.0", lines[1].mono, store=5, key="once:\u00e9 \u2028", due=4, token="t")
    assert lines[0].mono <= lines[1].mono <= lines[2].mono


FACTS = Facts("redis", "trio", 7, 60.0, 0, 60_000_000, 3.0, 1.0, 40, ())
ENOUGH = {"kills": 30, "stops": 9, "server restarts": 3}
HITS = Counter({(window, "delay"): LEAST_HITS for window in WINDOWS})


def test_a_run_in_which_too_little_was_broken_is_invalid_and_says_why() -> None:
    assert Report(FACTS, ENOUGH, HITS, []).holds
    rare = Report(FACTS, {**ENOUGH, "kills": 29}, HITS - Counter({("after commit", "delay"): 1}), [])
    assert not rare.holds
    assert rare.missing == ["only 29 kills, 30 are needed", "after commit was hit 4 times, 5 are needed"]
    assert "INVALID: only 29 kills" in str(rare)


def test_a_longer_run_has_to_break_more() -> None:
    longer = Report(replace(FACTS, seconds=600.0), ENOUGH, HITS, [])
    assert len(longer.missing) == len(ENOUGH)


def test_facts_are_read_as_they_were_saved(tmp_path: Path) -> None:
    facts = replace(FACTS, tasks=task_facts())
    facts.save(tmp_path / "facts.json")
    assert Facts.read(tmp_path / "facts.json") == facts
