"""What is measured: drivers are run on an empty store, and what they report becomes values.

Knows: the drivers and their reports. Must not know: who is compared with whom, and what has to be reached.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.benchmarks.running import ROOT, Driver, run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.benchmarks.comparison import Values
    from tests.benchmarks.stores import Store, Stores


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
    with stores.empty(store) as url:
        (report,) = run(url, [system.driver(what, store, count)])
    values = {
        "rate": report["executions"] / report["seconds"],
        "cpu": report["cpu_seconds"] / report["executions"] * 1_000,
    }
    if "registered_per_second" in report:
        values["registering"] = report["registered_per_second"]
    return values


def drain_among(stores: Stores, store: Store, system: System, count: int, stored: int) -> Values:
    """Drains `count` due schedules with one worker, with `stored` others of the same task that are not due."""
    tomorrow = ("--begin", str(time.time() + 86_400))
    with stores.empty(store) as url:
        run(url, [system.driver("fill", store, stored, *tomorrow)])
        (report,) = run(url, [system.driver("drain", store, count)])
    return {"rate": report["executions"] / report["seconds"]}


def share_out(stores: Stores, store: Store, workers: Sequence[System], count: int) -> Values:
    """Drains `count` due schedules whose bodies wait for 20 ms with several workers on one store."""
    with stores.empty(store) as url:
        begin = time.time() + 5 + count / 10_000
        asked = ("--begin", str(begin))
        run(url, [workers[0].driver("fill", store, count, *asked)])
        reports = run(url, [worker.driver("waiting", store, count, *asked) for worker in workers])
    assert sum(report["executions"] for report in reports) == count, "some were lost or doubled"
    return {"rate": count / (max(report["last"] for report in reports) - begin)}


def register(stores: Stores, store: Store, system: System, count: int) -> Values:
    """Registers `count` schedules in each way that there is."""
    with stores.empty(store) as url:
        (report,) = run(url, [system.driver("register", store, count)])
    rates: Values = {way: report[way] for way in ("one", "fifty", "bulk")}
    return {**rates, "gain": rates["fifty"] / rates["one"]}


def insert(stores: Stores, store: Store, system: System, count: int) -> Values:
    """Inserts `count` rows, as fast as the store takes them."""
    with stores.empty(store) as url:
        (report,) = run(url, [system.driver("insert", store, count)])
    return {"bulk": report["executions"] / report["seconds"]}


def tick(stores: Stores, store: Store, workers: Sequence[System], count: int, seconds: int) -> Values:
    """Runs `count` tasks with an interval of one second on workers that share a store, for `seconds`."""
    # All are up when the window opens; several start more slowly, and so do many tasks.
    begin = time.time() + 0.5 + 0.5 * len(workers) + count / 500
    asked = ("--begin", str(begin), "--seconds", str(seconds))
    with stores.empty(store) as url:
        reports = run(url, [worker.driver("lateness", store, count, *asked) for worker in workers])
    return _ticked([report["starts"] for report in reports], count * seconds)


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
    asked = ("--begin", str(time.time() + 1.5))
    with stores.empty(store) as url:
        woken, _ = run(url, [system.driver(name, store, count, *asked) for name in ("woken", "wake")])
    delays = statistics.quantiles(woken["delays"], n=100)
    return {"p50": delays[49], "p99": delays[98]}


def import_time(python: str, module: str, bytecode: str) -> Values:
    """Imports a module in a new process; its bytecode lies in the directory `bytecode`."""
    # An installed package has its bytecode; a checkout may not, and some environments forbid that it is written.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = bytecode

    def seconds(program: str) -> float:
        started = time.perf_counter()
        subprocess.run([python, "-c", program], check=True, cwd=ROOT, env=environment)
        return time.perf_counter() - started

    seconds(f"import {module}")  # writes the bytecode, and brings the files into the system's cache
    return {"time": (seconds(f"import {module}") - seconds("pass")) * 1e3}
