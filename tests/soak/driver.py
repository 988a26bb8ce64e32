"""Drives a soak: starts the store and the workers, carries the plan out, lets the workers catch up, ends them.

Knows: the plan, the fleet, the place. Must not know: what has to hold afterwards.
"""

from __future__ import annotations

import sys
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final, assert_never

from tests.soak.app import CONCURRENCY_LIMIT, CORRUPT_KEY, task_facts
from tests.soak.fleet import Fleet
from tests.soak.log import Facts, Kind, LogWriter
from tests.soak.place import open_place
from tests.soak.plan import LEASE_SECONDS, POLL_SECONDS, Cut, Hold, Kill, Restart, Stop, Term, make_plan

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.soak.place import Place
    from tests.soak.plan import Plan

_TICK_SECONDS: Final = 0.02
_PROGRESS_SECONDS: Final = 10.0
_LEAD_SECONDS: Final = 1.0
"""For how long the workers run before the load begins."""
_DRAIN_SECONDS: Final = 90.0
"""How long the workers may take to catch up in the end."""
_HEAL_SECONDS: Final = LEASE_SECONDS + POLL_SECONDS + 2.0
"""For how long they are watched at least, so that each of them is seen to work again."""


class Driver:
    """One run, in a directory that keeps everything that was written about it."""

    def __init__(self, directory: Path, plan: Plan, place: Place, *, loop: str, mutant: str) -> None:
        self._directory = directory
        self._plan = plan
        self._place = place
        self._loop = loop
        self._mutant = mutant
        self._log = LogWriter(directory / "driver.log", "driver")
        self._begin = time.monotonic() + _LEAD_SECONDS
        self._fleet = Fleet(directory, plan, self._begin, self._log, store=place.options, loop=loop, mutant=mutant)
        self._pool = ThreadPoolExecutor(8)
        self._under_way: list[Future[None]] = []
        self._told_at = self._begin

    def run(self) -> None:
        """Runs it from begin to end."""
        self._plan.save(self._directory / "plan.json")
        self._place.damage(CORRUPT_KEY)
        try:
            self._fleet.start()
            self._carry_out()
            end = self._heal()
            self._drain()
            self._fleet.end()
        finally:
            self._fleet.clean_up()
            self._pool.shutdown()
        self._take_stock()
        self._log.close()
        Facts(
            store=self._plan.store,
            loop=self._loop,
            seed=self._plan.seed,
            seconds=self._plan.seconds,
            begin=round(self._begin * 1e6),
            end=round(end * 1e6),
            lease=LEASE_SECONDS,
            poll_interval=POLL_SECONDS,
            concurrency_limit=CONCURRENCY_LIMIT,
            tasks=task_facts(),
            mutant=self._mutant,
        ).save(self._directory / "facts.json")

    def _carry_out(self) -> None:
        pending = list(self._plan.faults)
        again: list[tuple[float, Callable[[], None]]] = []
        while (passed := time.monotonic() - self._begin) < self._plan.seconds:
            for fault in [fault for fault in pending if fault.at <= passed]:
                if self._begins(fault, again):
                    pending.remove(fault)
            for due in [due for due in again if due[0] <= passed]:
                again.remove(due)
                due[1]()
            self._wait("faults")

    def _begins(
        self, fault: Kill | Stop | Term | Restart | Cut | Hold, again: list[tuple[float, Callable[[], None]]]
    ) -> bool:
        """Begins a fault; returns False if the worker that it is for is not there at the moment."""
        match fault:
            case Restart(_, seconds, crash):
                self._break("crash" if crash else "restart", lambda: self._place.restart(seconds, crash=crash))
            case Cut(_, kind, _):
                self._break(kind, lambda: self._place.cut(fault))
            case Hold(_, seconds, writes):
                what = "sqlite write" if writes else "sqlite read"
                self._break(what, lambda: self._place.hold(seconds, writes=writes))
            case Kill(_, slot) | Stop(_, slot, _) | Term(_, slot, _):
                worker = self._fleet.ready(slot)
                if worker is None:
                    return False
                match fault:
                    case Kill():
                        self._fleet.kill(worker)
                    case Stop(_, _, seconds):
                        self._fleet.stop(worker, seconds)
                    case Term(_, _, again_after):
                        self._fleet.tell_to_end(worker)
                        if again_after is not None:
                            at = time.monotonic() - self._begin + again_after
                            again.append((at, lambda: self._fleet.tell_to_end(worker)))
            case _:
                assert_never(fault)
        return True

    def _break(self, what: str, action: Callable[[], None]) -> None:
        """Carries out what takes its time, beside everything else."""

        def carry_out() -> None:
            self._log.write(Kind.FAULT, detail=what)
            action()
            self._log.write(Kind.HEALED, detail=what)

        self._under_way.append(self._pool.submit(carry_out))

    def _heal(self) -> float:
        """Waits until nothing is broken any more, and returns when that is, CLOCK_MONOTONIC in seconds."""
        while any(not done.done() for done in self._under_way) or any(
            worker.go_on_at is not None for worker in self._fleet.workers
        ):
            self._wait("healing")
        return time.monotonic()

    def _drain(self) -> None:
        """Lets the workers go on until nothing is left of what was due by now, and of what was scheduled for once."""
        by = time.time_ns() // 1000
        seen_at = time.monotonic() + _HEAL_SECONDS
        give_up_at = time.monotonic() + _DRAIN_SECONDS
        while time.monotonic() < give_up_at:
            look = self._pool.submit(self._place.rows)
            while not look.done():
                self._wait("draining")
            left = [
                row
                for row in look.result().values()
                if row.key != CORRUPT_KEY and (row.due_at <= by or row.task in {"once", "churn"})
            ]
            if not left and time.monotonic() > seen_at:
                return
            until = time.monotonic() + 0.5
            while time.monotonic() < until:
                self._wait("draining")

    def _wait(self, doing: str) -> None:
        self._fleet.look()
        for done in [done for done in self._under_way if done.done()]:
            self._under_way.remove(done)
            done.result()
        now = time.monotonic()
        if now >= self._told_at:
            self._told_at += _PROGRESS_SECONDS
            names = " ".join(worker.name for worker in self._fleet.workers)
            text = f"{self._plan.store} {self._loop} {now - self._begin:.0f} s, {doing}, workers {names}"
            print(text, file=sys.stderr, flush=True)
        time.sleep(_TICK_SECONDS)

    def _take_stock(self) -> None:
        for row in self._place.rows().values():
            self._log.write(
                Kind.ROW, key=row.key, due=row.due_at, token=row.token, until=row.claimable_at, detail=row.task
            )
        for orphan in self._place.orphans():
            self._log.write(Kind.ORPHAN, detail=orphan)


def soak(directory: Path, *, store: str, loop: str, seconds: float, seed: int, mutant: str = "") -> None:
    """Runs one soak, and leaves all that was written about it in an empty directory."""
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="soak-") as scratch, open_place(store, Path(scratch)) as place:
        Driver(directory, make_plan(seed, store, seconds), place, loop=loop, mutant=mutant).run()
