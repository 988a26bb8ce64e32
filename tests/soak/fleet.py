"""The workers of a soak as processes: started, started again, signalled, and let go on when they are stopped.

Knows: processes and signals. Must not know: which of them comes when, the store.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil

from tests.soak.log import Kind
from tests.soak.plan import LEASE_SECONDS
from tests.soak.worker import STORE

if TYPE_CHECKING:
    from tests.soak.log import LogWriter
    from tests.soak.plan import Plan

_REPOSITORY: Final = Path(__file__).parents[2]
_STOPPED_SECONDS: Final = LEASE_SECONDS + 1.0
_PATIENCE_SECONDS: Final = 30.0

_SPARE: Final = 2
"""How many processes wait to take the place of one that ends, since to start one takes the better part of a second."""


@dataclass(slots=True)
class Worker:
    """One process.

    Attributes:
        slot: Its place.
        name: As the log names it.
        process: The process.
        is_ending: Whether it has been told to end, or killed.
        go_on_at: When it is to go on, CLOCK_MONOTONIC in seconds; None while it is not stopped.
    """

    slot: int
    name: str
    process: subprocess.Popen[bytes]
    is_ending: bool = False
    go_on_at: float | None = None


class Fleet:
    """A worker in each slot, as long as they are wanted.

    Args:
        directory: Where they find the plan, and write.
        plan: What is done to them.
        begin: When the load begins, CLOCK_MONOTONIC in seconds.
        log: The driver's.
        store: The kind of the store, and its options.
        loop: asyncio or trio.
        mutant: The fault that is planted in them, or "".
    """

    def __init__(
        self,
        directory: Path,
        plan: Plan,
        begin: float,
        log: LogWriter,
        *,
        store: dict[str, Any],
        loop: str,
        mutant: str,
    ) -> None:
        self._directory = directory
        self._plan = plan
        self._begin = begin
        self._log = log
        self._loop = loop
        self._mutant = mutant
        self._environment = {
            **os.environ,
            STORE: json.dumps(store),
            "LOG_LEVEL": "INFO",
            "PYTHONPATH": str(_REPOSITORY),
            "PYTHONWARNINGS": "error",
        }
        self._spare: list[subprocess.Popen[bytes]] = []
        self._stop_seconds = iter(plan.stop_seconds)
        self._started = [0] * len(plan.clock_offsets)
        self.workers: list[Worker] = []
        self.is_wanted = True
        """Whether a worker that has ended is followed by another one."""

    def start(self) -> None:
        """Starts a worker in each slot."""
        slots = range(len(self._started))
        self._spare += [self._spawn() for _ in slots]
        for slot in slots:
            self._start(slot)

    def look(self) -> None:
        """Notes who has ended or stopped, starts others for those who have, and lets those go on whose time it is."""
        for worker in list(self.workers):
            code = worker.process.poll()
            if code is not None:
                self._ended(worker, code)
            elif worker.go_on_at is None:
                if psutil.Process(worker.process.pid).status() == psutil.STATUS_STOPPED:
                    self._stopped(worker, next(self._stop_seconds, _STOPPED_SECONDS))
            elif time.monotonic() >= worker.go_on_at:
                self._go_on(worker)

    def ready(self, slot: int) -> Worker | None:
        """Returns the worker of a slot if it runs and has not been told to end; None while there is none."""
        for worker in self.workers:
            if worker.slot == slot and worker.go_on_at is None and not worker.is_ending and self._has_begun(worker):
                return worker
        return None

    def kill(self, worker: Worker) -> None:
        """Ends a worker at once."""
        worker.is_ending = True
        self._send(worker, signal.SIGKILL)

    def stop(self, worker: Worker, seconds: float) -> None:
        """Stops a worker for so long."""
        self._send(worker, signal.SIGSTOP)
        self._stopped(worker, seconds)

    def tell_to_end(self, worker: Worker) -> None:
        """Sends the signal that a worker ends at: gracefully at the first one, hard at the second one."""
        if worker in self.workers:
            worker.is_ending = True
            self._send(worker, signal.SIGTERM)

    def end(self) -> None:
        """Ends all workers, gracefully as far as they do that within half a minute."""
        self.is_wanted = False
        for worker in list(self.workers):
            self.tell_to_end(worker)
        give_up_at = time.monotonic() + _PATIENCE_SECONDS
        while self.workers and time.monotonic() < give_up_at:
            self.look()
            time.sleep(0.02)

    def clean_up(self) -> None:
        """Kills whoever is left."""
        self.is_wanted = False
        for worker in list(self.workers):
            worker.process.kill()
            self._ended(worker, worker.process.wait())
        for process in self._spare:
            process.kill()
            process.wait()
            assert process.stdin is not None
            process.stdin.close()

    def _start(self, slot: int) -> None:
        incarnation = self._started[slot]
        self._started[slot] += 1
        name = f"{slot}.{incarnation}"
        offset = self._plan.clock_offsets[slot]
        process = self._spare.pop(0)
        while len(self._spare) < _SPARE:
            self._spare.append(self._spawn())
        self._log.write(Kind.BEGIN, process=name, detail=f"slot={slot} loop={self._loop} offset={offset:g}")
        assert process.stdin is not None
        process.stdin.write(f"{slot} {incarnation}\n".encode())
        process.stdin.flush()
        self.workers.append(Worker(slot, name, process))

    def _spawn(self) -> subprocess.Popen[bytes]:
        """Starts a process that waits to be told its place; it ends with this one, which holds its input."""
        arguments = ["--store", self._plan.store, "--loop", self._loop, "--mutant", self._mutant]
        arguments += ["--begin", str(self._begin)]
        with (self._directory / "spare.out").open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "tests.soak.worker", str(self._directory), *arguments],
                cwd=_REPOSITORY,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in a terminal is for the driver
            )

    def _has_begun(self, worker: Worker) -> bool:
        try:
            return (self._directory / f"{worker.name}.log").stat().st_size > 0
        except FileNotFoundError:
            return False

    def _send(self, worker: Worker, number: signal.Signals) -> None:
        self._log.write(Kind.SIGNAL, process=worker.name, detail=number.name)
        worker.process.send_signal(number)

    def _stopped(self, worker: Worker, seconds: float) -> None:
        worker.go_on_at = time.monotonic() + seconds
        self._log.write(Kind.FAULT, detail=f"stop {worker.name}")

    def _go_on(self, worker: Worker) -> None:
        worker.go_on_at = None
        self._send(worker, signal.SIGCONT)
        self._log.write(Kind.HEALED, detail=f"stop {worker.name}")

    def _ended(self, worker: Worker, code: int) -> None:
        self._log.write(Kind.EXIT, process=worker.name, detail=str(code))
        assert worker.process.stdin is not None
        worker.process.stdin.close()
        self.workers.remove(worker)
        if self.is_wanted:
            self._start(worker.slot)
