"""Compares this package with pyncette and APScheduler 3 on this machine: `python -m tests.benchmarks`.

Run it from the root of the repository. Absolute figures move with the machine and with what else it does, so each round
measures everybody in turn, and what counts is the ratio within a round.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from tests.benchmarks import peers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parents[2]
OURS, PYNCETTE, APSCHEDULER = "anyscheduler", "pyncette", "APScheduler 3"

Values: TypeAlias = dict[str, float]


class Target(NamedTuple):
    """What a median has to reach: words for the table, and a check of the value and its ratio to the peer's."""

    words: str
    is_reached: Callable[[float, float], bool]


class Figure(NamedTuple):
    """One of the measured values: its name, its title in the table, and the format of its numbers."""

    name: str
    title: str
    shown: str


@dataclass(eq=False)
class Case:
    """One system in one situation.

    Attributes:
        system: Who is measured.
        where: The store and the event loop.
        measure: Takes one measurement, which may bring several values.
        peer: The case that it is compared with in each round; None for a peer.
        targets: What has to be reached, by the name of the value.
        rounds: What was measured, one entry for each round.
    """

    system: str
    where: str
    measure: Callable[[], Values]
    peer: Case | None = None
    targets: Mapping[str, Target] = field(default_factory=dict)
    rounds: list[Values] = field(default_factory=list)

    def values(self, name: str) -> list[float]:
        return [values[name] for values in self.rounds]

    def ratio(self, name: str) -> float | None:
        if self.peer is None:
            return None
        return statistics.median(
            own / other for own, other in zip(self.values(name), self.peer.values(name), strict=True)
        )


class Group(NamedTuple):
    """Cases that are measured in turn, and what is shown of each."""

    name: str
    cases: Sequence[Case]
    figures: Sequence[Figure]
    rounds: int


def main() -> None:
    """Measures, and prints one table."""
    given = _arguments()
    peers_python = str(peers.python(given.peers_dir))
    started, load = time.monotonic(), _load()
    with tempfile.TemporaryDirectory(prefix="benchmark-") as bytecode:
        groups = [_drain(peers_python, given), _lateness(peers_python, given), _imports(peers_python, given, bytecode)]
        groups = [group for group in groups if given.only in {None, group.name}]
        for group in groups:
            _take(group)
    print(
        f"{platform.python_implementation()} {platform.python_version()}, SQLite {sqlite3.sqlite_version}, "
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, load before {load} and after {_load()}; "
        f"peers {', '.join(peers.REQUIREMENTS)}; took {time.monotonic() - started:.0f} s"
    )
    print("Values: median of the rounds, and least to most. Ratio: median of ours to pyncette's within a round.\n")
    _print_table([line for group in groups for line in _lines(group)])


def _load() -> str:
    """Returns how many processes wanted to run in the last minute: with more than there are cores, nothing counts."""
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="rounds of each comparison (default: 3)")
    parser.add_argument("--quick", action="store_true", help="one short round, to see that it works; not to be quoted")
    parser.add_argument("--only", choices=["drain", "lateness", "import"], help="only this; CPU time is part of drain")
    parser.add_argument(
        "--peers-dir",
        type=Path,
        default=peers.default_directory(),
        metavar="DIR",
        help="the virtual environment of the peers, made if it is missing (default: in the user's cache)",
    )
    given = parser.parse_args()
    if given.repeat < 1:
        parser.error("--repeat has to be 1 or more")
    given.repeat = 1 if given.quick else given.repeat
    return given


def _drain(peers_python: str, given: argparse.Namespace) -> Group:
    count, peers_count = (2_000, 300) if given.quick else (10_000, 2_000)
    cases: list[Case] = []
    for store, shown, least in (("memory", "memory", 20), ("sqlite", "SQLite file", 30)):
        measure = _drained(peers_python, "drive_pyncette", "drain", "--store", store, "--count", str(peers_count))
        peer = Case(PYNCETTE, f"{shown}, asyncio, {peers_count:,}", measure)
        target = Target(f">= {least}x pyncette", functools.partial(_is_at_least, least))
        cases.append(peer)
        for backend in ("asyncio", "trio"):
            asked = ("drain", "--store", store, "--count", str(count), "--backend", backend)
            measure = _drained(sys.executable, "drive_anyscheduler", *asked)
            cases.append(Case(OURS, f"{shown}, {backend}, {count:,}", measure, peer, {"rate": target}))
    figures = (
        Figure("rate", "due once-offs drained, executions/s", ",.0f"),
        Figure("cpu", "CPU s per 1,000 executions", ".4f"),
        Figure("registering", "registered one at a time beforehand, schedules/s", ",.0f"),
    )
    return Group("drain", cases, figures, given.repeat)


def _is_at_least(least: float, _value: float, ratio: float) -> bool:
    return ratio >= least


def _lateness(peers_python: str, given: argparse.Namespace) -> Group:
    asked = ("lateness", "--count", "100", "--seconds", "3" if given.quick else "10")
    target = Target("< 5 ms", lambda value, _ratio: value < 5)
    measure = _late(peers_python, "drive_apscheduler", *asked, "--store", "memory")
    cases = [Case(APSCHEDULER, "memory, asyncio", measure)]
    for store, shown in (("memory", "memory"), ("sqlite", "SQLite file")):
        measure = _late(peers_python, "drive_pyncette", *asked, "--store", store)
        peer = Case(PYNCETTE, f"{shown}, asyncio", measure)
        cases.append(peer)
        for backend in ("asyncio", "trio"):
            measure = _late(sys.executable, "drive_anyscheduler", *asked, "--store", store, "--backend", backend)
            cases.append(Case(OURS, f"{shown}, {backend}", measure, peer, {"p99": target}))
    figures = (
        Figure("p50", "start lateness of 100 one-second tasks, ms, p50", ",.2f"),
        Figure("p99", "start lateness of 100 one-second tasks, ms, p99", ",.2f"),
    )
    return Group("lateness", cases, figures, given.repeat)


def _imports(peers_python: str, given: argparse.Namespace, bytecode: str) -> Group:
    peer = Case(PYNCETTE, "import pyncette", _imported(peers_python, "pyncette", bytecode))
    target = Target("<= pyncette", lambda _value, ratio: ratio <= 1)
    ours = Case(
        OURS, "import anyscheduler", _imported(sys.executable, "anyscheduler", bytecode), peer, {"time": target}
    )
    figures = (Figure("time", "import, ms more than the bare interpreter", ",.0f"),)
    return Group("import", [peer, ours], figures, 3 if given.quick else max(10, given.repeat))


def _drained(python: str, driver: str, *asked: str) -> Callable[[], Values]:
    def measure() -> Values:
        result = _run_driver(python, driver, *asked)
        return {
            "rate": result["executions"] / result["seconds"],
            "cpu": result["cpu_seconds"] / result["executions"] * 1_000,
            "registering": result["executions"] / result["registering_seconds"],
        }

    return measure


def _late(python: str, driver: str, *asked: str) -> Callable[[], Values]:
    def measure() -> Values:
        percentiles = statistics.quantiles(_run_driver(python, driver, *asked)["late_milliseconds"], n=100)
        return {"p50": percentiles[49], "p99": percentiles[98]}

    return measure


def _imported(python: str, module: str, bytecode: str) -> Callable[[], Values]:
    # An installed package has its bytecode; a checkout may not, and some environments forbid that it is written.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = bytecode

    def seconds(program: str) -> float:
        started = time.perf_counter()
        subprocess.run([python, "-c", program], check=True, cwd=ROOT, env=environment)
        return time.perf_counter() - started

    def measure() -> Values:
        seconds(f"import {module}")  # writes the bytecode, and brings the files into the system's cache
        return {"time": (seconds(f"import {module}") - seconds("pass")) * 1e3}

    return measure


def _run_driver(python: str, driver: str, *asked: str) -> Any:
    """Runs a measurement in a process of its own, and returns what it reports."""
    command = [python, "-m", f"tests.benchmarks.{driver}", *asked]
    done = subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def _take(group: Group) -> None:
    for number in range(group.rounds):
        for case in group.cases:
            print(f"{group.name} {number + 1}/{group.rounds}: {case.system}, {case.where}", file=sys.stderr)
            case.rounds.append(case.measure())


def _lines(group: Group) -> Iterator[tuple[str, ...]]:
    for figure in group.figures:
        for case in group.cases:
            values, ratio = case.values(figure.name), case.ratio(figure.name)
            median = statistics.median(values)
            spread = f"{min(values):{figure.shown}} to {max(values):{figure.shown}}"
            verdict = ""
            if figure.name in case.targets:
                target = case.targets[figure.name]
                assert ratio is not None
                verdict = f"{target.words}: {'reached' if target.is_reached(median, ratio) else 'MISSED'}"
            shown = "" if ratio is None else _ratio(ratio)
            yield (figure.title, case.system, case.where, f"{median:{figure.shown}}", spread, shown, verdict)


def _ratio(ratio: float) -> str:
    digits = 1 if ratio >= 10 else 2 if ratio >= 0.1 else 4
    return f"{ratio:.{digits}f}x"


def _print_table(lines: Sequence[tuple[str, ...]]) -> None:
    """Prints a table in Markdown whose columns also line up as plain text."""
    head = ("measured", "system", "where", "median", "spread", "to pyncette", "target")
    widths = [max(len(line[column]) for line in (head, *lines)) for column in range(len(head))]
    for line in (head, tuple("-" * width for width in widths), *lines):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |")


if __name__ == "__main__":
    main()
