"""Holds the due times of the package against those of the oracle, around changes of the clock and in whole years."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from anyscheduler.trigger import CronTrigger, cron, first_due, next_due
from tests.oracle.forms import FORMS, HASH_ID, Form
from tests.oracle.walk import DAY, HOUR, Walk, new_year, offset

if TYPE_CHECKING:
    from collections.abc import Iterable

_MICROS = 1_000_000
# Further back than any clock was put back since 1970; three hours in Antarctica/Casey.
_HISTORY = 4 * HOUR
_STARTS = 4


@dataclass
class Tally:
    """What was compared in one zone, and what differed, in words."""

    zone: str
    transitions: int = 0
    years: int = 0
    firings: int = 0
    differences: list[str] = field(default_factory=list)


class Comparison:
    """Compares the crons of one zone, and counts.

    Attributes:
        tally: What has come out so far.
    """

    def __init__(self, zone: str, seed: int = 0, forms: Iterable[Form] = FORMS) -> None:
        self.tally = Tally(zone)
        self._zone = ZoneInfo(zone)
        self._random = Random(f"{seed} {zone}")
        self._forms = [(form, cron(form.expression.text, zone, HASH_ID)) for form in forms]

    def around(self, transition: int) -> None:
        """Compares what is due around one change of the clock, an instant in seconds since the epoch."""
        shift = abs(offset(self._zone, transition) - offset(self._zone, transition - 1))
        reach = {has_seconds: self._reach(has_seconds) for has_seconds in (False, True)}
        walks = {
            has_seconds: Walk(self._zone, transition - far - _HISTORY, transition + far, step=1 if has_seconds else 60)
            for has_seconds, far in reach.items()
            if far
        }
        for form, trigger in self._forms:
            walk = walks[form.expression.has_seconds]
            first, last = transition - form.reach, transition + form.reach
            expected = walk.due(form.expression, first, last)
            self._in_order(trigger, expected, first, last)
            # Wherever it starts, inside gaps and repetitions too, the next one is the same.
            near = min(form.reach, shift + 600)
            self._from_anywhere(trigger, expected, transition - near, transition + near, last)
        self.tally.transitions += 1

    def through(self, year: int) -> None:
        """Compares what is due in a whole year; only what is due a few times a day, and not by seconds."""
        first, last = new_year(year), new_year(year + 1)
        walk = Walk(self._zone, first - _HISTORY, last)
        for form, trigger in self._forms:
            if form.reach >= 2 * DAY:
                self._in_order(trigger, walk.due(form.expression, first, last), first, last)
        self.tally.years += 1

    def _reach(self, has_seconds: bool) -> int:
        return max((form.reach for form, _ in self._forms if form.expression.has_seconds is has_seconds), default=0)

    def _in_order(self, trigger: CronTrigger, expected: list[int], first: int, last: int) -> None:
        """Steps from one due time to the next until `last`."""
        found = []
        at = first_due(trigger, first * _MICROS)
        while at is not None and at <= last * _MICROS:
            found.append(at)
            at = next_due(trigger, at, at, fast_forward=False)
        self.tally.firings += len(expected)
        if found != [due * _MICROS for due in expected]:
            missing = sorted(set(expected) - {due // _MICROS for due in found})
            surplus = sorted({due // _MICROS for due in found} - set(expected))
            self._differs(trigger, f"after {first} and until {last} it lacks {missing[:5]} and has {surplus[:5]}")

    def _from_anywhere(self, trigger: CronTrigger, expected: list[int], first: int, until: int, last: int) -> None:
        """Asks for the next due time after instants drawn from `first` to `until`, fast-forwarded to there."""
        for _ in range(_STARTS):
            start = self._random.randrange(first * _MICROS, until * _MICROS)
            found = next_due(trigger, first * _MICROS, start, fast_forward=True)
            later = bisect_right(expected, start // _MICROS)
            if later < len(expected):
                if found != expected[later] * _MICROS:
                    self._differs(trigger, f"after {start / _MICROS} it has {found}, not {expected[later]}")
            elif found is not None and found <= last * _MICROS:
                self._differs(trigger, f"after {start / _MICROS} it has {found}, and nothing is due until {last}")

    def _differs(self, trigger: CronTrigger, how: str) -> None:
        self.tally.differences.append(f"{trigger.expression} in {self.tally.zone}: {how}")
