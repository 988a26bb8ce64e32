"""Schedules that can never work: crons, intervals, single instants, and what may not be given together."""

from __future__ import annotations

import math
import time
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest

from anyscheduler import ConfigurationError, Scheduler, ScheduleWarning
from anyscheduler.trigger import Trigger, cron, first_due, next_due
from tests.bad_inputs.refusals import (
    as_shown,
    body,
    label,
    refused,
    refused_for_an_instance,
    refused_wherever_it_is_given,
)

SECOND = timedelta(seconds=1)
AT = datetime(2026, 7, 1, 12, tzinfo=UTC)

# --- crons ------------------------------------------------------------------------------------------------------------

BAD_CRONS: list[tuple[Any, str]] = [
    ("", "not 0"),
    (" ", "not 0"),
    ("*", "not 1"),
    ("* * * *", "not 4"),
    ("* * * * * * * *", "not 8"),
    ("61 * * * *", "minute field '61'"),
    ("*/0 * * * *", "minute field '*/0'"),
    ("MON- * * * *", "minute field 'MON-'"),
    ("-1 * * * *", "minute field '-1'"),
    ("1,,2 * * * *", "minute field '1,,2'"),
    ("0-99999999999 * * * *", "minute field"),
    ("* 24 * * *", "hour field '24'"),
    ("* * 32 * *", "day of month field '32'"),
    ("* * 0 * *", "day of month field '0'"),
    ("* * * 13 *", "month field '13'"),
    ("* * * foo *", "month field 'foo'"),
    ("* * * * 8", "day of week field '8'"),
    ("* * * * mon#6", "day of week field 'mon#6'"),
    ("* * * * * 60", "second field '60'"),
    ("* * * * * * 1969", "year field '1969'"),
    ("* * * * * * 2100", "year field '2100'"),
    ("? * * * *", "minute field '?'"),
    ("@nonsense", "@hourly, @daily"),
    ("@reboot", "@hourly, @daily"),
    ("@", "@hourly, @daily"),
    ("@daily * * * *", "minute field '@daily'"),
    ("0 0 31 2 *", "never fires"),
    ("0 0 30 2 *", "never fires"),
    ("0 0 31 4,6,9,11 *", "never fires"),
    ("0 0 29 2 * 0 2023", "never fires"),
    ("0 0 1 * mon#5", "never fires"),
    ("R * * * *", "minute field 'R' is random"),
    ("* r(1-3) * * *", "hour field 'r(1-3)' is random"),
    ("* * R/2 * *", "day of month field 'R/2' is random"),
    ("* * * * * R", "second field 'R' is random"),
    ("H(0-99) * * * *", "minute field 'H(0-99)'"),
    ("H/0 * * * *", "minute field 'H/0'"),
    ("1,H * * * *", "minute field '1,H'"),
    ("0 0 * * *" + " " * 250, "256 characters"),
    ("1," * 130 + "1 * * * *", "256 characters"),
    ("\u0661 * * * *", "printable ASCII"),
    ("\uff11 * * * *", "printable ASCII"),
    ("0 0\0* * *", "printable ASCII"),
    ("0 0 * * *\n", "printable ASCII"),
    ("0 0\r* * *", "printable ASCII"),
    ("0\u00a00 * * *", "printable ASCII"),
    ("\ud800 0 * * *", "printable ASCII"),
    (5, "as a string"),
    (b"* * * * *", "as a string"),
    (timedelta(seconds=5), "as a string"),
    # As many again.
    ("0 0 * * 5L", "day of week field '5L'"),
    ("0 0 L-3 * *", "day of month field 'L-3'"),
    ("0 0 LW * *", "day of month field 'LW'"),
    ("0 0 W * *", "day of month field 'W'"),
    ("0 0 32W * *", "day of month field '32W'"),
    ("0 0 15W,16W * *", "day of month field '15W,16W'"),
    ("0 0 * * 1#0", "day of week field '1#0'"),
    ("0 0 * * #1", "day of week field '#1'"),
    ("0 0 * * mon#1-2", "day of week field 'mon#1-2'"),
    ("0 0 * * lfri", "day of week field 'lfri'"),
    ("0 0 * l *", "month field 'l'"),
    ("l * * * *", "minute field 'l'"),
    ("jan * * * *", "minute field 'jan'"),
    ("* * mon * *", "day of month field 'mon'"),
    ("5/ * * * *", "minute field '5/'"),
    ("/5 * * * *", "minute field '/5'"),
    ("*/5/5 * * * *", "minute field '*/5/5'"),
    ("1-5-9 * * * *", "minute field '1-5-9'"),
    ("+5 * * * *", "minute field '+5'"),
    ("1e1 * * * *", "minute field '1e1'"),
    ("0x5 * * * *", "minute field '0x5'"),
    ("5. * * * *", "minute field '5.'"),
    ("1_0 * * * *", "minute field '1_0'"),
    ("% * * * *", "minute field '%'"),
    ("* * , * *", "day of month field ','"),
    ("* * * * * ; ls", "second field ';'"),
    ("* * * * * * 2024-", "year field '2024-'"),
    ("* * * * * * -2024", "year field '-2024'"),
    ("* * * * * * 99999", "year field '99999'"),
    ("* * * * * * 2024/0", "year field '2024/0'"),
    ("0 0 29 2 * 0 2100", "year field '2100'"),
    ("0 0 29 2 mon#5 0 2023", "never fires"),
    ("H(5-3) * * * *", "minute field 'H(5-3)'"),
    ("H(0-59 * * * *", "minute field 'H(0-59'"),
    ("H(-1) * * * *", "minute field 'H(-1)'"),
    ("HH * * * *", "minute field 'HH'"),
    ("* H* * * *", "hour field 'H*'"),
    ("@hourly @daily", "not 2"),
    ("@every 5s", "not 2"),
    ("@@daily", "@hourly, @daily"),
    ("\u202e* * * * *", "printable ASCII"),
    ("* * * * *\U0001f600", "printable ASCII"),
    ("* * * * *\x0b", "printable ASCII"),
    ("*\x0c* * * *", "printable ASCII"),
    ("* * * * *\x1b[31m", "printable ASCII"),
    (math.inf, "as a string"),
    (True, "as a string"),
    (["*"] * 5, "as a string"),
    (bytearray(b"@daily"), "as a string"),
    (10**5_000, "as a string"),
]


@pytest.mark.parametrize(("expression", "reason"), BAD_CRONS, ids=label)
def test_a_bad_cron_is_refused_with_the_field_and_the_reason(expression: Any, reason: str) -> None:
    refused_wherever_it_is_given({"schedule": expression}, "schedule=", reason)


ODD_CRONS: list[tuple[str, list[str]]] = [
    ("0 0 29 2 *", ["1972-02-29T00:00", "1976-02-29T00:00"]),
    ("0 0 30 feb mon", ["1970-02-02T00:00", "1970-02-09T00:00"]),
    ("0 0 31W 2 *", ["1970-02-27T00:00", "1971-02-26T00:00"]),
    ("0 0 15W * *", ["1970-01-15T00:00", "1970-02-16T00:00"]),
    ("0 0 * * L5", ["1970-01-30T00:00", "1970-02-27T00:00"]),
    ("0 0 * * 7", ["1970-01-04T00:00", "1970-01-11T00:00"]),
    ("0 0 * * 5-1", ["1970-01-02T00:00", "1970-01-03T00:00"]),
    ("0 0 ? * ?", ["1970-01-02T00:00", "1970-01-03T00:00"]),
    ("*/61 * * * *", ["1970-01-01T01:00", "1970-01-01T02:00"]),
    ("59-0 * * * *", ["1970-01-01T00:59", "1970-01-01T01:00"]),
    ("00000000 0 * * *", ["1970-01-02T00:00", "1970-01-03T00:00"]),
    ("0 0 1 1 * 0 02024", ["2024-01-01T00:00"]),
    ("0 0 1 1 * 0 1970-1971", ["1971-01-01T00:00"]),
    ("@yearly ", ["1971-01-01T00:00", "1972-01-01T00:00"]),
]


@pytest.mark.parametrize(("expression", "expected"), ODD_CRONS, ids=label)
def test_an_odd_cron_that_croniter_knows_is_accepted_and_means_what_it_does_there(
    expression: str, expected: list[str]
) -> None:
    assert occurrences(cron(expression), 2) == [f"{at}:00+00:00" for at in expected]


def occurrences(trigger: Trigger, count: int) -> list[str]:
    """Returns the first occurrences since 1970, as many as there are up to `count`."""
    found: list[str] = []
    due = first_due(trigger, 0)
    while due is not None and len(found) < count:
        found.append(datetime.fromtimestamp(due / 1e6, UTC).isoformat())
        due = next_due(trigger, due, due, fast_forward=False)
    return found


HOSTILE_CRONS = [
    "*/999999999999999999 * * * *",
    "0-59/1," * 30 + "1 * * * *",
    "* * * * * * " + "1970-2099," * 20 + "2000",
    "0 0 1w * 1#5",
    "0 0 31 2 1#5",
    "0 0 30 2 * * *",
    "9" * 240 + " * * * *",
    "*/" + "9" * 240 + " * * * *",
    "/" * 240 + " * * * *",
    "-" * 240 + " * * * *",
    "1-" * 120 + " * * * *",
    "#" * 240 + " * * * *",
    "* * * * " + "l" * 200,
    "H(0-" + "9" * 200 + ") * * * *",
    "H(0-59)/" + "9" * 200 + " * * * *",
    "* * * * " + "1#" * 100,
    "* * " + "15w," * 50 + "1w * 1#5",
    "0 0 31 2 sun 0 2099",
    "0 0 29 2 1#5 0 2030-2043",
]


@pytest.mark.parametrize("expression", HOSTILE_CRONS, ids=label)
def test_no_cron_takes_long_to_check_or_to_step(expression: str) -> None:
    started = time.perf_counter()
    try:
        trigger = cron(expression)
    except ConfigurationError:
        pass
    else:
        occurrences(trigger, 3)
    assert time.perf_counter() - started < 1


def test_a_sixth_field_that_was_probably_not_meant_as_seconds_is_warned_of() -> None:
    with pytest.warns(ScheduleWarning, match="60 times in each minute"):
        Scheduler().task(schedule="20 4 * * * *")(body)


# --- intervals --------------------------------------------------------------------------------------------------------

BAD_INTERVALS: list[tuple[Any, str]] = [
    (timedelta(0), "a timedelta from 0:00:00.001000 to 36525 days"),
    (timedelta(seconds=-1), "a timedelta from"),
    (timedelta(microseconds=999), "a timedelta from"),
    (timedelta(days=36_525, microseconds=1), "a timedelta from"),
    (timedelta.max, "a timedelta from"),
    (timedelta.min, "a timedelta from"),
    (5, "timedelta(seconds=5)"),
    (5.5, "timedelta(seconds=5.5)"),
    ("5s", "timedelta(seconds=5)"),
    # As many again.
    (True, "timedelta(seconds=5)"),
    (math.inf, "timedelta(seconds=5)"),
    (math.nan, "timedelta(seconds=5)"),
    (10**400, "timedelta(seconds=5)"),
    (-(10**5_000), "timedelta(seconds=5)"),
    (b"5", "timedelta(seconds=5)"),
    ((5,), "timedelta(seconds=5)"),
    (timedelta, "timedelta(seconds=5)"),
    (AT, "timedelta(seconds=5)"),
    ("* * * * *", "timedelta(seconds=5)"),
    ("\0\U0001f600", "timedelta(seconds=5)"),
]


@pytest.mark.parametrize(("value", "to_write"), BAD_INTERVALS, ids=label)
def test_a_bad_interval_is_refused_with_the_timedelta_to_write(value: Any, to_write: str) -> None:
    refused_wherever_it_is_given({"interval": value}, "interval=", to_write)


# --- single instants --------------------------------------------------------------------------------------------------

BAD_INSTANTS: list[tuple[Any, str]] = [
    (date(2038, 1, 19), "a datetime.datetime"),
    ("2038-01-19T03:14:07", "a datetime.datetime"),
    (datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))), "0001-01-03 to 9999-12-29"),
    (datetime.min.replace(tzinfo=timezone(timedelta(hours=1))), "0001-01-03 to 9999-12-29"),
    # As many again.
    (datetime.max, "0001-01-03 to 9999-12-29"),
    (datetime.min, "0001-01-03 to 9999-12-29"),
    (datetime.max.replace(tzinfo=UTC), "0001-01-03 to 9999-12-29"),
    (datetime.min.replace(tzinfo=UTC), "0001-01-03 to 9999-12-29"),
    (datetime(9999, 12, 30, tzinfo=UTC), "0001-01-03 to 9999-12-29"),
    (datetime(1, 1, 2, tzinfo=UTC), "0001-01-03 to 9999-12-29"),
    (AT.time(), "a datetime.datetime"),
    (AT.timestamp(), "a datetime.datetime"),
    (2**31, "a datetime.datetime"),
    (math.inf, "a datetime.datetime"),
    (True, "a datetime.datetime"),
    (SECOND, "a datetime.datetime"),
    ([AT], "a datetime.datetime"),
    ("", "a datetime.datetime"),
]


@pytest.mark.parametrize(("value", "reason"), BAD_INSTANTS, ids=label)
def test_a_bad_instant_is_refused_when_it_is_scheduled(value: Any, reason: str) -> None:
    refused_for_an_instance({"execute_at": value}, "execute_at=", as_shown(value), reason)


def test_an_instant_cannot_be_given_to_a_definition() -> None:
    app = Scheduler()
    for define in (app.task, app.dynamic_task):
        with refused("execute_at=", "given to schedule_task"):
            define(execute_at=AT)(body)
    assert app._tasks == {}


# --- what goes together -----------------------------------------------------------------------------------------------

BAD_COMBINATIONS: list[tuple[dict[str, Any], str]] = [
    ({"schedule": "* * * * *", "interval": SECOND}, "schedule= and interval= exclude each other"),
    ({"interval": SECOND, "timezone": "UTC"}, "timezone='UTC' is refused: given together with schedule= only"),
    ({"timezone": "UTC"}, "timezone='UTC'"),
    ({"timezone": ""}, "timezone=''"),
    ({"schedule": "", "interval": SECOND}, "exclude each other"),
    ({"schedule": 0, "interval": 0}, "exclude each other"),
]


@pytest.mark.parametrize(("given", "reason"), BAD_COMBINATIONS, ids=label)
def test_options_that_exclude_each_other_are_refused_together(given: dict[str, Any], reason: str) -> None:
    refused_wherever_it_is_given(given, reason)


@pytest.mark.parametrize(
    "given", [{}, {"schedule": None}, {"interval": None, "schedule": None, "timezone": None}], ids=label
)
def test_a_schedule_has_to_be_given(given: dict[str, Any]) -> None:
    app = Scheduler()
    with refused("needs one of schedule=, interval="):
        app.task(**given)(body)
    assert app._tasks == {}
    refused_for_an_instance(given, "needs one of schedule=, interval=, execute_at=")


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"interval": SECOND, "execute_at": AT}, "interval= and execute_at= exclude each other"),
        ({"schedule": "* * * * *", "interval": SECOND, "execute_at": AT}, "exclude each other"),
        ({"execute_at": AT, "timezone": "UTC"}, "timezone='UTC'"),
    ],
    ids=label,
)
def test_an_instance_has_one_schedule(given: dict[str, Any], reason: str) -> None:
    refused_for_an_instance(given, reason)


@pytest.mark.anyio
async def test_an_instance_whose_schedule_is_over_is_refused() -> None:
    app = Scheduler()
    task = app.dynamic_task()(body)
    async with app.create() as app_context:
        with refused("task 'body:x' is never due again: cron '0 0 1 1 * 0 1971' in UTC"):
            await app_context.schedule_task(task, "x", schedule="0 0 1 1 * 0 1971")
        assert (await app_context.list_tasks(task)).tasks == []
