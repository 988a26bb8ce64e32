"""How late something starts, and whether a worker keeps up.

Knows: the systems, the measurements, the targets. Must not know: how a measurement is taken, or how it is shown.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from tests.benchmarks.comparison import Case, Figure, Group, Target
from tests.benchmarks.groups.setting import APSCHEDULER, BACKENDS, FOUR_WORKERS, OURS, PYNCETTE, SERVERS, SHARED
from tests.benchmarks.measurements import System, ours, tick, wake
from tests.benchmarks.stores import STORES, Store

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.benchmarks.groups.setting import Setting

KEPT_UP_ALONE: dict[Store, float] = {"memory": 50, "sqlite": 150, "redis": 50, "postgres": 150}
"""How many milliseconds late one worker may start 1,000 one-second tasks, p99."""


def lateness(setting: Setting) -> Group:
    cases = [case for store in setting.chosen for case in _lateness_cases(setting, store)]
    figures = (
        Figure("p50", "start lateness of 100 one-second tasks, ms, p50", ",.2f"),
        Figure("p99", "start lateness of 100 one-second tasks, ms, p99", ",.2f"),
        Figure("answered", "the claim was answered, ms after the second (negative: before it), p50", ",.2f"),
    )
    return Group("lateness", cases, figures, setting.rounds)


def _lateness_cases(setting: Setting, store: Store) -> Iterator[Case]:
    is_shared = store in SERVERS
    count, seconds = 100, 2 if setting.is_quick else 3
    p50, p99 = (1.5, 4) if store == "memory" else (3, 8)
    targets = {"p50": [Target("<=", p50, unit=" ms")], "p99": [Target("<=", p99, unit=" ms")]}

    def case(name: str, loop: str, workers: Sequence[System]) -> Case:
        return Case(name, f"{STORES[store]}, {loop}", partial(tick, setting.stores, store, workers, count, seconds))

    if store == "memory":
        yield case(APSCHEDULER, "asyncio", [setting.peer("apscheduler")])
    pyncette = case(PYNCETTE, "asyncio", [setting.peer("pyncette")])
    yield pyncette
    rivals = [pyncette]
    if store != "memory":
        raw = case("raw", "a claim of all, one connection", [System(setting.python, "drive_raw")])
        yield raw
        rivals.append(raw)
    compared = [case(OURS, backend, [ours(backend)]) for backend in BACKENDS]
    if is_shared:
        compared.append(case(OURS, SHARED, FOUR_WORKERS))
    for one in compared:
        one.peers = rivals
        one.targets = {"p99": [Target("<=", 10, unit=" ms")]} if one.where.endswith(SHARED) else targets
        yield one


def wake_up(setting: Setting) -> Group:
    count = 20 if setting.is_quick else 100
    targets = {"p50": [Target("<=", 20, unit=" ms")]}
    cases = [
        Case(
            OURS,
            f"{STORES[store]}, {backend}",
            partial(wake, setting.stores, store, ours(backend), count),
            targets=targets,
        )
        for store in setting.chosen
        if store in SERVERS
        for backend in BACKENDS
    ]
    figures = (
        Figure("p50", f"from schedule_task in another process to the start, ms, p50 of {count}", ",.2f"),
        Figure("p99", f"from schedule_task in another process to the start, ms, p99 of {count}", ",.2f"),
    )
    return Group("wake-up", cases, figures, min(setting.rounds, 3))


def keep_up(setting: Setting) -> Group:
    count, seconds = (200, 4) if setting.is_quick else (1_000, 20)
    targets = {
        "p99": [Target("<=", 250, unit=" ms")],
        "not started": [Target("<=", 0)],
        "doubled": [Target("<=", 0)],
        "share": [Target(">=", 0.1)],
    }
    cases = [
        Case(
            OURS,
            f"{STORES[store]}, {SHARED}",
            partial(tick, setting.stores, store, FOUR_WORKERS, count, seconds),
            targets=targets,
        )
        for store in setting.chosen
        if store in SERVERS
    ]
    for store in setting.chosen:
        limits = {**targets, "p99": [Target("<=", KEPT_UP_ALONE[store], unit=" ms")]}
        alone = partial(tick, setting.stores, store, [ours("asyncio")], count, seconds)
        cases.append(Case(OURS, f"{STORES[store]}, asyncio", alone, targets=limits))
        if store in SERVERS:
            tuned = partial(tick, setting.stores, store, [ours("asyncio", "--tuned")], count, seconds)
            cases.append(Case(OURS, f"{STORES[store]}, uvloop, tuned", tuned, targets=limits))
    what = f"{count:,} one-second tasks for {seconds} s"
    figures = (
        Figure("p50", f"{what}: start lateness, ms, p50", ",.2f"),
        Figure("p99", f"{what}: start lateness, ms, p99", ",.2f"),
        Figure("not started", f"{what}: not started", ",.0f"),
        Figure("doubled", f"{what}: started twice", ",.0f"),
        Figure("share", f"{what}: least share of a worker, of the mean", ".2f"),
    )
    return Group("keep-up", cases, figures, 1)
