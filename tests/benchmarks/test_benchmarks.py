"""The benchmarks themselves, as far as they need no peers and no servers."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.benchmarks import programs, table
from tests.benchmarks.comparison import Case, Figure, Group, Target
from tests.benchmarks.groups import GROUPS
from tests.benchmarks.measurements import drain_among, idle, ours
from tests.benchmarks.progress import Progress
from tests.benchmarks.stores import Store, Stores

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def stores() -> Iterator[Stores]:
    with Stores() as stores:
        yield stores


def test_for_each_group_it_is_known_how_long_a_case_takes() -> None:
    Progress(dict.fromkeys(GROUPS, 1), is_quick=False)


def test_the_table_says_of_each_target_whether_it_is_reached(capsys: pytest.CaptureFixture[str]) -> None:
    peer = Case("peer", "memory", lambda: {"rate": 100})
    own = Case("ours", "memory", lambda: {"rate": 250}, [peer])
    own.targets = {"rate": [Target(">=", 2, peer), Target(">=", 300, unit="/s")]}
    group = Group("drain", [peer, own], [Figure("rate", "drained", ",.0f")], rounds=2)

    group.take(Progress({"drain": 4}, is_quick=True))
    table.show([group])

    printed = capsys.readouterr()
    assert ">= 2x peer: reached, >= 300/s: MISSED" in printed.out
    assert printed.err.splitlines()[-1] == "[4 of 4, 0 min left] drain 2/2: ours, memory"


@pytest.mark.parametrize("store", ["memory", "sqlite"])
def test_a_drain_is_measured_among_schedules_that_are_not_due(stores: Stores, store: Store) -> None:
    assert drain_among(stores, store, ours("asyncio"), 10, 100)["rate"] > 0


def test_a_worker_with_nothing_due_is_measured(stores: Stores) -> None:
    assert idle(stores, "sqlite", ours("trio"), 100, 1)["worker"] >= 0


def test_a_program_is_measured(stores: Stores, tmp_path: Path) -> None:
    program = programs.Program(sys.executable, "anyscheduler", str(tmp_path))
    starts = programs.first_execution(stores, "sqlite", program)
    assert starts.keys() == {"first", "again"}
    assert min(starts.values()) > 0
    assert programs.resident(stores, "memory", program).keys() <= {"resident"}
