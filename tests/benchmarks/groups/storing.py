"""What it takes to store schedules, to have many of them, and to have moved them often.

Knows: the systems, the measurements, the targets. Must not know: how a measurement is taken, or how it is shown.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from tests.benchmarks.comparison import Case, Figure, Group, Target
from tests.benchmarks.groups.setting import OURS, PYNCETTE, SERVERS
from tests.benchmarks.measurements import System, churn, idle, insert, leave_alone, ours, register
from tests.benchmarks.stores import STORES, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.benchmarks.comparison import Values
    from tests.benchmarks.groups.setting import Setting

IDLE = 0.3
"""Percent of a core that the worker, and the server, may take while nothing is due."""


def registering(setting: Setting) -> Group:
    count = 2_000 if setting.is_quick else 10_000
    cases: list[Case] = []
    for store in setting.chosen:
        own = Case(OURS, f"{STORES[store]}, asyncio", partial(register, setting.stores, store, ours("asyncio"), count))
        if store in SERVERS:
            system = System(setting.python, "drive_raw")
            limit = Case(
                "raw", f"{STORES[store]}, one connection", partial(insert, setting.stores, store, system, count)
            )
            own.peers, own.targets = [limit], {"bulk": [Target(">=", 0.6, limit)]}
            if store == "postgres":
                own.targets["gain"] = [Target(">=", 4)]
            cases.append(limit)
        cases.append(own)
    figures = (
        Figure("one", "registered one at a time, schedules/s", ",.0f"),
        Figure("fifty", "registered by 50 tasks at a time, schedules/s", ",.0f"),
        Figure("gain", "50 at a time to one at a time", ".1f"),
        Figure("bulk", "registered in bulk, schedules/s", ",.0f"),
    )
    return Group("registering", cases, figures, setting.rounds)


def idling(setting: Setting) -> Group:
    cases = [case for store in setting.chosen if store != "memory" for case in _idle_cases(setting, store)]
    figures = (
        Figure("worker", "nothing due: CPU of the worker, % of a core", ".2f"),
        Figure("server", "nothing due: CPU of the server, % of a core", ".2f"),
        Figure("resident", "nothing due: resident memory of the worker, MiB", ".1f"),
        Figure("resident more", "more than on an empty store, MiB", ".1f"),
    )
    return Group("idle", cases, figures, 1)


def _idle_cases(setting: Setting, store: Store) -> Iterator[Case]:
    # pyncette takes a millisecond for each that it stores.
    few, many, seconds = (500, 20_000, 5) if setting.is_quick else (5_000, 1_000_000, 20)

    def case(name: str, system: System, stored: int, take: Callable[..., Values] = idle) -> Case:
        measure = partial(take, setting.stores, store, system, stored, seconds)
        return Case(name, f"{STORES[store]}, asyncio, {stored:,} stored", measure)

    rivals = [case(PYNCETTE, setting.peer("pyncette"), few)]
    if store in SERVERS:
        rivals.append(case("no worker", ours("asyncio"), many, leave_alone))
    own = case(OURS, ours("asyncio"), many)
    own.peers = rivals
    own.targets = {
        "worker": [Target("<=", IDLE, unit=" %")],
        "server": [Target("<=", IDLE, unit=" %")],
        "resident more": [Target("<=", 2, unit=" MiB")],
    }
    yield from (*rivals, own)


def churning(setting: Setting) -> Group:
    count, rounds = (2_000, 20) if setting.is_quick else (10_000, 100)
    system = System(setting.python, "drive_churn")
    targets = {
        "claim": [Target("<=", 1.3)],
        "size": [Target("<=", 5)],
        "still growing": [Target("<=", 1.2)],
    }
    measure = partial(churn, setting.stores, system, count, rounds)
    cases = [Case(OURS, STORES["postgres"], measure, targets=targets)] if "postgres" in setting.chosen else []
    what = f"{count:,} rows, each moved {rounds} times"
    figures = (
        Figure("fresh", f"{what}: claim of 100 from a fresh table, ms", ".2f"),
        Figure("after", f"{what}: claim of 100, ms", ".2f"),
        Figure("claim", f"{what}: claim to that from a fresh table", ".2f"),
        Figure("fresh size", f"{what}: table and indexes at first, MiB", ".1f"),
        Figure("size", f"{what}: table and indexes at last to at first", ".2f"),
        Figure("still growing", f"{what}: table and indexes at last to half-way", ".2f"),
    )
    return Group("churn", cases, figures, 1)
