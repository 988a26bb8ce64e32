"""Time zones by name, and the offset of a zone at an instant.

Knows: the names that a user may write for a zone, zoneinfo, and what python-dateutil adds to it. Must not know:
schedules, stores, the event loop, the time of day. It never opens a file that the name chose: the only files read are
those of the zone data that belong to a key such as `Europe/Dublin`.
"""

from __future__ import annotations

import re
import string
import time
import unicodedata
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from anyscheduler.clock import EPOCH
from anyscheduler.options import refuse

if TYPE_CHECKING:
    from datetime import tzinfo

_LONGEST = 255
_DAY = 86_400
# Two days inside the years 1 and 9999: a zone may look at the other end of an offset, or of a daylight saving rule.
_FIRST = int(datetime(1, 1, 3, tzinfo=UTC).timestamp())
_LAST = int(datetime(9999, 12, 29, tzinfo=UTC).timestamp())
# Every day of a leap year, so that no season of daylight saving time, however short, hides an offset of a day or more.
_YEAR = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp())
_PROBES = (_FIRST, *range(_YEAR, _YEAR + 366 * _DAY, _DAY), _LAST)

# Offsets such as UTC+25 are left out (GMT+0 is a key), so that not even the zone data is searched for them.
_KEY = re.compile(r"(?!(?:UTC|GMT)[+\-](?!0$))[A-Za-z0-9_+\-]+(?:/[A-Za-z0-9_+\-]+)*", re.ASCII)
# All that dateutil reads as it is meant. Left to itself it takes `Europe/Dubln2` and `Europe%2fDublin` for zones two
# hours west of Greenwich, `UTC+1.5` for `UTC+1`, `UTC 5` for `UTC-5`, and the sixth week of a month for its last one.
_OFFSET = r"[+\-]?[0-9]{1,2}(?:[0-5][0-9]|:[0-5][0-9])?"
_DAY_OF_YEAR = r"(?:[1-9][0-9]?|[12][0-9]{2}|3[0-5][0-9]|36[0-5])"
_CHANGE_DAY = rf"(?:M(?:1[0-2]|[1-9])\.[1-5]\.[0-6]|J{_DAY_OF_YEAR}|0|{_DAY_OF_YEAR})"
_CHANGE = rf"{_CHANGE_DAY}(?:/[0-9]{{1,6}}(?::[0-5][0-9]){{0,2}})?"
_POSIX = re.compile(rf"[A-Za-z]+{_OFFSET}(?:[A-Za-z]+(?:{_OFFSET})?(?:,{_CHANGE},{_CHANGE})?)?", re.ASCII)
_ALLOWED = (
    "an IANA name such as 'Europe/Dublin', an offset such as 'UTC+12' (twelve hours east; less than a day), "
    "or a POSIX string such as 'EST5EDT,M3.2.0,M11.1.0'; never a path"
)


def resolve(name: object) -> tzinfo:
    """Returns the time zone called `name`.

    The names are those of `dateutil.tz.gettz`, by its signs (`UTC+12` is twelve hours EAST of Greenwich, `EST5` five
    hours west), except those that name a file. What is found is kept, so asking again costs next to nothing.

    Source: the order of the search is that of `dateutil.tz.gettz`. IANA keys go through zoneinfo instead of dateutil's
    reader of the same data, with which croniter was measured to lose runs in Europe/Dublin every autumn.

    Raises:
        ConfigurationError: There is no such zone, its offset is a day or more, or the name could choose a file.
    """
    if not isinstance(name, str) or not 1 <= len(name) <= _LONGEST or not _is_harmless(name):
        refuse("timezone", name, _ALLOWED)
    return _resolve(name)


def offset_at(zone: tzinfo, second: int) -> int:
    """Returns the offset of `zone` from UTC in seconds, positive to the east.

    Only the conversion from UTC to local time is used. It has one answer for every instant, and dateutil's zones get it
    right; for local times inside a gap they do not follow PEP 495.

    Args:
        zone: Any time zone.
        second: The instant, in seconds since the epoch. Instants before 0001-01-03 and after 9999-12-29 get the offset
            of that day.
    """
    instant = EPOCH + timedelta(seconds=min(max(second, _FIRST), _LAST))
    difference = instant.astimezone(zone).replace(tzinfo=None) - instant.replace(tzinfo=None)
    return difference.days * _DAY + difference.seconds


def _is_harmless(name: str) -> bool:
    """Tells whether no part of the name could lead out of the zone data, or break a log line in two."""
    if name.startswith(("/", ":")) or ".." in name or "\\" in name:
        return False
    return not any(unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} for character in name)


@lru_cache(maxsize=1024)
def _resolve(name: str) -> tzinfo:
    zone = _by_key(name) or _by_rule(name)
    if zone is None or not _is_within_a_day(zone):
        refuse("timezone", name, _ALLOWED)
    return zone


def _by_key(name: str) -> tzinfo | None:
    key = name.replace(" ", "_")
    if not _KEY.fullmatch(key):
        return None
    try:
        return ZoneInfo(key)
    # zoneinfo raises ZoneInfoNotFoundError for an unknown key, ValueError for a file that is not a zone, and the
    # OSError of the platform for a key that is a directory.
    except (LookupError, ValueError, OSError):
        return None


def _by_rule(name: str) -> tzinfo | None:
    """Returns the zone of a name that has no zone data.

    1. A name with a digit: a POSIX string, with dateutil's signs for GMT and UTC.
    2. GMT and UTC, where the system has no zone data at all.
    3. One of the two abbreviations of the system's own zone, such as CEST: the system's zone.
    """
    # Few names get here, and it takes long to import.
    from dateutil import tz  # noqa: PLC0415

    if any(character in string.digits for character in name):
        if not _POSIX.fullmatch(name):
            return None
        try:
            return tz.tzstr(name)
        # The parser's own words for a string that makes no sense: unknown format, no such weekday, too large.
        except (ValueError, TypeError, OverflowError):
            return None
    if name in {"GMT", "UTC"}:
        return UTC
    return tz.tzlocal() if name in time.tzname else None


def _is_within_a_day(zone: tzinfo) -> bool:
    try:
        return all(abs(offset_at(zone, probe)) < _DAY for probe in _PROBES)
    # A rule that dateutil could parse and cannot compute, such as one for the thirteenth month.
    except (ValueError, TypeError, OverflowError):
        return False
