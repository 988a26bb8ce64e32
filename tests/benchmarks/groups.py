"""Who is compared with whom, and what has to be reached.

Knows: the systems, the measurements, the targets. Must not know: how a measurement is taken, or how it is shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from tests.benchmarks import peers
from tests.benchmarks.comparison import Case, Figure, Group, Target
from tests.benchmarks.measurements import (
    System,
    drain,
    drain_among,
    import_time,
    insert,
    ours,
    register,
    share_out,
    tick,
    wake,
)
from tests.benchmarks.stores import STORES, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from pathlib import Path

    from tests.benchmarks.stores import Stores

OURS, PYNCETTE = "anyscheduler", "pyncette"
BACKENDS = ("asyncio", "trio")
SERVERS: Collection[Store] = ("postgres", "redis")
"""The stores that processes on several machines can share."""
DRAINED_TO_PYNCETTE: dict[Store, float] = {"memory": 20, "sqlite": 60, "redis": 8, "postgres": 18}
"""How many times as fast as pyncette a drain has to be."""
SPAWNED = {"asyncio": 0.6, "trio": 0.55}
"""The part of the rate at which tasks can be spawned that a drain in memory has to reach."""
CPU_LIMITS = {"asyncio": 0.040, "trio": 0.055}
"""CPU seconds of the worker that a thousand executions may take."""
KEPT_UP_ALONE: dict[Store, float] = {"memory": 50, "sqlite": 150, "redis": 50, "postgres": 150}
"""How many milliseconds late one worker may start 1,000 one-second tasks, p99."""
FOUR_WORKERS, SHARED = [ours(backend) for backend in BACKENDS * 2], "four workers: 2 asyncio, 2 trio"


@dataclass(frozen=True)
class Setting:
    """What all measurements share.

    Attributes:
        stores: Gives empty stores.
        chosen: The stores to measure on.
        python: The interpreter of this package.
        peers_directory: Where the environments of the peers are.
        bytecode: A directory for bytecode.
        rounds: How often each case is measured.
        is_quick: Whether short measurements will do.
    """

    stores: Stores
    chosen: Collection[Store]
    python: str
    peers_directory: Path
    bytecode: str
    rounds: int
    is_quick: bool

    def peer(self, name: str, *settings: str) -> System:
        """Returns a peer as it is measured; makes its environment if it has none yet."""
        return System(str(peers.python(self.peers_directory, name)), f"drive_{name}", settings)


def _drains(setting: Setting) -> Group:
    cases = [case for store in setting.chosen for case in _drain_cases(setting, store)]
    figures = (
        Figure("rate", "due once-offs drained, executions/s", ",.0f"),
        Figure("cpu", "CPU s of the worker per 1,000 executions", ".4f"),
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
            apscheduler = case("APScheduler 3", "asyncio", setting.peer("apscheduler"), most)
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
            limit = raw("one connection")
            rivals += [arq, limit, raw("one connection", "--tuned", name="raw batched")]
            targets += [Target(">=", 0.4, limit), Target(">=", 8, arq)]
    if store in SERVERS:
        our_systems.append(("uvloop, tuned", ours("asyncio", "--tuned")))
    yield from rivals
    for loop, system in our_systems:
        compared = case(OURS, loop, system, most)
        cpu = Target("<=", CPU_LIMITS.get(loop, CPU_LIMITS["asyncio"]), unit=" s")
        compared.peers, compared.targets = rivals, {"rate": targets + of_loop.get(loop, []), "cpu": [cpu]}
        yield compared


def _recurring(setting: Setting) -> Group:
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


def _registering(setting: Setting) -> Group:
    count = 2_000 if setting.is_quick else 10_000
    cases: list[Case] = []
    for store in setting.chosen:
        own = Case(OURS, f"{STORES[store]}, asyncio", partial(register, setting.stores, store, ours("asyncio"), count))
        if store == "postgres":
            system = System(setting.python, "drive_raw")
            limit = Case(
                "raw", f"{STORES[store]}, one connection", partial(insert, setting.stores, store, system, count)
            )
            own.peers = [limit]
            own.targets = {"gain": [Target(">=", 4)], "bulk": [Target(">=", 0.6, limit)]}
            cases.append(limit)
        cases.append(own)
    figures = (
        Figure("one", "registered one at a time, schedules/s", ",.0f"),
        Figure("fifty", "registered by 50 tasks at a time, schedules/s", ",.0f"),
        Figure("gain", "50 at a time to one at a time", ".1f"),
        Figure("bulk", "registered in bulk, schedules/s", ",.0f"),
    )
    return Group("registering", cases, figures, setting.rounds)


def _lateness(setting: Setting) -> Group:
    cases = [case for store in setting.chosen for case in _lateness_cases(setting, store)]
    figures = (
        Figure("p50", "start lateness of 100 one-second tasks, ms, p50", ",.2f"),
        Figure("p99", "start lateness of 100 one-second tasks, ms, p99", ",.2f"),
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
        yield case("APScheduler 3", "asyncio", [setting.peer("apscheduler")])
    pyncette = case(PYNCETTE, "asyncio", [setting.peer("pyncette")])
    yield pyncette
    compared = [case(OURS, backend, [ours(backend)]) for backend in BACKENDS]
    if is_shared:
        compared.append(case(OURS, SHARED, FOUR_WORKERS))
    for one in compared:
        one.peers, one.targets = [pyncette], targets
        yield one


def _wake_up(setting: Setting) -> Group:
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
    return Group("wake-up", cases, figures, setting.rounds)


def _keep_up(setting: Setting) -> Group:
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
        alone = partial(tick, setting.stores, store, [ours("asyncio")], count, seconds)
        limits = {**targets, "p99": [Target("<=", KEPT_UP_ALONE[store], unit=" ms")]}
        cases.append(Case(OURS, f"{STORES[store]}, asyncio", alone, targets=limits))
    what = f"{count:,} one-second tasks for {seconds} s"
    figures = (
        Figure("p50", f"{what}: start lateness, ms, p50", ",.2f"),
        Figure("p99", f"{what}: start lateness, ms, p99", ",.2f"),
        Figure("not started", f"{what}: not started", ",.0f"),
        Figure("doubled", f"{what}: started twice", ",.0f"),
        Figure("share", f"{what}: least share of a worker, of the mean", ".2f"),
    )
    return Group("keep-up", cases, figures, 1)


def _sizes(setting: Setting) -> Group:
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
    return Group("sizes", cases, figures, setting.rounds)


def _workers(setting: Setting) -> Group:
    count = 4_000 if setting.is_quick else 40_000
    cases: list[Case] = []
    for store in setting.chosen:
        if store in SERVERS:
            one, four = (
                Case(
                    OURS,
                    f"{STORES[store]}, {where}",
                    partial(share_out, setting.stores, store, [ours("asyncio")] * workers, count),
                )
                for workers, where in ((1, "one worker"), (4, "four workers"))
            )
            four.peers, four.targets = [one], {"rate": [Target(">=", 3.2, one)]}
            cases += [one, four]
    figures = (Figure("rate", "drained with bodies that wait for 20 ms, executions/s", ",.0f"),)
    return Group("workers", cases, figures, setting.rounds)


def _imports(setting: Setting) -> Group:
    pyncette = Case(
        PYNCETTE, "import pyncette", partial(import_time, setting.peer("pyncette").python, "pyncette", setting.bytecode)
    )
    measure = partial(import_time, setting.python, "anyscheduler", setting.bytecode)
    own = Case(OURS, "import anyscheduler", measure, [pyncette], {"time": [Target("<=", 1, pyncette)]})
    figures = (Figure("time", "import, ms more than the bare interpreter", ",.0f"),)
    return Group("import", [pyncette, own], figures, 3 if setting.is_quick else max(10, setting.rounds))


GROUPS: dict[str, Callable[[Setting], Group]] = {
    "drain": _drains,
    "recurring": _recurring,
    "registering": _registering,
    "lateness": _lateness,
    "wake-up": _wake_up,
    "keep-up": _keep_up,
    "sizes": _sizes,
    "workers": _workers,
    "import": _imports,
}
"""All groups, by the name that selects one. All but `import` measure on stores."""
