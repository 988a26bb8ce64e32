"""One worker of a soak: `python -m tests.soak.worker`, started by the driver, and told its place when it is needed.

Knows: its arguments, its input, the files in its directory. Must not know: the other workers, what is done to it.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import threading
import time
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.soak.app import Setting, make_app, runs_at_most_once
from tests.soak.failpoints import Failpoints, failing
from tests.soak.log import Kind, LogWriter
from tests.soak.plan import failpoints_for

if TYPE_CHECKING:
    from anyscheduler.repository import RepositoryFactory
    from tests.soak.plan import Failpoint

STORE: Final = "SOAK_STORE"
"""The name in the environment under which a worker finds the options of its store; they hold a password."""

_COMMAND_SECONDS: Final = 2.0


def main() -> None:
    """Runs the app until it is stopped."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.worker", description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--store", required=True)
    parser.add_argument("--loop", required=True)
    parser.add_argument("--begin", type=float, required=True, help="of the load, CLOCK_MONOTONIC in seconds")
    parser.add_argument("--mutant", default="")
    given = parser.parse_args()
    factory, options = _store(given.store)
    import_module(given.loop)  # like that of the driver above: what takes long is done before it is needed
    if given.mutant:
        from tests.soak import mutants  # noqa: PLC0415  # nothing of it is near a run of the product as it is

        mutants.plant(given.mutant, given.store)
    slot, incarnation = _place()
    name = f"{slot}.{incarnation}"
    _write_to(given.directory / f"{name}.out")
    saved = json.loads((given.directory / "plan.json").read_text())
    set_clock(saved["clock_offsets"][slot])
    log = LogWriter(given.directory / f"{name}.log", name)
    pending = Pending(given.directory, slot, log)
    setting = Setting(
        slot=slot,
        incarnation=incarnation,
        begin=given.begin,
        seconds=saved["seconds"],
        pressure=tuple(saved["pressure"]),
        log=log,
    )
    failpoints = Failpoints(pending.points, given.begin, saved["seconds"], pending.hit)
    factory = failing(factory, failpoints, at_most_once=runs_at_most_once)
    scheduler = make_app(setting, repository_factory=factory, **options)
    # A line for each execution would be most of the work.
    logging.getLogger("anyscheduler.loop").setLevel(logging.WARNING)
    scheduler.main(backend=given.loop)


def _place() -> tuple[int, int]:
    """Waits to be told which slot is free, and how many workers it has had; ends with the driver from then on."""
    told = sys.stdin.readline().split()
    if not told:
        sys.exit()

    def wait() -> None:
        os.read(sys.stdin.fileno(), 1)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
    slot, incarnation = map(int, told)
    return slot, incarnation


def _write_to(path: Path) -> None:
    """Lets everything that this process says go into a file of its own."""
    output = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    os.close(output)


def set_clock(ahead: float) -> None:
    """Sets the wall clock of this process: what `anyscheduler` reads, and not what the operating system has."""
    if ahead:
        real = time.time_ns
        time.time_ns = lambda: real() + round(ahead * 1e9)
        time.time = lambda: time.time_ns() / 1e9


class Pending:
    """The failpoints that no worker has hit yet; each that was has a file."""

    def __init__(self, directory: Path, slot: int, log: LogWriter) -> None:
        self._hits = directory / "hits"
        self._hits.mkdir(exist_ok=True)
        self._log = log
        hit = {int(path.name) for path in self._hits.iterdir()}
        self.points = [each for each in failpoints_for(directory / "plan.json", slot) if each[0] not in hit]

    def hit(self, number: int, point: Failpoint) -> bool:
        """Notes that one was hit; returns False if another worker was faster."""
        try:
            (self._hits / str(number)).touch(exist_ok=False)
        except FileExistsError:
            return False
        self._log.write(Kind.FAILPOINT, detail=f"{point.window} {point.action}")
        return True


def _store(kind: str) -> tuple[RepositoryFactory, dict[str, Any]]:
    options: dict[str, Any] = json.loads(os.environ[STORE])
    patience = timedelta(seconds=_COMMAND_SECONDS)
    match kind:
        case "redis":
            from anyscheduler.redis import redis_repository  # noqa: PLC0415  # a worker starts often: no other driver

            return redis_repository, {**options, "redis_command_timeout": patience}
        case "postgres":
            from anyscheduler.postgres import postgres_repository  # noqa: PLC0415  # likewise

            return postgres_repository, {**options, "postgres_command_timeout": patience}
        case _:
            from anyscheduler.sqlite import sqlite_repository  # noqa: PLC0415  # likewise

            return sqlite_repository, options


if __name__ == "__main__":
    main()
