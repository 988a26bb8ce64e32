"""What the drivers share: the stopwatch, the scratch file, and how a result reaches the benchmark.

Runs in the environment of whoever is measured, so it needs nothing but the standard library.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Stopwatch:
    """Wall time and processor time (user and system, all threads of this process) since it was made."""

    def __init__(self) -> None:
        self._wall = time.perf_counter()
        self._cpu = time.process_time()

    def read(self) -> dict[str, float]:
        """Returns both in seconds."""
        return {"seconds": time.perf_counter() - self._wall, "cpu_seconds": time.process_time() - self._cpu}


def arguments() -> argparse.Namespace:
    """Returns what the benchmark asked this driver for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("measurement", choices=["drain", "lateness"])
    parser.add_argument("--store", choices=["memory", "sqlite"], required=True)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    parser.add_argument(
        "--count", type=int, required=True, help="schedules to drain, or tasks that are due each second"
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="how long lateness is measured")
    return parser.parse_args()


@contextmanager
def scratch_file(store: str) -> Iterator[str | None]:
    """Gives the path of a SQLite file that does not exist yet and is gone afterwards; None for the store in memory."""
    if store == "memory":
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="benchmark-", ignore_cleanup_errors=True) as directory:
        yield str(Path(directory, "schedules.db"))


def milliseconds_since(due: datetime) -> float:
    """Returns how late it is for something that was due then."""
    return (datetime.now(UTC) - due).total_seconds() * 1e3


def report(result: dict[str, object]) -> None:
    """Hands the result to the benchmark as the last line of the output."""
    json.dump(result, sys.stdout)
    print()
