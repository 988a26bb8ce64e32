"""What is measured: drivers are run on an empty store, and what they report becomes values.

Knows: the drivers and their reports. Must not know: who is compared with whom, and what has to be reached.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.benchmarks import usage
from tests.benchmarks.running import Driver, run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.benchmarks.comparison import Values
    from tests.benchmarks.stores import Place, Store, Stores


class System(NamedTuple):
    """Somebody who can be measured: the interpreter that has it, the driver, and settings for the driver."""

    python: str
    module: str
    settings: tuple[str, ...] = ()

    def driver(self, measurement: str, store: Store, count: int, *asked: str) -> Driver:
        """Returns the process that takes the measurement."""
        common = (measurement, "--store", store, "--count", str(count))
        return Driver(self.python, self.module, (*common, *self.settings, *asked))


def ours(backend: str, *settings: str) -> System:
    """Returns this package on that event loop."""
    return System(sys.executable, "drive_anyscheduler", ("--backend", backend, *settings))


def drain(stores: Stores, store: Store, system: System, count: int, what: str = "drain") -> Values:
    """Drains `count` due schedules with one worker; `what` is the measurement of the driver."""
    with stores.empty(store) as place:
        (report,) = run(place, [system.driver(what, store, count)])
    per_thousand = 1_000 / report["executions"]
    values = {"rate": report["executions"] / report["seconds"], "cpu": report["cpu_seconds"] * per_thousand}
    if "server_cpu_seconds" in report:
        values["server cpu"] = report["server_cpu_seconds"] * per_thousand
    if "resident" in report:
        values["resident"] = report["resident"]
    if "registered_per_second" in report:
        values["registering"] = report["registered_per_second"]
    return values


def drain_among(stores: Stores, store: Store, system: System, count: int, stored: int) -> Values:
    """Drains `count` due schedules with one worker, with `stored` others of the same task that are not due."""
    with stores.empty(store) as place:
        if store == "memory":
            # Nobody else can fill it.
            (report,) = run(place, [system.driver("drain", store, count, "--stored", str(stored))])
        else:
            fill(stores, store, place, system, stored)
            (report,) = run(place, [system.driver("drain", store, count)])
    return {"rate": report["executions"] / report["seconds"]}


def fill(stores: Stores, store: Store, place: Place, system: System, stored: int) -> None:
    """Stores schedules that are due tomorrow, and waits until the server has done what it has to do about that."""
    run(place, [system.driver("fill", store, stored, "--begin", str(time.time() + 86_400))])
    stores.calm(store, place)


def idle(stores: Stores, store: Store, system: System, stored: int, seconds: int) -> Values:
    """Runs a worker with nothing due, on an empty store for its memory, then among `stored` schedules for `seconds`."""
    with stores.empty(store) as place:
        (empty,) = run(place, [system.driver("idle", store, 0, "--seconds", "1")])
    with stores.empty(store) as place:
        fill(stores, store, place, system, stored)
        (report,) = run(place, [system.driver("idle", store, 0, "--seconds", str(seconds))])
    values = {"worker": report["cpu_seconds"] / report["seconds"] * 100}
    if "server_cpu_seconds" in report:
        values["server"] = report["server_cpu_seconds"] / report["seconds"] * 100
    if "resident" in report:
        values["resident"] = report["resident"]
        values["resident more"] = report["resident"] - empty["resident"]
    return values


def leave_alone(stores: Stores, store: Store, system: System, stored: int, seconds: int) -> Values:
    """Runs no worker at all for `seconds`: what the server takes then is its own upkeep."""
    with stores.empty(store) as place:
        fill(stores, store, place, system, stored)
        assert place.server is not None
        before = usage.family_cpu_seconds(place.server)
        time.sleep(seconds)
        after = usage.family_cpu_seconds(place.server)
    return {} if before is None or after is None else {"server": (after - before) / seconds * 100}


def churn(stores: Stores, system: System, count: int, rounds: int) -> Values:
    """Moves each of `count` rows in PostgreSQL `rounds` times: what a claim costs, how the table grows."""
    with stores.empty("postgres") as place, stores.vacuuming_often():
        (report,) = run(place, [system.driver("churn", "postgres", count, "--rounds", str(rounds))])
    sizes = report["sizes"]
    return {
        "fresh": report["fresh"],
        "after": report["worn"],
        "claim": report["worn"] / report["fresh"],
        "fresh size": sizes[0],
        "size": sizes[-1] / sizes[0],
        "still growing": sizes[-1] / sizes[len(sizes) // 2],
    }


def share_out(stores: Stores, store: Store, workers: Sequence[System], count: int) -> Values:
    """Drains `count` due schedules whose bodies wait for 20 ms with several workers on one store.

    Tells too how many processor cores the workers and the server have kept busy for that.
    """
    with stores.empty(store) as place:
        begin = time.time() + 5 + count / 10_000
        asked = ("--begin", str(begin))
        run(place, [workers[0].driver("fill", store, count, *asked)])
        reports = run(place, [worker.driver("waiting", store, count, *asked) for worker in workers])
    assert sum(report["executions"] for report in reports) == count, "some were lost or doubled"
    seconds = max(report["last"] for report in reports) - begin
    server = max(report.get("server_cpu_seconds", 0) for report in reports)
    busy = (sum(report["cpu_seconds"] for report in reports) + server) / seconds
    return {"rate": count / seconds, "busy": busy}


def register(stores: Stores, store: Store, system: System, count: int) -> Values:
    """Registers `count` schedules in each way that there is."""
    with stores.empty(store) as place:
        (report,) = run(place, [system.driver("register", store, count)])
    rates: Values = {way: report[way] for way in ("one", "fifty", "bulk")}
    return {**rates, "gain": rates["fifty"] / rates["one"]}


def insert(stores: Stores, store: Store, system: System, count: int) -> Values:
    """Inserts `count` rows, as fast as the store takes them."""
    with stores.empty(store) as place:
        (report,) = run(place, [system.driver("insert", store, count)])
    return {"bulk": report["executions"] / report["seconds"]}


def tick(stores: Stores, store: Store, workers: Sequence[System], count: int, seconds: int) -> Values:
    """Runs `count` tasks with an interval of one second on workers that share a store, for `seconds`."""
    with stores.empty(store) as place:
        # All are up when the window opens; several start more slowly, and so do many tasks.
        begin = time.time() + 0.5 + 0.5 * len(workers) + count / 500
        asked = ("--begin", str(begin), "--seconds", str(seconds))
        reports = run(place, [worker.driver("lateness", store, count, *asked) for worker in workers])
    ticked = _ticked([report["starts"] for report in reports], count * seconds)
    answers = [at for report in reports for at in report.get("answers", ())]
    if not answers or len(workers) > 1:
        return ticked
    # Of each second the first one, which comes before it: those that share a second are claimed together, or one claim
    # after the other.
    due = {due_at for report in reports for _, due_at, _ in report["starts"]}
    waits = [min((at for at in answers if at >= due_at - 0.5), default=math.inf) - due_at for due_at in due]
    return {**ticked, "answered": statistics.median(waits) * 1e3}


def _ticked(starts: Sequence[Sequence[Any]], due: int) -> Values:
    late = statistics.quantiles((late for of_worker in starts for _, _, late in of_worker), n=100)
    occurrences = Counter((task, due_at) for of_worker in starts for task, due_at, _ in of_worker)
    return {
        "p50": late[49],
        "p99": late[98],
        "not started": due - len(occurrences),
        "doubled": occurrences.total() - len(occurrences),
        "share": min(map(len, starts)) * len(starts) / occurrences.total(),
    }


def wake(stores: Stores, store: Store, system: System, count: int) -> Values:
    """Wakes a worker by what another process schedules."""
    with stores.empty(store) as place:
        asked = ("--begin", str(time.time() + 1.5))
        woken, _ = run(place, [system.driver(name, store, count, *asked) for name in ("woken", "wake")])
    delays = statistics.quantiles(woken["delays"], n=100)
    return {"p50": delays[49], "p99": delays[98]}
