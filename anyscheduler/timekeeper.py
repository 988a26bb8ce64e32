"""Which time it is to a schedule: the store's, where several processes share one, so that all of them agree.

Knows: a clock, readings of the store's, the monotonic clock. Must not know: stores, schedules.

Every reply of the store that tells its time was sent between the question and its arrival. The estimate stays as it is
while it agrees with that, and moves just as far as it must when it does not: so it is off by less than one round trip,
and a wall clock that is set in this process changes nothing.
Source: Cristian, "Probabilistic clock synchronization" (1989), with the interval kept instead of its middle.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from anyscheduler import options
from anyscheduler.clock import micros_reader, system_clock, to_micros
from anyscheduler.logs import get_logger

if TYPE_CHECKING:
    from anyscheduler.clock import Clock

logger = get_logger(__name__)

_WORTH_SAYING: Final = 1_000_000
"""From how many microseconds on the difference between two clocks is logged, and a change of it again."""

_DRIFT: Final = 1_000
"""In how many microseconds two clocks may come apart by one: each of them is slewed by 500 millionths at most.

Whoever slews faster (chrony does, to correct a clock that is far off) has the time mistaken by less than a round trip.
Source: MAXFREQ in the kernel's include/linux/timex.h.
"""


class Timekeeper:
    """The time, in microseconds since the epoch, UTC.

    Args:
        clock: What `Scheduler(clock=...)` was given. The system's clock gives way to that of a store that has one; any
            other is taken as it is.

    Raises:
        ConfigurationError: It does not return an aware datetime.
    """

    def __init__(self, clock: Clock) -> None:
        try:
            to_micros(clock())
        except (TypeError, AttributeError):
            options.refuse("clock", clock, "a callable that returns an aware datetime")
        self._own = micros_reader(clock)
        self.may_follow: Final = clock is system_clock
        """Whether the store's clock is to be preferred."""
        self._ahead: int | None = None
        """How far the store's clock is ahead of the monotonic one; None while this process goes by its own."""
        self._at_least = 0
        """How far the store's clock was ahead of the monotonic one at the least, at the last reply."""
        self._replied = 0
        """When that was, by the monotonic clock."""
        self._said = 0

    def __call__(self) -> int:
        """Returns the time."""
        return self._own() if self._ahead is None else steady() + self._ahead

    def surely(self) -> int:
        """Returns a time that is not ahead of the store's: what is due by this one is due."""
        if self._ahead is None:
            return self._own()
        now = steady()
        return now + self._at_least_at(now)

    @property
    def to_claim_at(self) -> int | None:
        """The `now` of a claim: None where the store's own clock decides."""
        return self._own() if self._ahead is None else None

    @property
    def not_after(self) -> int | None:
        """What a claim may take the store's clock to show at most; None where that does not decide.

        One that was set ahead would otherwise end the leases of all that is being executed, before anybody knows.
        """
        return None if self._ahead is None else self() + _WORTH_SAYING

    def learn(self, shown: int, asked: int) -> None:
        """Takes note of what the store's clock showed.

        Args:
            shown: What it showed, in microseconds since the epoch.
            asked: What `steady` had returned when the question was sent; the reply has just arrived.
        """
        arrived = steady()
        least, most = shown - arrived, shown - asked
        self._at_least = least if self._ahead is None else max(least, min(most, self._at_least_at(arrived)))
        self._replied = arrived
        self._ahead = (least + most) // 2 if self._ahead is None else max(least, min(most, self._ahead))
        skew = self._own() - self()
        if abs(skew - self._said) > _WORTH_SAYING:
            self._report(skew)

    def _at_least_at(self, now: int) -> int:
        # One more, because all of these are whole microseconds.
        return self._at_least - (now - self._replied) // _DRIFT - 1

    def _report(self, skew: int) -> None:
        if abs(skew) > _WORTH_SAYING:
            where = "ahead of" if skew > 0 else "behind"
            logger.warning(
                "the clock of this machine is %.1f s %s the store's; schedules go by the store's",
                abs(skew) / 1e6,
                where,
            )
            self._said = skew
        else:
            logger.warning("the clock of this machine agrees with the store's again")
            self._said = 0


_COUNTS_SLEEP: Final = hasattr(time, "CLOCK_BOOTTIME")


def steady() -> int:
    """Returns a clock that is never set, and goes on while the machine sleeps where the system has such a one.

    In microseconds; only differences mean something.
    """
    return (time.clock_gettime_ns(time.CLOCK_BOOTTIME) if _COUNTS_SLEEP else time.monotonic_ns()) // 1000
