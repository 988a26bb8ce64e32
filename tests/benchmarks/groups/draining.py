"""How fast what is due is worked off.

Knows: the systems, the measurements, the targets. Must not know: how a measurement is taken, or how it is shown.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from tests.benchmarks.comparison import Case, Figure, Group, Target
from tests.benchmarks.groups.setting import APSCHEDULER, BACKENDS, OURS, PYNCETTE, SERVERS
from tests.benchmarks.measurements import System, drain, drain_among, ours, share_out
from tests.benchmarks.stores import STORES, Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.benchmarks.groups.setting import Setting

DRAINED_TO_PYNCETTE: dict[Store, float] = {"memory": 20, "sqlite": 60, "redis": 8, "postgres": 18}
"""How many times as fast as pyncette a drain has to be."""
SPAWNED = {"asyncio": 0.6, "trio": 0.55}
"""The part of the rate at which tasks can be spawned that a drain in memory has to reach."""
CPU_LIMITS = {"asyncio": 0.040, "trio": 0.055}
"""CPU seconds of the worker that a thousand executions may take."""


def drains(setting: Setting) -> Group:
    cases = [case for store in setting.chosen for case in _drain_cases(setting, store)]
    figures = (
        Figure("rate", "due once-offs drained, executions/s", ",.0f"),
        Figure("cpu", "CPU s of the worker per 1,000 executions", ".4f"),
        Figure("server cpu", "CPU s of the server per 1,000 executions", ".4f"),
        Figure("resident", "resident memory of the worker when it is done, MiB", ".1f"),
        Figure("registering", "registered one at a time beforehand, schedules/s", ",.0f"),
    )
    return Group("drain", cases, figures, setting.rounds)


def _drain_cases(setting: Setting, store: Store) -> Iterator[Case]:
    most = 2_000 if setting.is_quick else 10_000

    def case(name: str, loop: str, system: System, count: int) -> Case:
        return Case(name, f"{STORES[store]}, {loop}, {count:,}", partial(drain, setting.stores, store, system, count))

    def raw(loop: str, *settings: str, name: str = "raw") -> Case:
        return case(name, loop, System(setting.python, "drive_raw", settings), most * 3)

    pyncette = case(PYNCETTE, "asyncio", setting.peer("pyncette"), most // 5)
    rivals = [pyncette]
    our_systems = [(backend, ours(backend)) for backend in BACKENDS]
    targets = [Target(">=", DRAINED_TO_PYNCETTE[store], pyncette)]
    of_loop: dict[str, list[Target]] = {}
    match store:
        case "memory":
            apscheduler = case(APSCHEDULER, "asyncio", setting.peer("apscheduler"), most)
            spawned = {backend: raw(backend, "--backend", backend) for backend in BACKENDS}
            rivals += [apscheduler, *spawned.values()]
            targets.append(Target(">=", 1, apscheduler))
            of_loop = {loop: [Target(">=", SPAWNED[loop], limit)] for loop, limit in spawned.items()}
        case "sqlite":
            limit = raw("one connection")
            rivals.append(limit)
            targets += [Target(">=", 25_000, unit="/s"), Target(">=", 0.2, limit)]
        case "postgres":
            tuned = case("PgQueuer tuned", "uvloop", setting.peer("pgqueuer", "--tuned"), most)
            limit = raw("one connection")
            rivals += [case("PgQueuer", "asyncio", setting.peer("pgqueuer"), most), tuned, limit]
            targets += [Target(">=", 0.6, limit), Target(">=", 1.4, tuned)]
        case "redis":
            arq = case("arq tuned", "uvloop", setting.peer("arq"), most // 5)
            saq = case("saq", "uvloop", setting.peer("saq"), most // 5)
            limit = raw("one connection")
            rivals += [arq, saq, limit, raw("one connection", "--tuned", name="raw batched")]
            targets += [Target(">=", 0.4, limit), Target(">=", 8, arq), Target(">=", 8, saq)]
    # What of an execution is the store's part, and with that what is the engine's.
    alone = partial(drain, setting.stores, store, ours("asyncio"), most, "drain-alone")
    rivals.append(Case(f"{OURS}, store alone", f"{STORES[store]}, asyncio, {most:,}", alone))
    if store in SERVERS:
        our_systems.append(("uvloop, tuned", ours("asyncio", "--tuned")))
    yield from rivals
    for loop, system in our_systems:
        compared = case(OURS, loop, system, most)
        cpu = Target("<=", CPU_LIMITS.get(loop, CPU_LIMITS["asyncio"]), unit=" s")
        compared.peers, compared.targets = rivals, {"rate": targets + of_loop.get(loop, []), "cpu": [cpu]}
        yield compared


def recurring(setting: Setting) -> Group:
    cases = [case for store in setting.chosen for case in _recurring_cases(setting, store)]
    figures = (Figure("rate", "due schedules drained, executions/s", ",.0f"),)
    return Group("recurring", cases, figures, setting.rounds)


def _recurring_cases(setting: Setting, store: Store) -> Iterator[Case]:
    count = 2_000 if setting.is_quick else 10_000
    measures = {
        name: partial(drain, setting.stores, store, ours("asyncio"), count, what)
        for name, what in (("once-off", "drain"), ("cron in a zone", "drain-cron"), ("interval", "drain-interval"))
    }
    once, *others = [Case(f"{OURS}, {name}", f"{STORES[store]}, asyncio", take) for name, take in measures.items()]
    for other in others:
        other.peers, other.targets = [once], {"rate": [Target(">=", 0.85, once)]}
    yield from (once, *others)


def sizes(setting: Setting) -> Group:
    count, few, many = (2_000, 1_000, 20_000) if setting.is_quick else (10_000, 10_000, 1_000_000)
    cases: list[Case] = []
    for store in setting.chosen:
        small, large = (
            Case(
                f"{OURS}, {stored:,} stored",
                f"{STORES[store]}, asyncio",
                partial(drain_among, setting.stores, store, ours("asyncio"), count, stored),
            )
            for stored in (few, many)
        )
        large.peers, large.targets = [small], {"rate": [Target(">=", 0.8, small)]}
        cases += [small, large]
    figures = (Figure("rate", f"{count:,} due once-offs drained among others, executions/s", ",.0f"),)
    return Group("sizes", cases, figures, min(setting.rounds, 2))


def workers(setting: Setting) -> Group:
    count = 4_000 if setting.is_quick else 40_000
    cases: list[Case] = []
    for store in setting.chosen:
        if store in SERVERS:
            one, four = (
                Case(
                    OURS,
                    f"{STORES[store]}, {where}",
                    partial(share_out, setting.stores, store, [ours("asyncio")] * number, count),
                )
                for number, where in ((1, "one worker"), (4, "four workers"))
            )
            four.peers, four.targets = [one], {"rate": [Target(">=", 3.2, one)]}
            cases += [one, four]
    figures = (
        Figure("rate", "drained with bodies that wait for 20 ms, executions/s", ",.0f"),
        Figure("busy", "cores that the workers and the server keep busy", ".2f"),
    )
    return Group("workers", cases, figures, min(setting.rounds, 2))
