"""What whole programs take: until they are imported, until they first run something, and how much memory.

Knows: the programs beside it, `program_*.py`, one for each system. Must not know: who is compared with whom.
"""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.benchmarks import measuring, usage
from tests.benchmarks.running import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.benchmarks.comparison import Values
    from tests.benchmarks.stores import Store, Stores

_HOUR = 3_600
_SOON = 0.001
_PATIENCE = 30.0
"""Seconds in which a program has to end after its task has run, or it was told to."""


class Program(NamedTuple):
    """Somebody's program, and where it is run.

    Attributes:
        python: The interpreter that has the system.
        system: The name of the system: it is imported by that name, and `program_<system>.py` uses it.
        bytecode: A directory for bytecode.
    """

    python: str
    system: str
    bytecode: str

    @property
    def environment(self) -> dict[str, str]:
        # An installed package has its bytecode; a checkout may not, and some environments forbid that it is written.
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        return {**inherited, "PYTHONPYCACHEPREFIX": self.bytecode, "LOG_LEVEL": "ERROR"}

    @contextmanager
    def start(self, store: Store, url: str, interval: float) -> Iterator[subprocess.Popen[str]]:
        """Runs it with one task that is due after so many seconds; it has to have ended when this is left."""
        file = Path(__file__).with_name(f"program_{self.system}.py")
        environment = {**self.environment, measuring.URL_VARIABLE: url}
        command = [self.python, str(file), store, str(interval)]
        with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
            try:
                yield process
                process.wait(_PATIENCE)
            finally:
                process.kill()


def import_time(program: Program) -> Values:
    """Imports the system in a new process."""

    def seconds(statement: str) -> float:
        started = time.perf_counter()
        subprocess.run([program.python, "-c", statement], check=True, cwd=ROOT, env=program.environment)
        return time.perf_counter() - started

    statement = f"import {program.system}"
    seconds(statement)  # writes the bytecode, and brings the files into the system's cache
    return {"time": (seconds(statement) - seconds("pass")) * 1e3}


@cache
def _warm_up(stores: Stores, store: Store, program: Program) -> None:
    """Runs a program for the first time, which writes the bytecode: that takes long, and much memory."""
    with stores.empty(store) as place, program.start(store, place.url, _SOON):
        pass  # until it has ended


def first_execution(stores: Stores, store: Store, program: Program) -> Values:
    """Starts a program in an empty store, and again in the store that it has left: until its task has run."""

    def milliseconds() -> float:
        started = time.time()
        with program.start(store, place.url, _SOON) as process:
            assert process.stdout is not None
            return (float(process.stdout.readline()) - started) * 1e3

    _warm_up(stores, store, program)
    with stores.empty(store) as place:
        return {"first": milliseconds(), "again": milliseconds()}


def resident(stores: Stores, store: Store, program: Program) -> Values:
    """Starts a program whose task is not due, and looks at its memory when it has settled."""
    _warm_up(stores, store, program)
    with stores.empty(store) as place, program.start(store, place.url, _HOUR) as process:
        time.sleep(measuring.SETTLED)
        assert process.poll() is None, "it has ended"
        known = usage.resident_mebibytes(process.pid)
        process.terminate()
    return {} if known is None else {"resident": known}
