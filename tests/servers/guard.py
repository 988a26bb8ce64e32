"""Ends a server, and removes its files, once the process that started it is gone: however it went, kill -9 included.

Knows: which process the server is, and how to end it in good order. Must not know: what the server serves.

The file is two things: the class that the tests use, and the program that this class runs beside each server. The
program reads a pipe, and the system closes that pipe when its owner dies.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Self

import psutil

if TYPE_CHECKING:
    from pathlib import Path

_PATIENCE = 20.0
"""Seconds that a server gets to end in good order."""


class Guard:
    """Watches one server after the other for this process, as a context manager; removes a directory at the end."""

    def __init__(self, directory: Path, end: signal.Signals) -> None:
        """Starts to watch.

        Args:
            directory: What is removed once this process is gone, or when the context manager is left.
            end: The signal that ends the server at once, but lets it release what it shares with the system.
        """
        self._program = subprocess.Popen(
            [sys.executable, "-I", __file__, str(directory), str(end.value)],
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C in a terminal goes to the tests, which end their servers themselves
        )

    def watch(self, pid: int | None) -> None:
        """Says which process the server is from now on; None: there is none to end."""
        assert self._program.stdin is not None
        self._program.stdin.write(f"{pid or 0}\n")
        self._program.stdin.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._program.stdin is not None
        self._program.stdin.close()
        self._program.wait()


def family(pid: int) -> list[psutil.Process]:
    """Returns a process and all its descendants; empty when it is gone."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def is_alive(process: psutil.Process) -> bool:
    """Whether a process can still do anything; one that ended may go on to exist until its parent asks for its end."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _end(pid: int, end: signal.Signals) -> None:
    processes = family(pid)
    _send(processes[:1], end)
    _send(processes, signal.SIGCONT)  # a stopped process handles no signal before it goes on
    latest = time.monotonic() + _PATIENCE
    while any(map(is_alive, processes)) and time.monotonic() < latest:
        time.sleep(0.01)
    _send(processes, signal.SIGKILL)


def _send(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            continue


def _main(directory: str, end: str) -> None:
    pid = 0
    for line in sys.stdin:
        pid = int(line)
    if pid:
        _end(pid, signal.Signals(int(end)))
    shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    _main(*sys.argv[1:])
