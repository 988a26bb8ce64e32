"""What the drivers share: what they are asked, the stopwatch, the window, and how a result reaches the benchmark.

Runs in the environment of whoever is measured, so it needs nothing but the standard library.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from datetime import UTC, datetime, timedelta

from tests.benchmarks import usage

URL_VARIABLE = "ANYSCHEDULER_BENCHMARK_URL"
"""Tells the driver where its store is: a URL or a path. On the command line a password would be seen by everybody."""

SERVER_VARIABLE = "ANYSCHEDULER_BENCHMARK_SERVER"
"""Tells the driver the process of the server of its store; empty if the store has none."""

SETTLED = 2.0
"""Seconds after which a worker has done what it does once only, and what follows is what it does always."""

_GRACE = 1.0
"""Seconds after the window in which what was due in it may still start."""


def arguments() -> argparse.Namespace:
    """Returns what the benchmark asked this driver for; `url` is where the store is, "" for the one in memory."""
    parser = argparse.ArgumentParser()
    parser.add_argument("measurement", help="one of those that the driver has")
    parser.add_argument("--store", choices=["memory", "sqlite", "postgres", "redis"], required=True)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    parser.add_argument("--count", type=int, required=True, help="schedules to drain or to make, or tasks that tick")
    parser.add_argument("--stored", type=int, default=0, help="others to store that are not due")
    parser.add_argument("--rounds", type=int, default=1, help="how often each schedule is moved")
    parser.add_argument("--seconds", type=float, default=10.0, help="the length of the window")
    parser.add_argument("--begin", type=float, default=time.time(), help="when it begins; seconds since the epoch")
    parser.add_argument("--tuned", action="store_true", help="with the settings that are best for a drain")
    given = parser.parse_args()
    given.url = os.environ.get(URL_VARIABLE, "")
    return given


class Stopwatch:
    """Wall time, and the processor time of this process (all its threads) and of the server, since it was made."""

    def __init__(self) -> None:
        server = os.environ.get(SERVER_VARIABLE)
        self._server = int(server) if server else None
        # Outside of what is measured: looking through the processes takes a while.
        self._server_cpu = self._read_server()
        self._wall = time.perf_counter()
        self._cpu = time.process_time()

    def read(self) -> dict[str, float]:
        """Returns them in seconds, and what this process has in memory now in MiB; what is not known is left out."""
        known: dict[str, float | None] = {
            "seconds": time.perf_counter() - self._wall,
            "cpu_seconds": time.process_time() - self._cpu,
            "resident": usage.resident_mebibytes(),
        }
        if self._server_cpu is not None and (server_cpu := self._read_server()) is not None:
            known["server_cpu_seconds"] = server_cpu - self._server_cpu
        return {name: value for name, value in known.items() if value is not None}

    def _read_server(self) -> float | None:
        return None if self._server is None else usage.family_cpu_seconds(self._server)


class Window:
    """Notes the starts of the occurrences that are due from `begin` on and before `begin + seconds`.

    Several workers that look through the same window see all that was due in it, whenever each of them was ready.
    """

    def __init__(self, begin: float, seconds: float) -> None:
        self._begin = datetime.fromtimestamp(begin, UTC)
        self._end = self._begin + timedelta(seconds=seconds)
        self._starts: list[tuple[str, float, float]] = []

    def note(self, task: str, due: datetime) -> None:
        """Notes that the occurrence starts now, if it was due in the window."""
        late = (datetime.now(UTC) - due).total_seconds() * 1e3
        if self._begin <= due < self._end:
            self._starts.append((task, due.timestamp(), late))

    def remaining(self) -> float:
        """Returns for how many seconds something that was due in the window may still start."""
        return (self._end - datetime.now(UTC)).total_seconds() + _GRACE

    def result(self) -> dict[str, object]:
        """Returns what to report: of each start its task, when it was due (epoch), and how late it was (ms)."""
        return {"starts": self._starts}


def report(result: dict[str, object]) -> None:
    """Hands the result to the benchmark as the last line of the output."""
    json.dump(result, sys.stdout)
    print()
