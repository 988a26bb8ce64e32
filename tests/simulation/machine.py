"""The clocks of the machines that the simulated processes run on: each is off in its own way.

The engine reads time in `clock.py` and `timekeeper.py` only; both get, in place of the module `time`, one that asks the
machine of whichever process is running. `backoff.py` does so for its log lines.
"""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Final
from unittest import mock

import trio

import anyscheduler.backoff
import anyscheduler.clock
import anyscheduler.timekeeper

if TYPE_CHECKING:
    from collections.abc import Iterator

BEGINNING: Final = 1_767_225_600_000_000
"""What the store's clock shows when a run begins, in microseconds since the epoch: 2026-01-01, UTC."""


def true_now() -> int:
    """Returns the store's time, in microseconds since the epoch."""
    return BEGINNING + round(trio.current_time() * 1e6)


@dataclass
class Machine:
    """The clocks of one machine.

    Attributes:
        booted: What its monotonic clock showed when the run began, in seconds.
        rate: How fast its clocks go; 1.0 is right.
        ahead: By how many seconds its wall clock is ahead; changing it sets that clock.
    """

    booted: float
    rate: float
    ahead: float

    def steady(self) -> float:
        """The monotonic clock, in seconds."""
        return self.booted + trio.current_time() * self.rate

    def wall(self) -> float:
        """The wall clock, in seconds since the epoch."""
        return BEGINNING / 1e6 + trio.current_time() * self.rate + self.ahead


MACHINE: Final[ContextVar[Machine]] = ContextVar("MACHINE")
"""The machine that a task runs on."""

_TIME: Final = SimpleNamespace(
    CLOCK_BOOTTIME=7,
    clock_gettime_ns=lambda _: int(MACHINE.get().steady() * 1e9),
    monotonic=lambda: MACHINE.get().steady(),
    monotonic_ns=lambda: int(MACHINE.get().steady() * 1e9),
    time_ns=lambda: int(MACHINE.get().wall() * 1e9),
)


@contextlib.contextmanager
def machines_keep_time() -> Iterator[None]:
    """Lets the engine read the clocks of machines instead of the system's."""
    with contextlib.ExitStack() as stack:
        for module in (anyscheduler.clock, anyscheduler.timekeeper, anyscheduler.backoff):
            stack.enter_context(mock.patch.object(module, "time", _TIME))
        yield
