"""The app that a soak runs: every kind of task there is, and bodies that misbehave.

Knows: anyscheduler as its users do, how much load there is. Must not know: what goes wrong around it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from anyscheduler import ExecutionMode, FailureMode, Scheduler
from tests.soak.bodies import HEARTBEATING_SECONDS, PRESSED_SECONDS, SHORT_SECONDS, Bodies
from tests.soak.load import Load
from tests.soak.log import TaskFacts
from tests.soak.plan import LEASE_SECONDS, POLL_SECONDS

if TYPE_CHECKING:
    from tests.soak.log import LogWriter

CONCURRENCY_LIMIT: Final = 40
AT_LEAST_ONCE: Final = 100
AT_MOST_ONCE: Final = 60
HEARTBEATING: Final = 20
RAISING: Final = 5

_IN_THREADS: Final = 10
"""How many of the at-least-once tasks are plain functions."""
_FAST_FORWARD: Final = 20
"""How many of the others leave out what they have missed."""

_SECOND: Final = timedelta(seconds=1)
_HEARTBEATS_EVERY: Final = timedelta(seconds=8)
"""For the first of them, and half a second more for each.

What they have missed is left out, and so it is of the bodies that raise: one after the other it would take minutes.
"""
_MISBEHAVES_EVERY: Final = timedelta(seconds=2)

_CRONS: Final = {
    "cron 0": ("* * * * *", "Asia/Kathmandu"),
    "cron 1": ("* * * * * */2", "Europe/Dublin"),
    "cron 2": ("*/2 * * * * 1-59/3", "Australia/Lord_Howe"),
    "cron 3": ("* */1 * * * 7,31,32", "America/St_Johns"),
}
"""Crons that are due in any minute or two, and the zone that each of them goes by."""

MOST_PREFIX: Final = "most "
CORRUPT_TASK: Final = "corrupt"
CORRUPT_KEY: Final = f"{CORRUPT_TASK}:broken"
"""The row that the driver damages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What one worker is told.

    Attributes:
        slot: Its place, from 0 on.
        incarnation: How many were there before it.
        begin: When the load begins, CLOCK_MONOTONIC in seconds.
        seconds: How long the load lasts.
        pressure: In which seconds of it bodies take long.
        log: Where it tells what it does.
    """

    slot: int
    incarnation: int
    begin: float
    seconds: float
    pressure: tuple[float, float]
    log: LogWriter


def task_facts() -> tuple[TaskFacts, ...]:
    """Returns what the checkers know of the tasks."""
    second, misbehaves = (interval // timedelta(microseconds=1) for interval in (_SECOND, _MISBEHAVES_EVERY))
    return (
        *(
            TaskFacts(name, "plain", False, second, body_seconds=PRESSED_SECONDS, fast_forward=_skips(number))
            for number, name in enumerate(_names("plain"))
        ),
        *(TaskFacts(name, "plain", True, second, body_seconds=PRESSED_SECONDS) for name in _names("most")),
        *(
            TaskFacts(name, "cron", False, None, body_seconds=SHORT_SECONDS, cron=cron, timezone=zone)
            for name, (cron, zone) in _CRONS.items()
        ),
        *(
            TaskFacts(name, "heartbeat", False, every // timedelta(microseconds=1), True, HEARTBEATING_SECONDS, True)
            for name, every in _heartbeats()
        ),
        *(TaskFacts(name, name, False, None, body_seconds=SHORT_SECONDS) for name in ("once", "churn", CORRUPT_TASK)),
        *(
            TaskFacts(name, "raising", False, misbehaves, body_seconds=SHORT_SECONDS, fast_forward=True)
            for name in _names("raising")
        ),
        TaskFacts("cancelled", "cancelled", False, misbehaves, body_seconds=SHORT_SECONDS),
    )


def runs_at_most_once(task: str) -> bool:
    """Tells whether the task of a row is one of those that ask for that."""
    return task.startswith(MOST_PREFIX)


def _names(group: str) -> list[str]:
    count = {"plain": AT_LEAST_ONCE, "most": AT_MOST_ONCE, "heartbeat": HEARTBEATING, "raising": RAISING}[group]
    return [f"{group} {number}" for number in range(count)]


def _skips(number: int) -> bool:
    """Tells which of the plain at-least-once tasks leave out what they have missed."""
    return number >= AT_LEAST_ONCE - _FAST_FORWARD


def _heartbeats() -> list[tuple[str, timedelta]]:
    return [(name, _HEARTBEATS_EVERY + number * _SECOND / 2) for number, name in enumerate(_names("heartbeat"))]


def make_app(setting: Setting, **store: Any) -> Scheduler:
    """Returns the app; `store` is the repository factory and its options."""
    app = Scheduler(
        poll_interval=timedelta(seconds=POLL_SECONDS),
        concurrency_limit=CONCURRENCY_LIMIT,
        on_event=setting.log.event,
        **store,
    )
    bodies = Bodies(setting)
    app.use_middleware(bodies.count)
    app.use_fixture("samples", bodies.sample)
    lease: dict[str, Any] = {"lease_duration": timedelta(seconds=LEASE_SECONDS)}
    # Claimed in this order, so the corrupt row has others behind it.
    _, once, churn = (app.dynamic_task(name=name, **lease)(bodies.short) for name in (CORRUPT_TASK, "once", "churn"))
    for number, name in enumerate(_names("plain")):
        body = bodies.in_thread if number < _IN_THREADS else bodies.plain
        app.task(name=name, interval=_SECOND, fast_forward=_skips(number), **lease)(body)
    for name in _names("most"):
        app.task(name=name, interval=_SECOND, execution_mode=ExecutionMode.AT_MOST_ONCE, **lease)(bodies.plain)
    for name, every in _heartbeats():
        app.task(name=name, interval=every, heartbeat=True, fast_forward=True, **lease)(bodies.heartbeating)
    for name, (cron, zone) in _CRONS.items():
        app.task(name=name, schedule=cron, timezone=zone, **lease)(bodies.short)
    misbehaving: dict[str, Any] = {"interval": _MISBEHAVES_EVERY, **lease}
    for name in _names("raising"):
        app.task(name=name, failure_mode=FailureMode.UNLOCK, fast_forward=True, **misbehaving)(bodies.raising)
    app.task(name="cancelled", failure_mode=FailureMode.COMMIT, **misbehaving)(bodies.cancelled)
    load = Load(setting.slot, setting.incarnation, setting.begin + setting.seconds, setting.log)
    app.use_fixture("load", load.of(once, churn))
    return app
