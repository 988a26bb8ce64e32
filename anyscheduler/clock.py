"""Wall time: the only file that reads it, and the conversions between datetimes and stored microseconds.

Knows: datetimes and integers. Must not know: what any instant means to a schedule.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from typing import TypeAlias

Clock: TypeAlias = Callable[[], datetime]
"""A callable that returns the current time as an aware datetime."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

LAST_MICROS = (datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC) - EPOCH) // _MICROSECOND
"""The last instant that a datetime can show; a schedule ends there."""
_FIRST = (datetime(1, 1, 3, tzinfo=UTC) - EPOCH) // _MICROSECOND
_LAST = (datetime(9999, 12, 29, tzinfo=UTC) - EPOCH) // _MICROSECOND


def system_clock() -> datetime:
    """Returns the system's time, aware, in UTC."""
    return datetime.now(UTC)


def micros_reader(clock: Clock) -> Callable[[], int]:
    """Returns a callable that gives the time of `clock` in microseconds since the epoch, UTC."""
    if clock is system_clock:
        # The same reading without the detour over a datetime: it is taken for every execution.
        return lambda: time.time_ns() // 1000
    return lambda: to_micros(clock())


def to_micros(moment: datetime) -> int:
    """Returns an aware datetime as whole microseconds since the epoch, exactly.

    Raises:
        TypeError: `moment` is naive; only the caller knows which zone was meant.
    """
    return (moment - EPOCH) // _MICROSECOND


def from_micros(micros: int, zone: tzinfo = UTC) -> datetime:
    """Returns microseconds since the epoch as an aware datetime in `zone`."""
    moment = EPOCH + timedelta(microseconds=micros)
    return moment if zone is UTC else moment.astimezone(zone)


def duration_micros(duration: timedelta) -> int:
    """Returns a timedelta as whole microseconds, exactly."""
    return duration // _MICROSECOND


def check_instant(micros: int) -> None:
    """Accepts an instant that a datetime can show in every zone, with a day to spare at either end.

    Raises:
        ValueError: It is another one, or no int at all.
    """
    if type(micros) is not int or not _FIRST <= micros <= _LAST:
        raise ValueError(f"{micros!r} is not an instant before the year 9999, in microseconds since the epoch")


def clamp(micros: int) -> int:
    """Returns the nearest instant that a datetime can show in every zone."""
    return max(_FIRST, min(_LAST, micros))
