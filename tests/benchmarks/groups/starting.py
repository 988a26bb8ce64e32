"""What a program takes before it does anything.

Knows: the systems, the measurements, the targets. Must not know: how a measurement is taken, or how it is shown.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from tests.benchmarks.comparison import Case, Figure, Group, Target
from tests.benchmarks.groups.setting import APSCHEDULER, OURS, PYNCETTE
from tests.benchmarks.programs import first_execution, import_time, resident
from tests.benchmarks.stores import STORES, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.benchmarks.comparison import Values
    from tests.benchmarks.groups.setting import Setting
    from tests.benchmarks.programs import Program
    from tests.benchmarks.stores import Stores

FIRST_EXECUTION: dict[Store, float] = {"memory": 300, "sqlite": 450, "postgres": 450, "redis": 450}
"""Milliseconds from the start of a process in which its first task has to run."""
RESIDENT: dict[Store, float] = {"memory": 40, "postgres": 50, "redis": 50}
"""MiB that a process with one task that is not due may take."""


def imports(setting: Setting) -> Group:
    pyncette = Case(PYNCETTE, "import pyncette", partial(import_time, setting.peer_program("pyncette")))
    targets = {"time": [Target("<=", 120, unit=" ms"), Target("<=", 1, pyncette)]}
    own = Case(OURS, "import anyscheduler", partial(import_time, setting.program), [pyncette], targets)
    figures = (Figure("time", "import, ms more than the bare interpreter", ",.0f"),)
    # It takes less than a second, and that varies.
    return Group("import", [pyncette, own], figures, 3 if setting.is_quick else max(10, setting.rounds))


def starts(setting: Setting) -> Group:
    limits = {store: Target("<=", limit, unit=" ms") for store, limit in FIRST_EXECUTION.items()}
    targets = {"first": limits, "again": limits}
    cases = [case for store in setting.chosen for case in _program_cases(setting, store, first_execution, targets)]
    figures = (
        Figure("first", "from process start to the first execution in an empty store, ms", ",.0f"),
        Figure("again", "from process start to the first execution in the same store, ms", ",.0f"),
    )
    return Group("start", cases, figures, setting.rounds)


def memory(setting: Setting) -> Group:
    targets = {"resident": {store: Target("<=", limit, unit=" MiB") for store, limit in RESIDENT.items()}}
    cases = [case for store in setting.chosen for case in _program_cases(setting, store, resident, targets)]
    figures = (Figure("resident", "resident memory with one task that is not due, MiB", ".1f"),)
    return Group("memory", cases, figures, min(setting.rounds, 3))


def _program_cases(
    setting: Setting,
    store: Store,
    measure: Callable[[Stores, Store, Program], Values],
    targets: Mapping[str, Mapping[Store, Target]],
) -> Iterator[Case]:
    def case(name: str, program: Program) -> Case:
        return Case(name, f"{STORES[store]}, asyncio", partial(measure, setting.stores, store, program))

    rivals = [case(PYNCETTE, setting.peer_program("pyncette"))]
    if store == "memory":
        rivals.append(case(APSCHEDULER, setting.peer_program("apscheduler")))
    own = case(OURS, setting.program)
    own.peers = rivals
    own.targets = {name: [limits[store]] for name, limits in targets.items() if store in limits}
    yield from (*rivals, own)
