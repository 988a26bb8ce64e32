"""A server as a process of its own: started on a free port, waited for, stopped, killed, frozen, never left behind.

Knows: processes, signals, ports, the log file. Must not know: PostgreSQL or Redis.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from random import SystemRandom
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

import psutil

from tests.servers.guard import Guard, family

if TYPE_CHECKING:
    from collections.abc import Callable

HOST = "127.0.0.1"

PASSWORD = "canary-pässwörd@:/%"
"""The password of every server. Nothing that a test prints or logs may hold `canary`, quoted or not."""

QUOTED_PASSWORD = quote(PASSWORD, safe="")
"""The password as it stands in a URL."""

_PATIENCE = 60.0
"""Seconds until something that has to happen is taken not to happen; a loaded machine may need many of them."""

# Below the ports that systems give to outgoing connections (Linux from 32768, others from 49152). One of those could
# be in use when the server comes back; worse, a client that tries again and again to reach a stopped server would be
# given the server's own port one day, and be connected to itself.
_PORTS = range(10_000, 20_000)

BUS_OFFSET = 10_000
"""How far above its port a node of a Redis Cluster listens to the others."""

# Hypothesis seeds the common generator, so every run of the suite would try the same ports.
_random = SystemRandom()


class ServerFailedError(Exception):
    """A server did not start or did not end; the message has its log."""


class PortTakenError(ServerFailedError):
    """Somebody else listens on the port that the server was given."""


class Server(ABC):
    """One server process, which may be started and ended any number of times.

    Attributes:
        port: Where it listens on 127.0.0.1. It stays the same.
        log: The file with everything that it wrote.
    """

    def __init__(self, port: int, log: Path, guard: Guard) -> None:
        self.port = port
        self.log = log
        self._guard = guard
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    @abstractmethod
    def _command(self) -> list[str]:
        """The program and its arguments; it must not go into the background."""

    @abstractmethod
    def _is_ready(self) -> bool:
        """Whether it serves clients; asked again and again after the start."""

    @property
    def pid(self) -> int:
        """The process; of those that the server consists of, the one that started the others."""
        assert self._process is not None, "the server is not running"
        return self._process.pid

    def start(self) -> None:
        """Starts the server and returns when it serves clients.

        Raises:
            PortTakenError: Somebody else listens on its port.
            ServerFailedError: It ended instead, or is not ready for a minute.
        """
        assert self._has_ended(), "the server is running"
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                self._command,
                env={"LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in a terminal is for the tests
            )
        self._guard.watch(self._process.pid)
        try:
            wait_until(lambda: self._has_ended() or self._is_ready(), "the server is ready")
        except TimeoutError as error:
            self._signal_and_wait(signal.SIGKILL)
            raise ServerFailedError(f"{error}{self._told()}") from None
        if self._has_ended():
            self._signal_and_wait(signal.SIGKILL)
            told = self._told()
            failure = PortTakenError if "Address already in use" in told else ServerFailedError
            raise failure(f"the server ended at once{told}")

    @abstractmethod
    def stop(self) -> None:
        """Ends the server in good order, also when it is frozen; does nothing when it is not running."""

    @abstractmethod
    def kill(self) -> None:
        """Ends the server at once, as a crash would; does nothing when it is not running."""

    def restart(self) -> None:
        """Stops the server and starts it again, on the same port and with what it has stored."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Stops the work of all processes of the server; its connections stay open, the system accepts new ones."""
        first = psutil.Process(self.pid)
        first.suspend()
        # A process that starts others must be seen to stand still before the others are counted.
        wait_until(lambda: first.status() == psutil.STATUS_STOPPED, "the server is stopped")
        for process in family(self.pid):
            with suppress(psutil.NoSuchProcess):
                process.suspend()

    def thaw(self) -> None:
        """Lets a frozen server go on; does nothing when it is not frozen."""
        for process in family(self.pid):
            with suppress(psutil.NoSuchProcess):
                process.resume()

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._signal_and_wait(number)

    def _signal_and_wait(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        self.thaw()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise ServerFailedError(f"the server does not end{self._told()}") from None
        finally:
            self._process = None
            self._guard.watch(None)

    def _has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def _told(self) -> str:
        """What the server wrote since its last start, as the end of a message."""
        return "; its log:\n" + self.log.read_bytes()[self._log_start :].decode(errors="replace")


def wheel_file(package: str, path: str) -> str:
    """Returns where a file of an installed package is, without importing the package.

    The packages that bring servers start them in ways of their own when they are imported and used: with locks, users
    and handlers that tests do not want.
    """
    spec = find_spec(package)
    assert spec is not None, 'servers come with `pip install -e ".[test]"`'
    (directory,) = spec.submodule_search_locations or [""]
    return str(Path(directory, path))


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Returns once the condition holds; asks every 10 milliseconds.

    Raises:
        TimeoutError: It does not hold after a minute.
    """
    end = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {_PATIENCE:.0f} s until {what}")
        time.sleep(0.01)


S = TypeVar("S", bound=Server)


def start_on_free_port(new: Callable[[int], S]) -> S:
    """Starts what `new` returns for a port; tries others when somebody else was faster to take it.

    Raises:
        ServerFailedError: The server does not start for another reason, or finds ten ports taken.
    """
    for _ in range(9):
        server = new(free_port())
        with suppress(PortTakenError):
            server.start()
            return server
    server = new(free_port())
    server.start()
    return server


def free_port() -> int:
    """Returns a port of 127.0.0.1 that nobody listens on, nor on the one that belongs to its cluster bus."""
    while True:
        port = _random.choice(_PORTS)
        with socket.socket() as one, socket.socket() as other, suppress(OSError):
            one.bind((HOST, port))
            other.bind((HOST, port + BUS_OFFSET))
            return port
