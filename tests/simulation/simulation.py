"""One run of a seed: processes that start, are killed, stopped and suspended, then calm, and a look at what is left."""

from __future__ import annotations

import contextlib
import itertools
import logging
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from tests.simulation.history import Entry, History
from tests.simulation.load import SECOND, Bodies
from tests.simulation.machine import Machine, machines_keep_time, true_now
from tests.simulation.order import run_seeded
from tests.simulation.plan import Plan
from tests.simulation.process import Process
from tests.simulation.store import Store, Weather

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_STEPS: Final = (10, 60, 300, 2000)
"""After how many steps of a process something happens to it, on average, where that is not after a time."""

_DRAINING: Final = 300
"""After how many seconds of calm there has to be nothing overdue."""

_STOPPING: Final = 30
"""After how many seconds of calm a graceful stop has to be over."""


@dataclass(frozen=True)
class Run:
    """What came of a seed.

    Attributes:
        plan: What the seed has decided.
        entries: What happened, in order.
        digest: A checksum of that.
    """

    plan: Plan
    entries: list[Entry]
    digest: str


class Simulation:
    """A run.

    Args:
        plan: What the seed has decided.
        make_store: Makes the store; another one than `Store` plants a fault.
    """

    def __init__(self, plan: Plan, make_store: Callable[..., Store] = Store) -> None:
        self.history = History(true_now)
        self._plan = plan
        self._make_store = make_store
        self._random = random.Random(f"faults {plan.seed}")
        self._weather = Weather(random.Random(f"weather {plan.seed}"), plan.faults, plan.patience)
        self._bodies = Bodies(random.Random(f"bodies {plan.seed}"), plan.lease)
        self._users = random.Random(f"users {plan.seed}")
        self._calls = itertools.count(1)
        self._alive: dict[str, Process] = {}
        self._calm = trio.Event()
        self._stopping = False

    async def run(self) -> None:
        """Runs it."""
        async with trio.open_nursery() as server:
            store = self._make_store(self.history, server, has_clock=self._plan.store_has_clock)
            async with trio.open_nursery() as nursery:
                for slot in range(self._plan.instances):
                    nursery.start_soon(self._live, slot, store, nursery)
                await trio.sleep(self._plan.seconds)
                self._calm_down()
                await self._drain(store)
                await self._stop()
            for row in store.rows.values():
                self.history.note("", "left", row.key, before=row)
            server.cancel_scope.cancel()

    async def _live(self, slot: int, store: Store, nursery: trio.Nursery) -> None:
        """Runs one process after the other."""
        draw = self._random
        machine = Machine(draw.uniform(0, 1e6), draw.uniform(0.999, 1.001), draw.choice((0, 0, -20, 20)))
        for incarnation in itertools.count():
            process = Process(
                f"{slot}.{incarnation}",
                plan=self._plan,
                store=store,
                machine=machine,
                weather=self._weather,
                bodies=self._bodies,
                random=self._users,
                calls=self._calls,
            )
            self._alive[process.name] = process
            nursery.start_soon(process.run)
            with trio.CancelScope() as trouble:
                nursery.start_soon(self._cancel_when_calm, trouble)
                await self._trouble(process, machine)
            if process.steps.is_stopped:
                # It was stopped in the very step in which trouble ended.
                process.resume()
            await process.ended.wait()
            del self._alive[process.name]
            if self._stopping:
                return
            with trio.move_on_after(draw.expovariate(0.5)):
                await self._calm.wait()

    async def _cancel_when_calm(self, scope: trio.CancelScope) -> None:
        await self._calm.wait()
        scope.cancel()

    async def _trouble(self, process: Process, machine: Machine) -> None:
        """Lets things happen to a process until one of them has ended it."""
        draw = self._random
        while not process.ended.is_set():
            happened = trio.Event()
            harm = draw.choices((process.kill, process.cancel, process.shutdown, process.suspend), (4, 2, 3, 3))[0]

            def strike(harm: Callable[[], None] = harm, happened: trio.Event = happened) -> None:
                if not process.ended.is_set():
                    harm()
                happened.set()

            if draw.random() < 0.5:
                process.steps.at(1 + int(draw.expovariate(1 / draw.choice(_STEPS))), strike)
            try:
                with trio.move_on_after(draw.expovariate(1 / self._plan.life)) as waited:
                    await happened.wait()
            finally:
                process.steps.at(-1, strike)
            if waited.cancelled_caught:
                strike()
            if draw.random() < 0.3:
                machine.ahead += draw.choice((-3600, -5, 5, 3600))
                self.history.note(process.name, "clock set")
            if harm == process.suspend:
                try:
                    await trio.sleep(self._plan.lease * draw.choice((0.1, 0.5, 1.5)))
                finally:
                    process.resume()
            elif harm != process.kill:
                # A stop that takes long is followed by another one, as operators do.
                with trio.move_on_after(draw.expovariate(1 / self._plan.lease)):
                    await process.ended.wait()

    def _calm_down(self) -> None:
        self.history.note("", "calm")
        self._weather.rate = 0.0
        self._bodies.calm = True
        self._calm.set()
        for process in self._alive.values():
            process.leave_alone()

    async def _drain(self, store: Store) -> None:
        """Waits until nothing is overdue any more."""
        with trio.move_on_after(_DRAINING):
            await trio.sleep(self._late() / SECOND + 1)
            while any(row.due_at < true_now() - self._late() for row in store.rows.values()):
                await trio.sleep(1)
        for row in store.rows.values():
            if row.due_at < true_now() - self._late():
                self.history.note("", "overdue", row.key, due=row.due_at, before=row)

    def _late(self) -> int:
        """Returns how late an occurrence may be when all is calm, in microseconds."""
        return round((self._plan.poll_interval + 1) * SECOND)

    async def _stop(self) -> None:
        self._stopping = True
        alive = list(self._alive.values())
        for process in alive:
            process.leave_alone()
            process.shutdown()
        with trio.move_on_after(_STOPPING):
            for process in alive:
                await process.ended.wait()
        for process in alive:
            if not process.ended.is_set():
                self.history.note(process.name, "hangs")
                process.kill()


class _Errors(logging.Handler):
    """Notes what the package logs as an error."""

    def __init__(self, history: History) -> None:
        super().__init__(logging.ERROR)
        self._history = history

    def emit(self, record: logging.LogRecord) -> None:
        self._history.note("", "logged", detail=record.getMessage())


@contextlib.contextmanager
def _errors_noted(history: History) -> Iterator[None]:
    logger = logging.getLogger("anyscheduler")
    before = logger.level, logger.propagate
    errors = _Errors(history)
    logger.addHandler(errors)
    # Warnings are what faults lead to, and nobody reads them here.
    # Not by the attribute: loggers remember what is enabled, and only this makes them forget.
    logger.setLevel(logging.ERROR)
    logger.propagate = False
    try:
        yield
    finally:
        logger.setLevel(before[0])
        logger.propagate = before[1]
        logger.removeHandler(errors)


def simulate(seed: int, make_store: Callable[..., Store] = Store) -> Run:
    """Runs the simulation of a seed: the same seed, the same run."""
    plan = Plan.of(seed)
    simulation: Simulation | None = None

    async def run() -> None:
        nonlocal simulation
        simulation = Simulation(plan, make_store)
        with _errors_noted(simulation.history):
            await simulation.run()

    with machines_keep_time():
        run_seeded(run, seed, plan.hold_back)
    assert simulation is not None
    return Run(plan, simulation.history.entries, simulation.history.digest())
