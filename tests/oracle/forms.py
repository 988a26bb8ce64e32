"""What the oracle asks about: zones with unusual clocks, and every form that a field of a cron can have."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

from croniter import croniter

from tests.oracle.expression import Expression, parse
from tests.oracle.walk import DAY, HOUR, MINUTE

HASH_ID = "oracle"

# In the comments: what makes a zone worth walking through.
ODD_ZONES = (
    "Europe/Dublin",  # summer time is its standard time, and winter time the exception
    "Australia/Lord_Howe",  # half an hour
    "Africa/Casablanca",  # back for Ramadan only
    "Pacific/Apia",  # lost a day in 2011
    "America/Havana",  # at midnight
    "Africa/Cairo",  # Ramadan too: four changes in some years; none for years
    "Asia/Tehran",  # at midnight, by another calendar
    "Antarctica/Troll",  # two hours
    "America/Nuuk",  # once at 22:00 on the day before
    "Asia/Pyongyang",  # half an hour, at midnight, for three years
    "Africa/Monrovia",  # 44 minutes and 30 seconds
    "Pacific/Kwajalein",  # lost a day in 1993
    "America/Caracas",  # half an hour back, and again ahead
    "Asia/Kathmandu",  # quarter of an hour
)
ZONES = (
    *ODD_ZONES,
    "Africa/El_Aaiun",
    "Africa/Johannesburg",
    "Africa/Juba",
    "America/Asuncion",
    "America/Argentina/San_Luis",
    "America/Anchorage",
    "America/Danmarkshavn",
    "America/New_York",
    "America/Resolute",
    "America/Sao_Paulo",
    "America/Scoresbysund",
    "America/St_Johns",
    "Antarctica/Casey",
    "Antarctica/Macquarie",
    "Asia/Amman",
    "Asia/Dhaka",
    "Asia/Gaza",
    "Asia/Kolkata",
    "Asia/Tokyo",
    "Atlantic/Azores",
    "Europe/Istanbul",
    "Europe/London",
    "Europe/Moscow",
    "Europe/Volgograd",
    "Pacific/Chatham",
    "Pacific/Easter",
    "Pacific/Fakaofo",
    "Pacific/Kiritimati",
    "Pacific/Norfolk",
    "UTC",
)


@dataclass(frozen=True)
class Form:
    """A cron to compare.

    Attributes:
        expression: As the oracle has parsed it.
        reach: How far from a change of the clock it is compared, on both sides, in seconds: the more often it is due,
            the less far.
    """

    expression: Expression
    reach: int


_EVERY_FEW_MINUTES = (
    "* * * * *",
    "*/5 * * * *",
    "3-59/7 * * * *",
    "H/15 * * * *",
    "* 1 * * *",
    "*/20 0-3 * * *",
    "0-30/10,45,50-52 * * * *",
)
_A_FEW_TIMES_A_DAY = (
    # Fixed times around the usual changes.
    "0 0 * * *",
    "30 0 * * *",
    "0 1 * * *",
    "30 1 * * *",
    "0 2 * * *",
    "15 2 * * *",
    "59 2 * * *",
    "0 3 * * *",
    "0 12 * * *",
    "59 23 * * *",
    "@daily",
    "@midnight",
    # Wildcards, lists, ranges and steps of minutes and hours, together and mixed with single values.
    "0 * * * *",
    "30 * * * *",
    "@hourly",
    "0,30 1 * * *",
    "0,30,45 0,1,2,3 * * *",
    "*/20 1 * * *",
    "10-20 2 * * *",
    "0 1-3 * * *",
    "30 0,2 * * *",
    "30 */2 * * *",
    "15 1-23/2 * * *",
    "45 22-2 * * *",
    "40/10 23 * * *",
    "30 20/1 * * *",
    # One value, however it is written.
    "0 */24 * * *",
    "30,30 1 * * *",
    "*/60 2 * * *",
    # Hashed fields.
    "H H * * *",
    "H * * * *",
    "H(0-29) H(0-3) * * *",
    "H(10-50)/20 1 * * *",
    "H H(0-3) H H H",
    # Days of the week.
    "30 1 * * 0",
    "30 1 * * 7",
    "5 2 * * SUN",
    "0,30 2 * * sat,Sun",
    "0 9-17 * * mon-fri",
    "15 1 * * fri-mon",
    "15 0 * * 5-7",
    "0 3 * * 6-2",
    "20 4 * * */2",
    "0 2 * * sun#1",
    "30 1 * * 7#2,0#4",
    "30 2 * * 5#3,L5",
    "30 1 * * L0",
    "0 1 * * L7",
    "*/15 1 * * mon-wed#1",
    "@weekly",
    # Days of the month, alone and together with days of the week: either will do.
    "0 0 1 * *",
    "30 1 L * *",
    "*/30 0 1,L * *",
    "0 0 1-7 * *",
    "0 1 */10 * *",
    "0 1 20-L * *",
    "0 2 25-5 * *",
    "0 12 30,31 * *",
    "30 2 1 * sun",
    "30 1 13 * FRI",
    "0 3 1-31 * mon",
    "0 2 ? * sun",
    "0 2 15 * ?",
    "@monthly",
    # Months and years.
    "30 1 * mar,OCT *",
    "0 2 * 3-5 sun",
    "0 1 * NOV-mar *",
    "0 */6 * */5 *",
    "0 0 29 2 *",
    "30 0 31 12 *",
    "@yearly",
    "@annually",
    "30 1 * * * 0 1970-2037",
    "0,30 1 * * * 0 */4",
    "0 2 * * sun 0 1999/5",
    "0 3 1-7 4,10 * 0 1985-1995,2011,2024",
)
# The working day nearest to a day. Older versions of croniter refuse it.
_NEAREST_WORKING_DAY = ("0 1 1W * *", "30 2 15W * *", "0,30 0 W28 * *")
# With seconds, which are the sixth field.
_A_FEW_TIMES_A_MINUTE = (
    "* * * * * */10",
    "*/5 * * * * 15,45",
    "30 1 * * * */15",
    "0 2 * * * 0-59/20",
    "0,30 0-3 * * * 59",
    "* 1 * * * 30",
    "H * * * * H",
    "30 * * * sun 5-7",
    "0 1 * mar,oct * 1 1980-2030",
)
_EVERY_SECOND = ("* * * * * *", "0,30 * * * * *", "30 1 * * * *")


def _forms() -> tuple[Form, ...]:
    rare = _NEAREST_WORKING_DAY if croniter.is_valid(_NEAREST_WORKING_DAY[0]) else ()
    reaches = {
        6 * HOUR: _EVERY_FEW_MINUTES,
        2 * DAY: (*_A_FEW_TIMES_A_DAY, *rare),
        2 * HOUR: _A_FEW_TIMES_A_MINUTE,
        2 * MINUTE: _EVERY_SECOND,
    }
    return tuple(
        chain.from_iterable(
            (Form(parse(text, HASH_ID), reach) for text in expressions) for reach, expressions in reaches.items()
        )
    )


FORMS = _forms()
