"""Measurements as processes of their own.

Knows: the command line of the drivers. Must not know: what they measure.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.benchmarks import measuring

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.benchmarks.stores import Place

ROOT = Path(__file__).resolve().parents[2]

_PATIENCE = 600.0
"""Seconds until a measurement is taken to hang."""


class Driver(NamedTuple):
    """A process that measures: its interpreter, its module in this directory, and what it is asked for."""

    python: str
    module: str
    asked: Sequence[str]


class DriverFailedError(Exception):
    """A driver did not end well; what it said is on standard error."""


def run(place: Place, drivers: Sequence[Driver]) -> list[Any]:
    """Runs the drivers at the same time on one store, and returns what they report, in their order.

    Raises:
        DriverFailedError: One failed, or took longer than ten minutes; the others are ended.
    """
    environment = {
        **os.environ,
        measuring.URL_VARIABLE: place.url,
        measuring.SERVER_VARIABLE: str(place.server or ""),
    }
    with ExitStack() as stack:
        processes = []
        for driver in drivers:
            command = [driver.python, "-m", f"tests.benchmarks.{driver.module}", *driver.asked]
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
            processes.append(stack.enter_context(process))
            stack.callback(process.kill)
        end = time.monotonic() + _PATIENCE
        return [_report(driver, process, end) for driver, process in zip(drivers, processes, strict=True)]


def _report(driver: Driver, process: subprocess.Popen[str], end: float) -> Any:
    try:
        output, _ = process.communicate(timeout=end - time.monotonic())
    except subprocess.TimeoutExpired:
        raise DriverFailedError(f"{driver.module} {' '.join(driver.asked)} hangs") from None
    if process.returncode:
        raise DriverFailedError(f"{driver.module} {' '.join(driver.asked)} ended with {process.returncode}")
    return json.loads(output.splitlines()[-1])
