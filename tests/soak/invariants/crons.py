"""When the crons of a run are due, by the oracle: a walk through zoneinfo second by second, and no croniter.

Knows: the oracle. Must not know: what was executed.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import lru_cache
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from tests.oracle.expression import parse
from tests.oracle.walk import DAY, HOUR, MINUTE, Walk

if TYPE_CHECKING:
    from collections.abc import Sequence

_SECOND: Final = 1_000_000
_HOURS: Final = 2
"""How far the walk goes on: no cron of the load is due less often than every hour."""


def next_due(cron: str, timezone: str, due: int) -> int:
    """Returns when a cron is due next after an instant, both in microseconds since the epoch."""
    second = due // _SECOND
    times = _times(cron, timezone, second - second % HOUR)
    return times[bisect_right(times, second)] * _SECOND


@lru_cache(maxsize=1024)
def _times(cron: str, timezone: str, hour: int) -> Sequence[int]:
    """Returns when a cron is due in the hour that begins at an instant and in the next one, in seconds."""
    expression = parse(cron)
    walk = _walk(timezone, hour, 1 if expression.has_seconds else MINUTE)
    return walk.due(expression, hour - 1, hour + _HOURS * HOUR)


@lru_cache(maxsize=64)
def _walk(timezone: str, hour: int, step: int) -> Walk:
    # From a day before, since what was shown already before the clock was put back need not be due again.
    return Walk(ZoneInfo(timezone), hour - DAY, hour + _HOURS * HOUR, step)
