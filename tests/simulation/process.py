"""One simulated process: an app on a machine with clocks of its own, its users, and the ways in which it ends."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import trio

from anyscheduler import AppContext, Event, RepositoryError, Scheduler, TaskLockedError
from anyscheduler.clock import from_micros, system_clock, to_micros
from tests.simulation.load import DYNAMIC, Bodies, define, instance
from tests.simulation.machine import MACHINE, Machine, true_now
from tests.simulation.order import STEPS, Steps
from tests.simulation.store import Client, Connection, Store, Weather

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator, Iterator
    from datetime import datetime

    from anyscheduler.repository import Repository
    from tests.simulation.plan import Plan

_NAMES: Final = ("a", "b", "c")


class Process:
    """One incarnation of one instance of the app.

    Args:
        name: "slot.incarnation".
        plan: What the seed has decided.
        store: The store.
        machine: Where it runs.
        weather: The network.
        bodies: What the bodies do.
        random: Decides what its users ask for.
        calls: Numbers the calls of `schedule_task`, over all processes.
    """

    def __init__(
        self,
        name: str,
        *,
        plan: Plan,
        store: Store,
        machine: Machine,
        weather: Weather,
        bodies: Bodies,
        random: random.Random,
        calls: Iterator[int],
    ) -> None:
        self.name = name
        self.steps = Steps()
        self.is_dead = False
        self.is_ending = False
        self.ended = trio.Event()
        """Set when it has ended; for one that was killed at once, although its tasks still unwind."""
        self._plan = plan
        self._store = store
        self._note = store.history.note
        self._machine = machine
        self._weather = weather
        self._bodies = bodies
        self._random = random
        self._calls = calls
        self._scope = trio.CancelScope()
        self._users = trio.CancelScope()
        self._context: AppContext | None = None

    async def run(self) -> None:
        """Runs the app until it ends in one of the ways below."""
        STEPS.set(self.steps)
        MACHINE.set(self._machine)
        self._note(self.name, "begins")
        try:
            with self._scope:
                async with self._app().create() as context, trio.open_nursery() as nursery:
                    self._context = context
                    if self.is_ending:
                        context.shutdown()
                    nursery.start_soon(self._use, context)
                    await context.run()
                    nursery.cancel_scope.cancel()
        except Exception as error:  # noqa: BLE001  # whatever comes out is a finding
            self._tell("raised", detail=repr(error))
        self._tell("exits", detail="hard" if self._scope.cancel_called else "graceful")
        self.ended.set()

    def kill(self) -> None:
        """Ends it between two of its steps: nothing that it does from now on reaches anybody."""
        self._tell("killed")
        self.is_dead = True
        self._scope.cancel()
        self.ended.set()

    def cancel(self) -> None:
        """Stops it hard."""
        self._tell("stops", detail="hard")
        self.is_ending = True
        self._scope.cancel()

    def shutdown(self) -> None:
        """Stops it gracefully."""
        self._tell("stops", detail="graceful")
        self.is_ending = True
        if self._context is not None:
            self._context.shutdown()

    def suspend(self) -> None:
        """Stops it as SIGSTOP does."""
        self._tell("suspended")
        self.steps.stop()

    def resume(self) -> None:
        """Lets it go on, as SIGCONT does."""
        self._tell("resumed")
        self.steps.resume()

    def leave_alone(self) -> None:
        """Ends what its users do."""
        self._users.cancel()

    def _app(self) -> Scheduler:
        plan = self._plan
        app = Scheduler(
            repository_factory=self._connect,
            poll_interval=timedelta(seconds=plan.poll_interval),
            concurrency_limit=plan.concurrency_limit,
            batch_size=plan.batch_size,
            clock=system_clock if plan.store_has_clock else _same_clock,
            on_event=self._hear,
        )
        define(app, plan.tasks, self._bodies, timedelta(seconds=plan.lease))
        return app

    @asynccontextmanager
    async def _connect(self) -> AsyncIterator[Repository]:
        yield Connection(self._store, Client(self.name, lambda: self.is_dead), self._weather)

    def _tell(self, kind: str, key: str = "", **more: Any) -> None:
        if not self.is_dead:
            self._note(self.name, kind, key, **more)

    def _hear(self, event: Event) -> None:
        due, until = (None if moment is None else to_micros(moment) for moment in (event.scheduled_at, event.until))
        self._tell(event.kind, event.key, due=due, token=event.fence, until=until, detail=event.detail)

    async def _use(self, context: AppContext) -> None:
        """Does what users do: schedule and unschedule instances, all of them the same few names."""
        with self._users:
            while True:
                await trio.sleep(self._random.expovariate(1 / self._plan.pause))
                await self._use_once(context)

    async def _use_once(self, context: AppContext) -> None:
        kind, name = self._random.choice(DYNAMIC), self._random.choice(_NAMES)
        task = next(task for task in context._plan.defined if task.name == kind.name)
        key = task.instance_key(name)
        if self._random.random() < 0.3:
            call, verb, force = next(self._calls), "unregister", False
            asked = context.unschedule_task(task, name)
        else:
            call, verb = next(self._calls), "register"
            given = instance(self._random, kind, true_now())
            force = self._random.random() < 0.3
            asked = context.schedule_task(task, name, force=force, call=call, **given)  # type: ignore[assignment]
        self._tell(f"asks to {verb}", key, call=call, detail="force" if force else "")
        answer = "done"
        try:
            await asked
        except TaskLockedError:
            answer = "locked"
        except RepositoryError:
            answer = "failed"
        self._tell(f"{verb} answered", key, call=call, detail=answer)


def _same_clock() -> datetime:
    """The clock of a machine that runs all processes, for a store that has none of its own."""
    return from_micros(true_now())
