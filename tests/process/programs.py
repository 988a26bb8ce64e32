"""Apps as programs of their own: written to a directory, started, read line by line, signalled, never left behind."""

from __future__ import annotations

import importlib.util
import os
import re
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.canary import leaks

if TYPE_CHECKING:
    import signal
    from collections.abc import Mapping

LOOPS: dict[str, tuple[str, ...]] = {"asyncio": (), "trio": ("--backend", "trio")}
"""Each event loop with the options of the command that select it."""
if importlib.util.find_spec("uvloop") is not None:  # it does not exist for every platform
    LOOPS["uvloop"] = ("--uvloop",)

DATABASE = "schedule.db"
"""The file that the programs keep their schedules in."""

_PATIENCE = 20.0
"""Seconds until something that has to happen is taken not to happen; a loaded machine may need many of them."""

_REPOSITORY = Path(__file__).parents[2]

# What each program begins with. `tell` writes a whole line at once, so that lines of threads and of the log never mix.
_PRELUDE = """\
from __future__ import annotations

import os
import resource
import signal
import sys
import time
from datetime import UTC, datetime, timedelta

import anyio

from anyscheduler import *

def tell(*words):
    os.write(1, ("> " + " ".join(map(str, words)) + "\\n").encode())

def micros(moment):
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)

"""

_TOLD = "> "
_TROUBLE = re.compile(
    r"Traceback|Error\b|ERROR|CRITICAL|database is locked|Exception ignored|never (retrieved|awaited)|\w+Warning:"
)


class Program:
    """One process that runs an app. What it writes to standard output and standard error is read as one."""

    def __init__(self, arguments: list[str], directory: Path, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            arguments,
            cwd=directory,
            env={
                **os.environ,
                "LOG_LEVEL": "INFO",
                "PYTHONPATH": str(_REPOSITORY),
                "PYTHONDONTWRITEBYTECODE": "1",
                "PYTHONWARNINGS": "error",
                **environment,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.pid = self._process.pid
        self.lines: list[str] = []
        self._has_more = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    @property
    def told(self) -> list[str]:
        """What the app itself has written with `tell`, without the log."""
        return [line.removeprefix(_TOLD) for line in list(self.lines) if line.startswith(_TOLD)]

    @property
    def trouble(self) -> list[str]:
        """The lines that nobody wants to find in a log."""
        return [line for line in list(self.lines) if _TROUBLE.search(line)]

    def matching(self, pattern: str) -> list[str]:
        """Returns the lines so far in which `pattern` is found."""
        return [line for line in list(self.lines) if re.search(pattern, line)]

    def until(self, pattern: str, *, times: int = 1) -> list[str]:
        """Waits until `pattern` was found in `times` lines, and returns those."""
        with self._has_more:
            self._has_more.wait_for(lambda: len(self.matching(pattern)) >= times or self._ended, _PATIENCE)
        found = self.matching(pattern)
        assert len(found) >= times, f"waited for {times} x {pattern!r} in vain:\n{self}"
        return found

    def send(self, number: signal.Signals) -> None:
        """Sends it a signal."""
        self._process.send_signal(number)

    def ends(self, *, troubled: bool = False) -> int:
        """Waits for its end, and returns its exit code. Unless it was `troubled`, its log must be free of trouble."""
        try:
            code = self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not end:\n{self}") from None
        self._reader.join()
        assert troubled or not self.trouble, f"trouble in the log:\n{self}"
        return code

    def clean_up(self) -> None:
        """Kills it if it still runs."""
        self._process.kill()
        self._process.wait()
        self._reader.join()

    def __str__(self) -> str:
        return "\n".join(self.lines)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                with self._has_more:
                    self.lines.append(line.rstrip("\n"))
                    self._has_more.notify_all()
        with self._has_more:
            self._ended = True
            self._has_more.notify_all()


class Programs:
    """Starts programs in one directory, where they find the same store."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._started: list[Program] = []

    def run(self, source: str, *options: str, **environment: str) -> Program:
        """Starts `anyscheduler run` for the app named `app` in `source`."""
        self._write(source)
        return self._start([sys.executable, "-m", "anyscheduler", "run", "program:app", *options], environment)

    def script(self, source: str, **environment: str) -> Program:
        """Starts `source` as a script."""
        return self._start([sys.executable, str(self._write(source))], environment)

    def clean_up(self) -> None:
        """Kills what still runs, and reads all that was written for passwords."""
        for program in self._started:
            program.clean_up()
        assert leaks(line for program in self._started for line in program.lines) == []

    def _write(self, source: str) -> Path:
        path = self._directory / "program.py"
        path.write_text(_PRELUDE + source, encoding="utf-8")
        return path

    def _start(self, arguments: list[str], environment: Mapping[str, str]) -> Program:
        program = Program(arguments, self._directory, environment)
        self._started.append(program)
        return program


class Stored(NamedTuple):
    """When a schedule in the store is due, and from when on it can be claimed; microseconds since the epoch."""

    due_at: int
    claimable_at: int


def stored(directory: Path, table: str = "anyscheduler") -> dict[str, Stored]:
    """Returns the schedules in the store of the programs, by key, read past the package that is tested."""
    with closing(sqlite3.connect(directory / DATABASE)) as connection:
        rows = connection.execute(f"SELECT key, due_at, claimable_at FROM {table}").fetchall()
    return {key: Stored(due_at, claimable_at) for key, due_at, claimable_at in rows}


def leased(directory: Path, table: str = "anyscheduler") -> set[str]:
    """Returns the keys of the schedules in the store that somebody holds."""
    return {key for key, row in stored(directory, table).items() if row.claimable_at > row.due_at}


def pause_between_signals() -> None:
    """Gives a process time to take a signal: the kernel merges those of one number that are still pending."""
    time.sleep(0.15)
