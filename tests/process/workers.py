"""Workers: programs that run one app on one store, each on an event loop of its own choice.

Knows: programs, the three stores that processes can share. Must not know: what the app does.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import cycle, islice
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Self

import anyio

from anyscheduler.postgres import postgres_repository
from anyscheduler.redis import redis_repository
from anyscheduler.sqlite import sqlite_repository
from tests.process.ledger import WRITER, Entry, entries
from tests.process.programs import LOOPS, Programs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from anyscheduler.lease import Row
    from anyscheduler.repository import Repository
    from tests.process.programs import Program

# What each worker begins with: the options of its store for `Scheduler`, and the ledger.
_PRELUDE = f"""
import json

STORE = json.loads(os.environ["STORE"])
if "COMMAND_TIMEOUT" in os.environ:
    STORE[os.environ["KIND"] + "_command_timeout"] = timedelta(seconds=float(os.environ["COMMAND_TIMEOUT"]))
{WRITER}"""

_PATIENCE = 60.0
"""Seconds until something that has to happen is taken not to happen; more than any lease here."""

_READING_SECONDS = 60.0


@dataclass(frozen=True)
class Store:
    """A place of its own in a store.

    Attributes:
        kind: "sqlite", "postgres" or "redis".
        options: What `Scheduler` takes for it.
    """

    kind: str
    options: dict[str, Any] = field(repr=False)

    @classmethod
    def sqlite(cls, path: Path) -> Store:
        """A SQLite file."""
        return cls("sqlite", {"sqlite_database": str(path)})

    @classmethod
    def postgres(cls, url: str) -> Store:
        """A new table in a PostgreSQL database."""
        return cls("postgres", {"postgres_url": url, "postgres_table_name": f"workers_{token_hex(4)}"})

    @classmethod
    def redis(cls, url: str) -> Store:
        """A new namespace of a Redis server."""
        return cls("redis", {"redis_url": url, "redis_namespace": f"workers {token_hex(4)}"})

    def beside(self) -> Store:
        """Returns another place, whose name begins with that of this one."""
        name = "postgres_table_name" if self.kind == "postgres" else "redis_namespace"
        return Store(self.kind, {**self.options, name: self.options[name] + "_2"})

    def rows(self) -> dict[str, Row]:
        """Returns everything that is stored, by key."""
        found: dict[str, Row] = {}

        async def add(repository: Repository, task: str) -> None:
            after = ""
            while page := await repository.list(task, after, 10_000):
                found.update((row.key, row) for row in page)
                after = page[-1].key

        async def read() -> dict[str, Row]:
            # All at a time: one after the other, those of hundreds of tasks take long on a busy machine.
            with anyio.fail_after(_READING_SECONDS):
                async with self.open() as repository, anyio.create_task_group() as group:
                    for task in await repository.tasks():
                        group.start_soon(add, repository, task)
            return found

        return anyio.run(read)

    def open(self) -> AbstractAsyncContextManager[Repository]:
        """Opens it, as a process of its own would."""
        match self.kind:
            case "sqlite":
                return sqlite_repository(**self.options)
            case "postgres":
                return postgres_repository(**self.options)
            case _:
                return redis_repository(**self.options)


class Workers:
    """Programs on one store, in one directory. Left, it kills what still runs.

    Attributes:
        store: The store.
        directory: Where they run, and their ledger is.
    """

    def __init__(self, store: Store, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        self.store = store
        self.directory = directory
        self._programs = Programs(directory)
        self._started: list[Program] = []

    def start(self, source: str, loop: str = "asyncio", *, place: Store | None = None, **environment: str) -> Program:
        """Starts a worker; `source` defines `app`. A second source may be started once the first one runs.

        Args:
            source: The program, to which `STORE` and `record` are known.
            loop: One of `LOOPS`.
            place: Another place in the same kind of store.
            **environment: What the program finds in `os.environ`; `COMMAND_TIMEOUT` is that of its store, in seconds.
        """
        own = {"KIND": self.store.kind, "STORE": json.dumps((place or self.store).options)}
        program = self._programs.run(_PRELUDE + source, *LOOPS[loop], **own, **environment)
        self._started.append(program)
        return program

    def start_group(self, source: str, count: int = len(LOOPS), **environment: str) -> list[Program]:
        """Starts so many workers, on one event loop after the other."""
        loops = islice(cycle(LOOPS), count)
        return [self.start(source, loop, place=None, **environment) for loop in loops]

    def ledger(self) -> list[Entry]:
        """Returns the starts and ends so far, in their order."""
        return entries(self.directory)

    def until(self, condition: Callable[[list[Entry]], bool], what: str) -> None:
        """Returns once the condition holds for the ledger; asks ten times a second.

        Raises:
            TimeoutError: It does not hold after a minute.
        """
        give_up_at = time.monotonic() + _PATIENCE
        while not condition(self.ledger()):
            if time.monotonic() > give_up_at:
                output = "\n".join(str(program) for program in self._started)
                raise TimeoutError(f"waited {_PATIENCE:.0f} s until {what}:\n{output}")
            time.sleep(0.1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._programs.clean_up()


def on_each(stores: Iterable[Store], directory: Path, scenario: Callable[[Workers], None]) -> None:
    """Plays a scenario on several stores, side by side, with workers of its own on each.

    Raises:
        ExceptionGroup: What failed, with a note that names the store.
    """

    def play(store: Store) -> Exception | None:
        try:
            with Workers(store, directory / store.kind) as workers:
                scenario(workers)
        except Exception as failure:  # noqa: BLE001  # it is raised for all of them together
            failure.add_note(f"on {store.kind}")
            return failure
        return None

    places = list(stores)
    with ThreadPoolExecutor(len(places)) as pool:
        failures = [failure for failure in pool.map(play, places) if failure is not None]
    if failures:
        raise ExceptionGroup("a scenario failed", failures)
