"""Walking through a time zone with a clock on the wall, step by step, and what a cron is due at on the way.

Instants are seconds since 1970-01-01, UTC. Wall-clock times are what the clock on the wall shows, as the seconds since
a 1970-01-01 of its own, so that both can be compared. zoneinfo alone says what the clock shows.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from datetime import UTC, date, datetime, timedelta
from math import gcd
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from tests.oracle.expression import Expression

MINUTE, HOUR, DAY = 60, 3_600, 86_400


def wall(zone: ZoneInfo, instant: int) -> int:
    """Returns what a clock on the wall shows at an instant."""
    return round(datetime.fromtimestamp(instant, zone).replace(tzinfo=UTC).timestamp())


def new_year(year: int) -> int:
    """Returns the instant at which a year begins in UTC."""
    return round(datetime(year, 1, 1, tzinfo=UTC).timestamp())


def offset(zone: ZoneInfo, instant: int) -> int:
    """Returns how many seconds the clock on the wall is ahead of UTC."""
    return wall(zone, instant) - instant


def transitions(zone: ZoneInfo, begin: int = new_year(1970), end: int = new_year(2038)) -> list[int]:
    """Returns the instants at which the clock is changed, ascending: the first ones at which it shows the new time.

    It looks at every hour, since some zones changed their clocks for a few weeks only.
    """
    found, before = [], offset(zone, begin)
    for hour in range(begin, end, HOUR):
        after = offset(zone, hour + HOUR)
        if after != before:
            found.append(next(at for at in range(hour + 1, hour + HOUR + 1) if offset(zone, at) == after))
        before = after
    return found


class Walk:
    """What a clock on the wall showed from one instant to another.

    Attributes:
        shown: For each wall-clock time the instants at which it was shown; for one that was skipped, the instant of
            the clock's first look after the gap.
        earliest: The first of these times.
        latest: The last of them.
    """

    def __init__(self, zone: ZoneInfo, begin: int, end: int, step: int = MINUTE) -> None:
        """Walks from `begin` to `end`, both included, in steps of `step` seconds, or finer if the zone is odd.

        A zone that is some seconds off from UTC is walked in steps small enough to meet each full minute.
        """
        step = gcd(step, *(offset(zone, instant) for instant in range(begin, end + HOUR, HOUR)))
        begin -= begin % step
        self.shown: dict[int, list[int]] = {}
        previous = wall(zone, begin - step)
        for instant in range(begin, end + 1, step):
            now = wall(zone, instant)
            # Put back, it shows one time; as always, the next one; put forward, all that it left out at once.
            for passed in range(min(previous + step, now), now + 1, step):
                self.shown.setdefault(passed, []).append(instant)
            previous = now
        self.earliest, self.latest = min(self.shown), max(self.shown)

    def due(self, expression: Expression, after: int, until: int) -> list[int]:
        """Returns when a cron is due later than `after` and not later than `until`, ascending.

        This is the whole rule: a wall-clock time is due whenever it is shown, a skipped one at the end of the gap, and
        what is due at one instant runs once. A fixed time is due the first time only. The walk has to begin longer
        before `after` than the clock is ever put back.
        """
        found: set[int] = set()
        for day in range(self.earliest // DAY, self.latest // DAY + 1):
            if not expression.is_on(date(1970, 1, 1) + timedelta(days=day)):
                continue
            midnight, times = day * DAY, expression.times
            begin, end = bisect_left(times, self.earliest - midnight), bisect_right(times, self.latest - midnight)
            for time in times[begin:end]:
                passes = self.shown.get(midnight + time, [])
                found.update(passes[:1] if expression.is_fixed else passes)
        return sorted(instant for instant in found if after < instant <= until)
