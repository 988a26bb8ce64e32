"""When schedules are due: expressions and what is wrong with them, steps, and what changes of the clocks do."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import cache
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyscheduler import trigger as module
from anyscheduler.errors import ConfigurationError
from anyscheduler.trigger import (
    CronTrigger,
    IntervalTrigger,
    OnceTrigger,
    Trigger,
    cron,
    describe,
    first_due,
    interval,
    next_due,
    once,
    seconds_trap,
)
from anyscheduler.zones import resolve

if TYPE_CHECKING:
    from collections.abc import Iterator

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SECOND = 1_000_000
HOUR = 3_600


def micros(text: str) -> int:
    """Returns the microseconds since the epoch of an ISO time, in UTC where it has no offset."""
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        instant = instant.replace(tzinfo=UTC)
    return (instant - EPOCH) // timedelta(microseconds=1)


def iso(instant: int | None, zone: tzinfo = UTC) -> str | None:
    if instant is None:
        return None
    return (EPOCH + timedelta(microseconds=instant)).astimezone(zone).isoformat()


def following(trigger: Trigger, instant: int) -> int | None:
    return next_due(trigger, instant, instant, fast_forward=False)


def run(trigger: Trigger, start: str, count: int, zone: tzinfo = UTC) -> list[str | None]:
    """Returns the first `count` occurrences after `start`, as local times with their offset."""
    found: list[str | None] = []
    instant: int | None = micros(start)
    while instant is not None and len(found) < count:
        instant = following(trigger, instant)
        found.append(iso(instant, zone))
    return found


# --- Definition of crons ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "start", "expected"),
    [
        ("* * * * *", "2024-01-01T00:00:00", "2024-01-01T00:01:00+00:00"),
        ("* * * * *", "2024-01-01T00:00:59.999999", "2024-01-01T00:01:00+00:00"),
        ("0 12 * * *", "2024-01-01T12:00:00", "2024-01-02T12:00:00+00:00"),
        ("0 12 * * *", "2024-01-01T11:59:59.999999", "2024-01-01T12:00:00+00:00"),
        ("20 4 * * *", "2024-01-01T00:00:00", "2024-01-01T04:20:00+00:00"),
        ("20 4 * * * *", "2024-01-01T04:20:30", "2024-01-01T04:20:31+00:00"),
        ("* * * * * */15", "2024-01-01T04:20:30", "2024-01-01T04:20:45+00:00"),
        ("0 0 1 1 * 0 2099", "2024-01-01T00:00:00", "2099-01-01T00:00:00+00:00"),
        ("0 0 29 2 *", "2024-03-01T00:00:00", "2028-02-29T00:00:00+00:00"),
        ("0 0 29 2 *", "2096-03-01T00:00:00", "2104-02-29T00:00:00+00:00"),
        ("0 0 29 2 mon#5", "2072-03-01T00:00:00", "2112-02-29T00:00:00+00:00"),
        ("0 0 31 2 mon", "2024-01-01T00:00:00", "2024-02-05T00:00:00+00:00"),
        ("0 0 l * *", "2024-02-01T00:00:00", "2024-02-29T00:00:00+00:00"),
        ("0 0 * * fri#2", "2024-02-01T00:00:00", "2024-02-09T00:00:00+00:00"),
        ("0 0 ? * MON-FRI", "2024-02-02T00:00:00", "2024-02-05T00:00:00+00:00"),
        ("\t0  12\t* * * ", "2024-01-01T12:00:00", "2024-01-02T12:00:00+00:00"),
        ("@hourly", "2024-01-01T00:00:00", "2024-01-01T01:00:00+00:00"),
        ("@daily", "2024-01-01T00:00:00", "2024-01-02T00:00:00+00:00"),
        ("@midnight", "2024-01-01T00:00:00", "2024-01-02T00:00:00+00:00"),
        ("@weekly", "2024-01-01T00:00:00", "2024-01-07T00:00:00+00:00"),
        ("@monthly", "2024-01-01T00:00:00", "2024-02-01T00:00:00+00:00"),
        ("@yearly", "2024-01-01T00:00:00", "2025-01-01T00:00:00+00:00"),
        ("@ANNUALLY", "2024-01-01T00:00:00", "2025-01-01T00:00:00+00:00"),
    ],
)
def test_a_cron_is_due_at_its_first_match_after_an_instant(expression: str, start: str, expected: str) -> None:
    trigger = cron(expression, hash_id="task")
    assert iso(first_due(trigger, micros(start))) == expected
    assert iso(following(trigger, micros(start))) == expected


def test_a_cron_whose_years_are_over_is_valid_and_has_ended() -> None:
    trigger = cron("0 0 1 1 * 0 2001")
    assert first_due(trigger, micros("2000-06-01T00:00:00")) == micros("2001-01-01T00:00:00")
    assert following(trigger, micros("2001-01-01T00:00:00")) is None
    assert first_due(trigger, micros("2024-01-01T00:00:00")) is None


def test_hashed_fields_depend_on_the_name_and_on_nothing_else() -> None:
    first, again, other = cron("H H * * *", None, "a"), cron("H H * * *", None, "a"), cron("H H * * *", None, "b")
    start = "2024-01-01T00:00:00"
    assert run(first, start, 2) == run(again, start, 2)
    assert run(first, start, 2) != run(other, start, 2)
    assert len(run(cron("h(0-5) * * * *", None, ""), start, 2)) == 2


def test_equal_crons_are_equal_whatever_the_task_or_the_spacing() -> None:
    assert cron("0 12 * * *", None, "a") == cron(" 0\t12 * * *", None, "b") == CronTrigger("0 12 * * *", None, "")
    assert cron("@daily", None, "a") == cron("@daily", None, "b")
    assert cron("H 12 * * *", None, "a") != cron("H 12 * * *", None, "b")
    assert cron("0 12 * * *", "UTC") != cron("0 12 * * *", "Europe/Dublin")


# --- Intervals and single instants ------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [timedelta(milliseconds=1), timedelta(seconds=2, microseconds=1), timedelta(36_525)])
def test_an_interval_is_due_one_interval_after_it_was_registered_and_keeps_its_grid(value: timedelta) -> None:
    length = value // timedelta(microseconds=1)
    trigger = interval(value)
    assert trigger == IntervalTrigger(length)
    start = micros("2024-01-01T00:00:00.000123")
    assert first_due(trigger, start) == start + length
    assert next_due(trigger, start, start + 10 * length, fast_forward=False) == start + length
    assert next_due(trigger, start, start + 10 * length, fast_forward=True) == start + 11 * length
    assert next_due(trigger, start, start + 10 * length - 1, fast_forward=True) == start + 10 * length
    assert next_due(trigger, start, start - 10 * length, fast_forward=True) == start + length


def test_a_schedule_ends_before_the_year_10000() -> None:
    last = micros("9999-12-31T23:59:59.999999")
    every = interval(timedelta(days=1))
    assert following(every, last - 86_400 * SECOND) == last
    assert following(every, last - 86_400 * SECOND + 1) is None
    assert next_due(every, 0, last, fast_forward=True) is None
    for expression in (
        "* * * * *",
        "* * * * * *",
        "0 0 29 2 *",
        "0 0 * * 1#1",
        "0 0 1w 1 *",
        "0 0 31 2 mon",
        "@yearly",
    ):
        for zone in (None, "UTC+12", "UTC-12", "Pacific/Apia", "America/New_York", "EST5EDT,M3.2.0,M11.1.0"):
            trigger = cron(expression, zone)
            assert following(trigger, last) is None
            assert first_due(trigger, last + 10**18) is None
            found = run(trigger, "9999-12-01T00:00:00", 3)
            assert all(at is None or at.startswith("9999") for at in found)
    assert run(cron("0 0 31 12 *", "UTC-12"), "9998-12-31T12:00:00", 2) == ["9999-12-31T12:00:00+00:00", None]
    assert run(cron("0 18 31 12 *", "UTC-12"), "9998-12-31T12:00:00", 2) == ["9999-01-01T06:00:00+00:00", None]


def test_the_beginning_of_the_calendar_raises_nothing() -> None:
    for zone in ("UTC+12", "UTC-12", "America/New_York"):
        for expression in ("0 12 * * *", "*/20 * * * *", "0 0 29 2 *"):
            assert first_due(cron(expression, zone), micros("0001-01-01T00:00:00")) is not None


def test_an_instant_is_due_once_past_or_future() -> None:
    at = datetime(2038, 1, 19, 4, 14, 7, 5, tzinfo=timezone(timedelta(hours=1)))
    trigger = once(at)
    assert trigger == OnceTrigger(2_147_483_647 * SECOND + 5)
    for registered_at in (0, trigger.at, trigger.at + 1):
        assert first_due(trigger, registered_at) == trigger.at
    for fast_forward in (False, True):
        assert next_due(trigger, trigger.at, 0, fast_forward=fast_forward) is None


@pytest.fixture
def new_york() -> Iterator[None]:
    before = os.environ.get("TZ")
    os.environ["TZ"] = "America/New_York"
    time.tzset()
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


@pytest.mark.usefixtures("new_york")
@pytest.mark.parametrize(
    ("local", "fold", "expected"),
    [
        ("2024-01-15T12:00:00", 0, "2024-01-15T17:00:00+00:00"),
        ("2024-07-15T12:00:00", 0, "2024-07-15T16:00:00+00:00"),
        ("2024-11-03T01:30:00", 0, "2024-11-03T05:30:00+00:00"),
        ("2024-11-03T01:30:00", 1, "2024-11-03T06:30:00+00:00"),
    ],
)
def test_a_naive_instant_is_local_time(local: str, fold: int, expected: str) -> None:
    assert iso(once(datetime.fromisoformat(local).replace(fold=fold)).at) == expected


@pytest.mark.usefixtures("new_york")
def test_a_local_time_that_is_too_late_for_utc_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"^execute_at=.*0001-01-03 to 9999-12-29"):
        once(datetime.max)


# --- Words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trigger", "words"),
    [
        (cron("0 12 * * *", "Europe/Dublin"), "cron '0 12 * * *' in Europe/Dublin"),
        (cron("@daily"), "cron '@daily' in UTC"),
        (interval(timedelta(seconds=2)), "every 0:00:02"),
        (interval(timedelta(days=1, milliseconds=1)), "every 1 day, 0:00:00.001000"),
        (once(datetime(2038, 1, 19, 3, 14, 7, tzinfo=UTC)), "once at 2038-01-19T03:14:07+00:00"),
    ],
    ids=repr,
)
def test_a_trigger_is_described_in_a_few_words(trigger: Trigger, words: str) -> None:
    assert describe(trigger) == words


@pytest.mark.parametrize(
    ("expression", "period", "meant"),
    [
        ("20 4 * * * *", "from 04:20:00 to 04:20:59", "probably '20 4 * * *' was meant"),
        ("0 0 1 * * *", "from 00:00:00 to 00:00:59", "probably '0 0 1 * *' was meant"),
        ("30 9 * * mon-fri *", "from 09:30:00 to 09:30:59", "probably '30 9 * * mon-fri' was meant"),
        ("*/10 * * * mon *", "from 00:00:00 to 00:00:59", "probably '*/10 * * * mon' was meant"),
        ("20 4 * * * */1", "from 04:20:00 to 04:20:59", "probably '20 4 * * *' was meant"),
        ("20 4 * * * 0-59", "from 04:20:00 to 04:20:59", "probably '20 4 * * *' was meant"),
        ("*/5 * * * * *", "from 00:00:00 to 00:00:59", "probably '* * * * * */5' was meant"),
        ("10,40 * * * * *", "from 00:10:00 to 00:10:59", "probably '* * * * * 10,40' was meant"),
        ("5 * * * * *", "from 00:05:00 to 00:05:59", "probably '5 * * * *', or '* * * * * 5', was meant"),
        ("0 */5 * * * *", "from 00:00:00 to 00:00:59", "probably '0 */5 * * *', or '*/5 * * * * 0', was meant"),
    ],
)
def test_a_cron_that_fires_on_each_second_is_warned_of(expression: str, period: str, meant: str) -> None:
    warning = seconds_trap(cron(expression))
    assert warning is not None
    assert repr(expression) in warning
    assert period in warning
    assert "60 times" in warning
    assert meant in warning
    assert "\n" not in warning
    cron(meant.split("'")[1])


@pytest.mark.parametrize(
    "trigger",
    [
        cron("20 4 * * *"),
        cron("* * * * *"),
        cron("* * * * * *"),
        cron("* 4 * * * *"),
        cron("*/1 * * * * *"),
        cron("20 4 * * * 0"),
        cron("20 4 * * * */2"),
        cron("20 4 * * * * 2030"),
        cron("@daily"),
        interval(timedelta(seconds=5)),
        once(datetime(2038, 1, 19, tzinfo=UTC)),
    ],
    ids=describe,
)
def test_other_schedules_are_not_warned_of(trigger: Trigger) -> None:
    assert seconds_trap(trigger) is None


# --- Changes of the clocks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("zone", "expression", "start", "expected"),
    [
        # Fixed time in a gap: once, at its end; the next day as usual.
        ("Europe/Dublin", "30 1 * * *", "2024-03-30T12:00", ["03-31T02:00+01", "04-01T01:30+01"]),
        ("America/New_York", "30 2 * * *", "2024-03-09T12:00", ["03-10T03:00-04", "03-11T02:30-04"]),
        ("America/New_York", "0 2 * * *", "2024-03-09T12:00", ["03-10T03:00-04", "03-11T02:00-04"]),
        ("America/New_York", "0 3 * * *", "2024-03-09T12:00", ["03-10T03:00-04", "03-11T03:00-04"]),
        ("America/Havana", "0 0 * * *", "2024-03-09T12:00", ["03-10T01:00-04", "03-11T00:00-04"]),
        ("America/Havana", "0 1 * * *", "2024-03-09T12:00", ["03-10T01:00-04", "03-11T01:00-04"]),
        ("Australia/Lord_Howe", "15 2 * * *", "2024-10-05T12:00", ["10-06T02:30+11", "10-07T02:15+11"]),
        ("Pacific/Apia", "0 12 * * *", "2011-12-29T20:00", ["12-29T12:00-10", "12-31T00:00+14", "12-31T12:00+14"]),
        ("Pacific/Apia", "0 12 30 12 *", "2011-12-29T20:00", ["12-31T00:00+14", "12-30T12:00+14"]),
        ("EST5EDT,M3.2.0,M11.1.0", "30 2 * * *", "2024-03-09T12:00", ["03-10T03:00-04", "03-11T02:30-04"]),
        # A wildcard in a gap: once at its end, together with what matches there; many are one.
        (
            "Australia/Lord_Howe", "*/20 * * * *", "2024-10-05T15:00",
            ["10-06T01:40+10:30", "10-06T02:30+11", "10-06T02:40+11"],
        ),
        ("Australia/Lord_Howe", "*/10 2 * * *", "2024-10-05T15:00", ["10-06T02:30+11", "10-06T02:40+11"]),
        ("Europe/Dublin", "*/20 * * * *", "2024-03-31T00:30", ["03-31T00:40+00", "03-31T02:00+01", "03-31T02:20+01"]),
        ("Europe/Dublin", "30 * * * *", "2024-03-31T00:00", ["03-31T00:30+00", "03-31T02:00+01", "03-31T02:30+01"]),
        ("Europe/Dublin", "0 * * * *", "2024-03-30T23:30", ["03-31T00:00+00", "03-31T02:00+01", "03-31T03:00+01"]),
        (
            "Europe/Dublin", "30 1 * * * *", "2024-03-30T12:00",
            ["03-31T02:00+01", "04-01T01:30+01", "04-01T01:30:01+01"],
        ),
        ("Pacific/Apia", "0 */6 * * *", "2011-12-30T03:00", ["12-29T18:00-10", "12-31T00:00+14", "12-31T06:00+14"]),
        # Fixed time in an overlap: the first pass only, whatever the start.
        ("Europe/Dublin", "30 1 * * *", "2024-10-26T12:00", ["10-27T01:30+01", "10-28T01:30+00"]),
        ("Europe/Dublin", "30 1 * * *", "2024-10-27T00:31", ["10-28T01:30+00"]),
        ("Europe/Dublin", "30 1 * * *", "2024-10-27T01:00", ["10-28T01:30+00"]),
        ("Europe/Dublin", "30 1 * * *", "2024-10-27T01:29", ["10-28T01:30+00"]),
        ("Europe/Dublin", "0 1 * * *", "2024-10-26T12:00", ["10-27T01:00+01", "10-28T01:00+00"]),
        ("Europe/Dublin", "0 2 * * *", "2024-10-26T12:00", ["10-27T02:00+00", "10-28T02:00+00"]),
        ("Europe/Dublin", "30 1 27 10 *", "2024-01-01T00:00", ["10-27T01:30+01", "10-27T01:30+00"]),
        ("Europe/Dublin", "0 12 1 1 *", "2024-07-01T00:00", ["01-01T12:00+00", "01-01T12:00+00"]),
        ("Europe/Dublin", "H(30-31) H(1-2) * * *", "2024-10-27T01:00", ["10-28T01:31+00"]),
        ("America/Havana", "30 0 * * *", "2024-11-02T12:00", ["11-03T00:30-04", "11-04T00:30-05"]),
        ("Australia/Lord_Howe", "45 1 * * *", "2024-04-06T12:00", ["04-07T01:45+11", "04-08T01:45+10:30"]),
        ("EST5EDT,M3.2.0,M11.1.0", "30 1 * * *", "2024-11-02T12:00", ["11-03T01:30-04", "11-04T01:30-05"]),
        # A wildcard, a list or a step in an overlap: both passes.
        ("Europe/Dublin", "30 * * * *", "2024-10-26T23:45", ["10-27T01:30+01", "10-27T01:30+00", "10-27T02:30+00"]),
        ("Europe/Dublin", "0 1,2 * * *", "2024-10-26T12:00", ["10-27T01:00+01", "10-27T01:00+00", "10-27T02:00+00"]),
        ("Europe/Dublin", "0,30 1 * * *", "2024-10-27T00:10", ["10-27T01:30+01", "10-27T01:00+00", "10-27T01:30+00"]),
        (
            "Australia/Lord_Howe", "*/20 * * * *", "2024-04-06T14:30",
            ["04-07T01:40+11", "04-07T01:40+10:30", "04-07T02:00+10:30"],
        ),
        ("America/Havana", "0 * * * *", "2024-11-03T03:30", ["11-03T00:00-04", "11-03T00:00-05", "11-03T01:00-05"]),
        # The last matches of a year field come again when the clock is put back after them.
        (
            "Europe/Dublin", "15,30 1 27 10 * 0 2024", "2024-10-27T00:20",
            ["10-27T01:30+01", "10-27T01:15+00", "10-27T01:30+00", None],
        ),
        ("Europe/Dublin", "30 1 27 10 * 0 2024", "2024-10-27T00:20", ["10-27T01:30+01", None]),
        # No changes at all.
        ("Asia/Kathmandu", "0 12 * * *", "2024-01-01T00:00", ["01-01T12:00+05:45", "01-02T12:00+05:45"]),
        ("UTC+12", "0 12 * * *", "2024-01-01T00:00", ["01-02T12:00+12", "01-03T12:00+12"]),
        ("UTC-12", "0 12 * * *", "2024-01-01T00:00", ["01-01T12:00-12", "01-02T12:00-12"]),
        # Local mean time, with an offset in seconds (-4:56:02).
        ("America/New_York", "0 12 * * *", "1880-01-01T00:00", ["01-01T12:00-04:56:02", "01-02T12:00-04:56:02"]),
    ],
)  # fmt: skip
def test_a_change_of_the_clocks_keeps_the_rule(
    zone: str, expression: str, start: str, expected: list[str | None]
) -> None:
    trigger = cron(expression, zone, "task")
    shown = [None if at is None else short(at) for at in run(trigger, start, len(expected), resolve(zone))]
    assert shown == expected


def test_a_repetition_close_at_hand_counts_even_if_the_next_new_time_is_a_year_away() -> None:
    trigger = cron("15,30 1 27 10 *", "Europe/Dublin")
    assert run(trigger, "2024-10-27T00:40", 3) == [
        "2024-10-27T01:15:00+00:00",
        "2024-10-27T01:30:00+00:00",
        "2025-10-27T01:15:00+00:00",
    ]


def short(at: str) -> str:
    """Shortens 2024-03-31T02:00:00+01:00 to 03-31T02:00+01."""
    local, sign, offset = at[5:14], at[19], at[20:]
    seconds = "" if at[16:19] == ":00" else at[16:19]
    return f"{local}{at[14:16]}{seconds}{sign}{offset.removesuffix(':00')}"


ORACLE_CRONS: dict[str, tuple[set[int], set[int], set[int]]] = {
    # Minutes, hours, days of the week (Sunday is 0).
    "30 1 * * *": ({30}, {1}, set(range(7))),
    "*/20 * * * *": ({0, 20, 40}, set(range(24)), set(range(7))),
    "0 * * * *": ({0}, set(range(24)), set(range(7))),
    "30 * * * *": ({30}, set(range(24)), set(range(7))),
    "15,45 1-3 * * *": ({15, 45}, {1, 2, 3}, set(range(7))),
    "0 0 * * *": ({0}, {0}, set(range(7))),
    "5 2 * * sun": ({5}, {2}, {0}),
    "30 0,2 * * *": ({30}, {0, 2}, set(range(7))),
    "0 12 * * *": ({0}, {12}, set(range(7))),
    "*/10 2 * * *": (set(range(0, 60, 10)), {2}, set(range(7))),
}
# POSIX strings stand beside the zone that they describe; the others are walked as zoneinfo knows them.
ORACLE_ZONES = {
    "Europe/Dublin": "Europe/Dublin",
    "America/New_York": "America/New_York",
    "Australia/Lord_Howe": "Australia/Lord_Howe",
    "America/Havana": "America/Havana",
    "Asia/Kathmandu": "Asia/Kathmandu",
    "Pacific/Apia": "Pacific/Apia",
    "Africa/Casablanca": "Africa/Casablanca",
    "America/Sao_Paulo": "America/Sao_Paulo",
    "UTC+12": "Etc/GMT-12",
    "UTC-12": "Etc/GMT+12",
    "EST5EDT,M3.2.0,M11.1.0": "America/New_York",
}
DAY_MINUTES = 24 * 60


def wall_minute(zone: ZoneInfo, minute: int) -> int:
    """Returns what a clock on the wall shows at an instant; both are minutes since 1970-01-01."""
    shown = datetime.fromtimestamp(minute * 60, zone).replace(tzinfo=UTC)
    return int(shown.timestamp()) // 60


@cache
def changes(zone: ZoneInfo) -> list[int]:
    """Returns the instants at which the clocks are changed from 2010 to 2030, in minutes since the epoch."""
    first, last = (int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) // 60 for year in (2010, 2031))
    found = []
    for probe in range(first, last, DAY_MINUTES):
        if wall_minute(zone, probe + DAY_MINUTES) - wall_minute(zone, probe) != DAY_MINUTES:
            minutes = range(probe + 1, probe + DAY_MINUTES + 1)
            found.append(next(m for m in minutes if wall_minute(zone, m) - wall_minute(zone, m - 1) != 1))
    return found


def walk(walls: list[int], expression: str) -> list[int]:
    """Returns which of the walls, one for each minute, the cron is due at, as indices.

    It goes forwards through what a clock on the wall shows and shares nothing with the code that it checks: minutes
    that are skipped count as shown at the next one, and a fixed time counts when it is shown for the first time.
    """
    minutes, hours, days = ORACLE_CRONS[expression]
    times = {hour * 60 + minute for hour in hours for minute in minutes}
    is_fixed = len(times) == 1
    due, latest = [], walls[0]
    for index, wall in enumerate(walls[1:], start=1):
        passed = range(min(wall, walls[index - 1] + 1), wall + 1)
        # 1970-01-01 was a Thursday.
        if any(shown % DAY_MINUTES in times and (shown // DAY_MINUTES + 4) % 7 in days for shown in passed) and not (
            is_fixed and wall <= latest
        ):
            due.append(index)
        latest = max(latest, wall)
    return due


@pytest.mark.parametrize(("name", "walked"), ORACLE_ZONES.items(), ids=list(ORACLE_ZONES))
def test_two_days_around_every_change_agree_with_a_walk_by_the_minute(name: str, walked: str) -> None:
    zone = ZoneInfo(walked)
    for centre in changes(zone) or [28_000_000]:
        # A clock that is put back shows nothing again that it had not shown within the last day.
        begin, first, last = (centre + days * DAY_MINUTES for days in (-3, -2, 2))
        walls = [wall_minute(zone, minute) for minute in range(begin, last + 1)]
        for expression in ORACLE_CRONS:
            trigger = cron(expression, name)
            expected = [
                at for index in walk(walls, expression) if (at := (begin + index) * 60 * SECOND) > first * 60 * SECOND
            ]
            found, instant = [], following(trigger, first * 60 * SECOND)
            while instant is not None and instant <= last * 60 * SECOND:
                found.append(instant)
                instant = following(trigger, instant)
            assert found == expected, expression
            # Wherever it starts, inside gaps and repetitions too, the next one is the same.
            for minute in range(centre - 125, centre + 125, 17):
                start = minute * 60 * SECOND + 1
                after = following(trigger, start)
                later = [due for due in expected if due > start]
                assert after == later[0] if later else after is None or after > last * 60 * SECOND


def test_the_oracle_walks_over_as_many_changes_as_there_were() -> None:
    counts = {name: len(changes(ZoneInfo(walked))) for name, walked in ORACLE_ZONES.items()}
    assert counts["Europe/Dublin"] == counts["America/New_York"] == counts["Australia/Lord_Howe"] == 42
    assert counts["UTC+12"] == counts["Asia/Kathmandu"] == 0
    # 29 December 2011 was followed by the 31st.
    apia = ZoneInfo("Pacific/Apia")
    assert any(wall_minute(apia, at) - wall_minute(apia, at - 1) == 1 + DAY_MINUTES for at in changes(apia))


# --- Stepping ---------------------------------------------------------------------------------------------------------

instants = st.integers(micros("1960-01-01T00:00:00"), micros("2100-01-01T00:00:00"))
fields = st.sampled_from(["*", "*/7", "0", "13", "1-3", "2,3"])
triggers: st.SearchStrategy[Trigger] = st.one_of(
    st.builds(
        lambda minute, hour, second, zone: cron(f"{minute} {hour} * * *{second}", zone),
        fields,
        fields,
        st.sampled_from(["", " 0", " *", " 5,59"]),
        st.sampled_from([None, *ORACLE_ZONES]),
    ),
    st.sampled_from(
        [cron("0 0 29 2 *", "Europe/Dublin"), cron("30 2 * 3,11 sun", "America/New_York"), cron("@weekly")]
    ),
    st.builds(interval, st.timedeltas(timedelta(milliseconds=1), timedelta(days=36_525))),
)


@given(triggers, instants)
@settings(deadline=None)
def test_occurrences_come_strictly_one_after_the_other(trigger: Trigger, start: int) -> None:
    before = start
    for _ in range(5):
        after = following(trigger, before)
        assert after is not None
        assert after > before
        before = after


@given(triggers, instants, instants)
@settings(deadline=None)
def test_fast_forward_leads_to_the_first_occurrence_in_the_future(trigger: Trigger, due_at: int, now: int) -> None:
    due = first_due(trigger, due_at)
    assert due is not None
    ahead = next_due(trigger, due, now, fast_forward=True)
    assert ahead is not None
    assert ahead > max(due, now)
    # It is an occurrence like any other, and there is none between.
    if isinstance(trigger, IntervalTrigger):
        assert (ahead - due) % trigger.microseconds == 0
        assert ahead - trigger.microseconds <= max(due, now)
    else:
        assert following(trigger, ahead - 1) == ahead
        assert following(trigger, max(due, now)) == ahead


def test_fast_forward_over_a_century_takes_no_longer_than_a_step() -> None:
    every_second, tick = cron("* * * * * *", "Europe/Dublin"), interval(timedelta(milliseconds=1))
    now = micros("2070-01-01T00:00:00.5")
    started = time.perf_counter()
    assert next_due(every_second, 0, now, fast_forward=True) == micros("2070-01-01T00:00:01")
    assert next_due(tick, 0, now, fast_forward=True) == now + 1_000
    assert time.perf_counter() - started < 1


def test_without_fast_forward_no_missed_occurrence_is_left_out() -> None:
    trigger = cron("0 * * * *")
    assert next_due(trigger, 0, micros("2070-01-01T00:00:00"), fast_forward=False) == HOUR * SECOND


def test_instances_that_share_a_cron_and_a_due_time_share_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    module._instant_after.cache_clear()
    due = micros("2024-05-05T05:05:05")
    expected = following(cron("7 * * * *", "Europe/Dublin", "a"), due)

    def never(*_: object) -> int:
        pytest.fail("a cached step asked croniter again")

    monkeypatch.setattr(module, "_wall_after", never)
    for fraction in (0, 1, 999_999):
        trigger = CronTrigger("7 * * * *", "Europe/Dublin", "")
        assert next_due(trigger, due + fraction, due + fraction, fast_forward=True) == expected


def test_a_step_leaves_no_trace_in_what_threads_share() -> None:
    shared = module._compiled("3 3 * * *", "")
    before = dict(vars(shared))
    run(cron("3 3 * * *"), "2024-01-01T00:00:00", 3)
    assert module._compiled("3 3 * * *", "") is shared
    assert vars(shared) == before
