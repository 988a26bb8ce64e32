"""A small parser of cron expressions, for the oracle: written from croniter's manual, and slow on purpose.

It shows what the fields mean, one set of values per field, and shares nothing with `anyscheduler.trigger`. It takes
valid expressions only. Weekdays count from Sunday, which is 0 and 7.
"""

from __future__ import annotations

from binascii import crc32
from calendar import monthrange
from dataclasses import dataclass
from datetime import date, timedelta

ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
MONTHS = {
    "jan": 1, "feb": 2, "mar": 3, "apr": 4, "may": 5, "jun": 6,
    "jul": 7, "aug": 8, "sep": 9, "oct": 10, "nov": 11, "dec": 12,
}  # fmt: skip
WEEKDAYS = {"sun": 0, "mon": 1, "tue": 2, "wed": 3, "thu": 4, "fri": 5, "sat": 6}


@dataclass(frozen=True)
class Field:
    """What one field can hold: its place in the expression, its bounds, both included, and its names."""

    place: int
    low: int
    high: int
    names: dict[str, int]

    def number(self, text: str) -> int:
        return self.names[text] if text in self.names else int(text)

    def values(self, text: str, hash_id: str) -> set[int]:
        """Returns what a field without L, # and W stands for."""
        return {value for item in text.split(",") for value in self._item(item, hash_id)}

    def _item(self, item: str, hash_id: str) -> set[int]:
        if item.startswith("h"):
            return self._hashed(item, hash_id)
        extent, _, step = item.partition("/")
        low, high = self._bounds(extent, has_step=step != "")
        if high < low:  # a range over the end of the week or of the year: fri-mon
            high += self.high - self.low + 1
        return {self._around(value) for value in range(low, high + 1, int(step or 1))}

    def _bounds(self, extent: str, *, has_step: bool) -> tuple[int, int]:
        if extent == "*":
            return self.low, self.high
        low, dash, high = extent.partition("-")
        if dash:
            return self.number(low), self.number(high)
        return self.number(low), self.high if has_step else self.number(low)

    def _around(self, value: int) -> int:
        return (value - self.low) % (self.high - self.low + 1) + self.low

    def _hashed(self, item: str, hash_id: str) -> set[int]:
        """Returns what H, H(low-high), H/step or H(low-high)/step stands for.

        The hash draws a value between the bounds; with a step it draws the first value out of the first `step`.
        """
        extent, _, step = item.partition("/")
        low, high = self.low, self.high
        if extent != "h":
            low, high = map(int, extent[2:-1].split("-"))
        choices = min(int(step), high - low + 1) if step else high - low + 1
        first = low + (crc32(hash_id.encode()) >> self.place) % choices
        return set(range(first, high + 1, int(step))) if step else {first}


MINUTE = Field(0, 0, 59, {})
HOUR = Field(1, 0, 23, {})
DAY = Field(2, 1, 31, {"l": 31})  # 20-L; a day that a month does not have never comes
MONTH = Field(3, 1, 12, MONTHS)
WEEKDAY = Field(4, 0, 6, WEEKDAYS)
SECOND = Field(5, 0, 59, {})
YEAR = Field(6, 1970, 2099, {})


@dataclass(frozen=True)
class Expression:
    """A parsed cron.

    Attributes:
        text: As it was written.
        times: The times of day that match, in seconds since midnight, ascending.
        is_fixed: Whether minute and hour are single values, so that a time that exists twice runs once.
        has_seconds: Whether it matches at other times than full minutes.
        days: The day-of-month field; None is `*` or `?`.
        weekdays: The day-of-week field; None is `*` or `?`.
        months: The numbers of the months.
        years: The numbers of the years; None is all of them.
        hash_id: What H fields are hashed on.
    """

    text: str
    times: tuple[int, ...]
    is_fixed: bool
    has_seconds: bool
    days: str | None
    weekdays: str | None
    months: frozenset[int]
    years: frozenset[int] | None
    hash_id: str

    def is_on(self, day: date) -> bool:
        """Tells whether it matches on a day. If day of month and of week are both restricted, either will do."""
        if day.month not in self.months or (self.years is not None and day.year not in self.years):
            return False
        restrictions = []
        if self.days is not None:
            restrictions.append(any(self._is_day(item, day) for item in self.days.split(",")))
        if self.weekdays is not None:
            restrictions.append(any(self._is_weekday(item, day) for item in self.weekdays.split(",")))
        return any(restrictions) or not restrictions

    def _is_day(self, item: str, day: date) -> bool:
        last = monthrange(day.year, day.month)[1]
        if item == "l":
            return day.day == last
        if "w" in item:
            return day == nearest_working_day(day.replace(day=int(item.strip("w"))))
        return day.day in DAY.values(item, self.hash_id)

    def _is_weekday(self, item: str, day: date) -> bool:
        weekday = day.isoweekday() % 7
        if item.startswith("l"):
            is_last = (day + timedelta(days=7)).month != day.month
            return is_last and weekday == int(item[1:]) % 7
        extent, _, nth = item.partition("#")
        return weekday in WEEKDAY.values(extent, self.hash_id) and nth in {"", str((day.day + 6) // 7)}


def nearest_working_day(day: date) -> date:
    """Returns the day from Monday to Friday that is nearest to a day, in the same month."""
    for distance in (0, -1, 1, -2, 2):
        other = day + timedelta(days=distance)
        if other.month == day.month and other.isoweekday() <= 5:
            return other
    raise AssertionError(day)


def parse(text: str, hash_id: str = "") -> Expression:
    """Returns what a valid cron expression means; H fields are hashed on `hash_id`."""
    fields = ALIASES.get(text.lower(), text.lower()).split()
    minute, hour, day, month, weekday, second, year = [*fields, "0", "*"] if len(fields) == 5 else [*fields, "*"][:7]
    minutes, hours, seconds = (
        field.values(written, hash_id) for field, written in ((MINUTE, minute), (HOUR, hour), (SECOND, second))
    )
    return Expression(
        text=text,
        times=tuple(sorted(h * 3_600 + m * 60 + s for h in hours for m in minutes for s in seconds)),
        is_fixed=len(minutes) == len(hours) == 1,
        has_seconds=seconds != {0},
        days=None if day in {"*", "?"} else day,
        weekdays=None if weekday in {"*", "?"} else weekday,
        months=frozenset(MONTH.values(month, hash_id)),
        years=None if year == "*" else frozenset(YEAR.values(year, hash_id)),
        hash_id=hash_id,
    )
