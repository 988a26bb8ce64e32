"""The app that every simulated process runs: tasks of every guarantee, and bodies that behave in every way."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import trio

from anyscheduler import Context, ExecutionMode, FailureMode, Scheduler
from anyscheduler.clock import from_micros

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable

    from anyscheduler.lease import Row

SECOND: Final = 1_000_000


@dataclass(frozen=True)
class Kind:
    """A task of the load.

    Attributes:
        name: Its name.
        body: How its body behaves, see `Bodies`.
        every: Seconds between its occurrences; None for a dynamic task.
        cron: Whether these are a cron's, and not an interval's.
        at_most_once: Its guarantee.
        failure: What a failure means.
        heartbeat: Whether its lease is extended while it runs.
        fast_forward: Whether it skips what it has missed.
        dynamic: Whether it has instances.
    """

    name: str
    body: str = "quick"
    every: float | None = None
    cron: bool = False
    at_most_once: bool = False
    failure: FailureMode = FailureMode.NONE
    heartbeat: bool = False
    fast_forward: bool = False
    dynamic: bool = False


STATIC: Final = (
    Kind("tick", every=0.7),
    Kind("cron", every=2, cron=True),
    Kind("once_each", every=0.9, at_most_once=True),
    Kind("once_each_slow", "slow", every=2, at_most_once=True),
    Kind("once_each_cron", every=3, cron=True, at_most_once=True),
    Kind("unlocking", "raising", every=1.1, failure=FailureMode.UNLOCK),
    Kind("committing", "raising", every=1.3, failure=FailureMode.COMMIT),
    Kind("leaving", "raising", every=2),
    Kind("timing_out", "timing_out", every=2.1, failure=FailureMode.UNLOCK),
    Kind("overrunning", "overrunning", every=3),
    Kind("beating", "overrunning", every=4, heartbeat=True),
    Kind("stubborn", "stubborn", every=1.7),
    Kind("forward", every=0.4, fast_forward=True),
    Kind("forward_cron", "slow", every=1, cron=True, fast_forward=True),
)
DYNAMIC: Final = (
    Kind("repeated", dynamic=True),
    Kind("slowly_repeated", "slow", heartbeat=True, dynamic=True),
    Kind("once", "slow", dynamic=True),
    Kind("at_most_once", "slow", dynamic=True, at_most_once=True),
)
_KINDS: Final = {kind.name: kind for kind in STATIC + DYNAMIC}


class Schedule:
    """What the checkers know of the schedule behind a row; worked out from the load, not by the package."""

    def __init__(self, row: Row) -> None:
        kind = _KINDS[row.task]
        spec: dict[str, Any] = json.loads(row.spec or "{}")
        self.at_most_once = spec.get("execution_mode", "at_most_once" if kind.at_most_once else "") == "at_most_once"
        self.failure = FailureMode(spec.get("failure_mode", kind.failure))
        self.fast_forward = bool(spec.get("fast_forward", kind.fast_forward))
        self.call: int | None = spec.get("args", {}).get("call")
        """The call of `schedule_task` that it comes from; None for a static task."""
        self.execute_at: int | None = spec.get("execute_at")
        self.is_once = self.execute_at is not None
        self.is_cron = kind.cron or "schedule" in spec
        self.every: int = spec.get("interval", 0)
        if kind.every is not None:
            self.every = round(kind.every * SECOND)
        elif "schedule" in spec:
            self.every = int(spec["schedule"].rpartition("/")[2]) * SECOND

    @property
    def trigger(self) -> tuple[int | None, bool, int]:
        """What has to be the same for the next run to stay where it is."""
        return self.execute_at, self.is_cron, self.every

    def following(self, due: int) -> int | None:
        """Returns the occurrence after `due`, or None if that was the last one."""
        if self.is_once:
            return None
        if not self.is_cron:
            return due + self.every
        second = due // SECOND + 1
        while second % 60 % (self.every // SECOND):
            second += 1
        return second * SECOND


class Bodies:
    """What the bodies do.

    Args:
        random: Decides.
        lease: The length of a lease, in seconds.
    """

    def __init__(self, random: random.Random, lease: float) -> None:
        self._random = random
        self._lease = lease
        self.calm = False
        """Whether all bodies are quick and successful."""

    def of(self, behaviour: str) -> Callable[[Context], Awaitable[None]]:
        """Returns a body that behaves so while it is not calm."""
        behave: Callable[[Context], Awaitable[None]] = getattr(self, f"_{behaviour}")

        async def body(context: Context) -> None:
            if self.calm:
                await trio.sleep(0.01)
            else:
                await behave(context)

        return body

    async def _quick(self, _: Context) -> None:
        await trio.sleep(self._random.uniform(0, 0.1))

    async def _slow(self, _: Context) -> None:
        await trio.sleep(self._random.uniform(0, 0.7 * self._lease))

    async def _raising(self, _: Context) -> None:
        await trio.sleep(self._random.uniform(0, 0.3))
        if self._random.random() < 0.4:
            raise ValueError("this body raises")

    async def _timing_out(self, _: Context) -> None:
        with trio.fail_after(0.3):
            await trio.sleep(self._random.uniform(0, 0.5))

    async def _overrunning(self, _: Context) -> None:
        await trio.sleep(self._lease * self._random.choice((0.1, 0.6, 1.2, 2.2)))

    async def _stubborn(self, _: Context) -> None:
        try:
            await trio.sleep(self._random.uniform(0, 1))
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                await trio.sleep(self._random.uniform(0, 0.4))
            if self._random.random() < 0.5:
                raise


def define(app: Scheduler, names: frozenset[str], bodies: Bodies, lease: timedelta) -> None:
    """Defines all dynamic tasks, and the static ones that are named."""
    for kind in STATIC + DYNAMIC:
        given: dict[str, Any] = {
            "name": kind.name,
            "execution_mode": ExecutionMode.AT_MOST_ONCE if kind.at_most_once else ExecutionMode.AT_LEAST_ONCE,
            "failure_mode": kind.failure,
            "heartbeat": kind.heartbeat,
            "fast_forward": kind.fast_forward,
            "lease_duration": lease,
        }
        if kind.dynamic:
            app.dynamic_task(**given)(bodies.of(kind.body))
        elif kind.name in names:
            when = {"schedule": f"* * * * * */{kind.every}"} if kind.cron else {"interval": _seconds(kind.every)}
            app.task(**given, **when)(bodies.of(kind.body))


def instance(random: random.Random, kind: Kind, now: int) -> dict[str, Any]:
    """Returns what an instance is scheduled with.

    Args:
        random: Decides.
        kind: The dynamic task.
        now: The time, in microseconds since the epoch.
    """
    if kind.name in {"once", "at_most_once"} and random.random() < 0.8:
        return {"execute_at": from_micros(now + random.randrange(-SECOND, 3 * SECOND))}
    given: dict[str, Any] = random.choice(
        (
            {"interval": timedelta(seconds=0.8)},
            {"interval": timedelta(seconds=1.9)},
            {"schedule": "* * * * * */2"},
            {"schedule": "* * * * * */5"},
        )
    )
    if kind.name == "repeated":
        given = given | random.choice(
            (
                {},
                {"lease_duration": timedelta(seconds=random.choice((1.5, 6)))},
                {"fast_forward": True},
                {"failure_mode": FailureMode.UNLOCK},
                {"execution_mode": ExecutionMode.AT_MOST_ONCE},
            )
        )
    return given


def _seconds(every: float | None) -> timedelta:
    assert every is not None
    return timedelta(seconds=every)
