"""When a schedule is due: cron expressions, intervals and single instants.

Knows: the calendar, croniter, and the offsets of a time zone. Must not know: what the time is, tasks, leases, stores,
the event loop. Every instant is an int, microseconds since the epoch, UTC. None as a due time means that the schedule
has ended: the year field is over, nothing more matches, or the next time lies beyond the year 9999.

How cron meets daylight saving time. croniter is asked about wall-clock times only, which it steps through as if the
clock were never changed; which instant such a time is, is decided here, from UTC offsets. A wall-clock time that does
not exist runs once, at the end of the gap. One that exists twice runs once, the first time, when minute and hour are
fixed, and both times (by elapsed time) when one of them is a wildcard, a list or a step.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, assert_never

from anyscheduler.clock import EPOCH, check_instant, duration_micros, from_micros, to_micros
from anyscheduler.options import duration, refuse, shown
from anyscheduler.zones import offset_at, resolve

if TYPE_CHECKING:
    from datetime import tzinfo

    from croniter import croniter

_SECOND = 1_000_000
_DAY = 86_400
_NAIVE_EPOCH = EPOCH.replace(tzinfo=None)
# The first and the last second that a datetime can hold, in seconds since the epoch.
_EARLIEST = (datetime.min.replace(tzinfo=UTC) - EPOCH) // timedelta(seconds=1)
_LATEST = (datetime.max.replace(tzinfo=UTC) - EPOCH) // timedelta(seconds=1)

_LONGEST_EXPRESSION = 256
_ALIASES = ("@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually")
_FIELDS = (
    ("minute", "0-59 or *"),
    ("hour", "0-23 or *"),
    ("day of month", "1-31, L, the nearest weekday such as 15W, or *"),
    ("month", "1-12, jan-dec or *"),
    ("day of week", "0-7, sun-sat, the second Friday as fri#2, the last as L5, or *"),
    ("second", "0-59 or *"),
    ("year", "1970-2099 or *"),
)
_LEAST_FIELDS = 5
_SECONDS_FIELDS = 6
# How far ahead croniter looks. The rarest date without a year, a 29 February on a given weekday, comes within 40 years,
# but croniter counts the years that it jumps over, and a year field reaches from 1970 to 2099.
_YEARS_AHEAD = 150
# No change of the clocks moves a wall-clock time further (a zone that crosses the date line: a day); in seconds.
_FURTHEST_CHANGE = 26 * 3_600
# Transitions are looked for each day for so long after one instant and before the other, see _transition; in seconds.
_NEARBY = 3 * _DAY


@dataclass(frozen=True, slots=True)
class CronTrigger:
    """Due whenever the wall clock of a zone matches a cron expression. Made by `cron`.

    Attributes:
        expression: croniter's text, its fields separated by one space: five fields, then seconds, then the year.
        timezone: The name of the zone; None is UTC.
        hash_id: What `H` fields are hashed on; "" if there are none, so that equal crons are equal triggers.
    """

    expression: str
    timezone: str | None
    hash_id: str


@dataclass(frozen=True, slots=True)
class IntervalTrigger:
    """Due every so many microseconds, counted from when it was registered. Made by `interval`."""

    microseconds: int


@dataclass(frozen=True, slots=True)
class OnceTrigger:
    """Due at one instant, in microseconds since the epoch, UTC. Made by `once`."""

    at: int


Trigger = CronTrigger | IntervalTrigger | OnceTrigger


def cron(schedule: object, timezone: object = None, hash_id: str = "") -> CronTrigger:
    """Returns the trigger of a cron expression.

    Args:
        schedule: croniter's five fields, six with the seconds last, seven with the year; or an alias such as `@daily`.
        timezone: The name of the zone whose wall clock counts, see `zones.resolve`; None is UTC.
        hash_id: What `H` fields are hashed on, normally the name of the task.

    Raises:
        ConfigurationError: The expression is malformed (the message names the field), has random fields or can never
            match; or there is no such zone.
    """
    if not isinstance(schedule, str) or len(schedule) > _LONGEST_EXPRESSION:
        refuse("schedule", schedule, f"a cron expression as a string of at most {_LONGEST_EXPRESSION} characters")
    if timezone is not None and not isinstance(timezone, str):
        resolve(timezone)
    # Without an H field what they are hashed on makes no difference, and would only keep equal crons apart.
    hashed_on = hash_id if "H" in schedule.upper() else ""
    return _cron(str(schedule), None if timezone is None else str(timezone), hashed_on)


# One is read for every row that is executed, and thousands of instances share one cron.
@lru_cache(maxsize=1024)
def _cron(schedule: str, timezone: str | None, hash_id: str) -> CronTrigger:
    if not schedule.isascii() or not schedule.replace("\t", " ").isprintable():
        refuse("schedule", schedule, "a cron expression in printable ASCII characters")
    fields = schedule.split()
    if timezone is not None:
        resolve(timezone)
    trigger = CronTrigger(" ".join(fields), timezone, hash_id if any(map(_is_hashed, fields)) else "")
    _check(trigger.expression, trigger.hash_id)
    return trigger


def interval(value: object) -> IntervalTrigger:
    """Returns the trigger of a fixed interval, a timedelta from 1 millisecond to 100 years (36525 days).

    Raises:
        ConfigurationError: It is something else.
    """
    length = duration("interval", value, timedelta(milliseconds=1), timedelta(days=36_525))
    return IntervalTrigger(duration_micros(length))


def once(execute_at: object) -> OnceTrigger:
    """Returns the trigger of one instant, a datetime; a naive one is local time, and is converted here and now.

    Raises:
        ConfigurationError: It is not a datetime, or in UTC it lies before 0001-01-03 or after 9999-12-29.
    """
    if not isinstance(execute_at, datetime):
        refuse("execute_at", execute_at, "a datetime.datetime; a naive one is taken as local time")
    try:
        at = to_micros(execute_at.astimezone(UTC))
        check_instant(at)
    # Which of the three depends on the platform and on whether the datetime is naive.
    except (OverflowError, ValueError, OSError):
        refuse("execute_at", execute_at, "a datetime from 0001-01-03 to 9999-12-29 in UTC")
    return OnceTrigger(at)


def first_due(trigger: Trigger, registered_at: int) -> int | None:
    """Returns when a schedule is due for the first time; None: never, it ended before it was registered.

    A cron is due at its first match after `registered_at` (microseconds since the epoch, UTC), an interval one interval
    after it, and a single instant at that instant, be it past or future.
    """
    if isinstance(trigger, OnceTrigger):
        return trigger.at
    return next_due(trigger, registered_at, registered_at, fast_forward=False)


def next_due(trigger: Trigger, due_at: int, now: int, *, fast_forward: bool) -> int | None:
    """Returns the occurrence that follows the one due at `due_at`; None: that was the last one.

    Args:
        trigger: The schedule.
        due_at: The occurrence that is being settled, microseconds since the epoch, UTC.
        now: The present, likewise; it counts only when fast-forwarding.
        fast_forward: Whether to leave out the occurrences that were missed: the result is then later than both
            `due_at` and `now`. It takes no longer, however many were missed.
    """
    after = max(due_at, now) if fast_forward else due_at
    match trigger:
        case CronTrigger():
            # Matches are whole seconds, so the fraction changes nothing; without it more steps are found in the cache.
            second = _instant_after(trigger, after // _SECOND)
            return None if second is None or second > _LATEST else second * _SECOND
        case IntervalTrigger(microseconds):
            due = due_at + ((after - due_at) // microseconds + 1) * microseconds
            return None if due // _SECOND > _LATEST else due
        case OnceTrigger():
            return None
        case _:
            assert_never(trigger)


def describe(trigger: Trigger) -> str:
    """Returns the trigger in words, for logs and listings: `cron '0 12 * * *' in Europe/Dublin`."""
    match trigger:
        case CronTrigger(expression, timezone):
            return f"cron {expression!r} in {timezone or 'UTC'}"
        case IntervalTrigger(microseconds):
            return f"every {timedelta(microseconds=microseconds)}"
        case OnceTrigger(at):
            return f"once at {from_micros(at).isoformat()}"
        case _:
            assert_never(trigger)


def seconds_trap(trigger: Trigger) -> str | None:
    """Returns one line of warning if the sixth field of a cron makes it fire on every second; None: it does not.

    In croniter the sixth field is the seconds. `20 4 * * * *` fires sixty times a day, but whoever wrote it meant
    five fields, or thought that the seconds stand first. With the minute field `*` it was meant, and is not warned of.
    """
    if not isinstance(trigger, CronTrigger):
        return None
    fields = trigger.expression.split()
    minutes, hours, *_ = expanded = _compiled(trigger.expression, trigger.hash_id).expanded
    if len(fields) != _SECONDS_FIELDS or expanded[5] != ["*"] or minutes == ["*"]:
        return None
    without_seconds, seconds_first = repr(" ".join(fields[:5])), repr(" ".join([*fields[1:], fields[0]]))
    # 1. A time of day, or a date, which with the seconds first would stand where the hours do: one field too many.
    # 2. Several minutes of every hour, as in `*/5 * * * * *`: several seconds of every minute.
    # 3. Anything else, as `0 */5 * * * *`, can be either.
    if (_is_single(minutes) and _is_single(hours)) or fields[2:] != ["*"] * 4:
        meant = without_seconds
    elif hours == ["*"] and not _is_single(minutes):
        meant = seconds_first
    else:
        meant = f"{without_seconds}, or {seconds_first},"
    at = f"{0 if hours == ['*'] else hours[0]:02}:{minutes[0]:02}"
    return (
        f"schedule {trigger.expression!r} fires on every second from {at}:00 to {at}:59 (60 times in each minute that "
        f"matches), because its sixth field is the seconds, which stand last; probably {meant} was meant"
    )


@lru_cache(maxsize=1024)
def _check(expression: str, hash_id: str) -> None:
    """Refuses an expression that is malformed, random, or never fires."""
    fields = expression.split()
    if len(fields) == 1 and fields[0].startswith("@"):
        if fields[0].lower() not in _ALIASES:
            refuse("schedule", expression, f"the aliases are {', '.join(_ALIASES)}")
    elif not _LEAST_FIELDS <= len(fields) <= len(_FIELDS):
        refuse("schedule", expression, f"5 fields, 6 with the seconds last, or 7 with the year last; not {len(fields)}")
    for field, (name, _) in zip(fields, _FIELDS, strict=False):
        if field[0] in "rR":
            refuse("schedule", expression, f"its {name} field {field!r} is random, anew at every start; use H")
    if not _is_accepted(expression, hash_id):
        for index, (field, (name, allowed)) in enumerate(zip(fields, _FIELDS, strict=False)):
            alone = ["*"] * max(_LEAST_FIELDS, index + 1)
            alone[index] = field
            if not _is_accepted(" ".join(alone), hash_id):
                hint = f"its {name} field {shown(field)} has to be {allowed}; or lists 1,2, ranges 1-5, steps */5 of it"
                refuse("schedule", expression, hint)
        refuse("schedule", expression, "a cron expression whose fields go together")
    # croniter knows no year before 1970, so what does not match from there on never does.
    if _wall_after(CronTrigger(expression, None, hash_id), -1) is None:
        refuse("schedule", expression, "it never fires, no date matches all of its fields")


def _is_accepted(expression: str, hash_id: str) -> bool:
    try:
        _compiled(expression, hash_id)
    # croniter's errors are ValueErrors; the others come from inside it, for text that it did not foresee.
    except (ValueError, TypeError, LookupError, OverflowError):
        return False
    return True


def _is_hashed(field: str) -> bool:
    return field[0] in "hH"  # no other field that croniter accepts begins with this letter


def _is_single(values: list[int | str]) -> bool:
    return len(values) == 1 and values[0] != "*"


@lru_cache(maxsize=1024)
def _compiled(expression: str, hash_id: str) -> croniter:
    """Returns the parsed expression. It is shared: copy it before stepping, a step is kept in the object."""
    # With what it imports in turn it takes longer to import than all of this package, which many apps get by without.
    from croniter import croniter  # noqa: PLC0415

    # Without a time croniter reads the clock; with a hash_id it hashes the aliases too, and runs @daily at any hour.
    hashed_on = hash_id if any(map(_is_hashed, expression.split())) else None
    return croniter(
        expression, _NAIVE_EPOCH, ret_type=datetime, max_years_between_matches=_YEARS_AHEAD, hash_id=hashed_on
    )


def _wall_after(trigger: CronTrigger, wall: int) -> int | None:
    """Returns the first wall-clock time after `wall` that matches; both are seconds since a naive 1970-01-01."""
    if wall > _LATEST:
        return None
    stepper = copy.copy(_compiled(trigger.expression, trigger.hash_id))
    try:
        found: datetime = stepper.get_next(start_time=_NAIVE_EPOCH + timedelta(seconds=max(wall, _EARLIEST)))
    # A CroniterBadDateError (a ValueError) says that nothing matches; the others come where croniter's own arithmetic
    # meets the end of the year 9999.
    except (ValueError, OverflowError):
        return None
    return (found - _NAIVE_EPOCH) // timedelta(seconds=1)


# Thousands of instances share one cron and one due time.
@lru_cache(maxsize=8192)
def _instant_after(trigger: CronTrigger, second: int) -> int | None:
    """Returns the first instant after `second` at which the cron is due; both are seconds since the epoch, UTC.

    The instants are cut into segments of one offset each. The next match on the wall clock is worked out once, and
    carried from segment to segment until it lies in one.
    """
    zone = UTC if trigger.timezone is None else resolve(trigger.timezone)
    minutes, hours, *_ = _compiled(trigger.expression, trigger.hash_id).expanded
    is_fixed = _is_single(minutes) and _is_single(hours)
    offset = offset_at(zone, second)
    wall = _wall_after(trigger, second + offset)
    if is_fixed and wall is not None and offset_at(zone, second - _FURTHEST_CHANGE) > offset:
        put_back = _transition(zone, second - _FURTHEST_CHANGE, second)
        repeated_until = _EARLIEST if put_back is None else put_back + offset_at(zone, put_back - 1)
        if wall < repeated_until:  # this is the second pass, and the match was in the first one too
            wall = _wall_after(trigger, repeated_until - 1)
    while True:
        # With no match left, a clock that is soon put back may still bring some of the last ones again.
        candidate = second + 2 * _DAY if wall is None else wall - offset
        transition = _transition(zone, second, candidate)
        # 1. The clock is not changed before the match: that is it.
        # 2. It is put forward over the match, which thus does not exist: it runs at the end of the gap. That is also
        #    right for more matches in the same gap, and for one at its very end: all of them are this one run.
        # 3. It is put forward before the match: the match stays, the offset is another.
        # 4. It is put back, and minute and hour are fixed: a match in the repeated time would have come before the
        #    transition, so this one comes after the repetition, and stays.
        # 5. It is put back otherwise: the repeated wall-clock times match once more.
        if transition is None:
            return None if wall is None else candidate
        following = offset_at(zone, transition)
        resumed = transition + following
        if following > offset and wall is not None and wall < resumed:
            return transition
        if following < offset and not is_fixed:
            wall = _wall_after(trigger, resumed - 1)
        second, offset = transition, following


def _transition(zone: tzinfo, start: int, end: int) -> int | None:
    """Returns the first second in (start, end] with another offset than the one before; None: there is none.

    Over a long time only the days next to `start` and to `end` are looked at one by one. What lies between cannot
    change which wall-clock time comes next, only its offset in the end, so pairs that undo each other may be missed.
    """
    offset = offset_at(zone, start)
    after = range(start + _DAY, min(end, start + _NEARBY), _DAY)
    before = range(max(end - _NEARBY, start + _NEARBY), end, _DAY)
    same = start
    for probe in chain(after, before, (end,)):
        if offset_at(zone, probe) != offset:
            other = probe
            while other - same > 1:
                middle = (same + other) // 2
                if offset_at(zone, middle) == offset:
                    same = middle
                else:
                    other = middle
            return other
        same = probe
    return None
