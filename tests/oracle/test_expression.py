"""The oracle's own parser, against dates from a calendar: an oracle that misreads a cron would prove nothing."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from tests.oracle.expression import parse

CHECK_VALUE = 0xCBF43926


@pytest.mark.parametrize(
    ("text", "times"),
    [
        ("30 1 * * *", [90]),
        ("*/20 1 * * *", [60, 80, 100]),
        ("50/5 0 * * *", [50, 55]),
        ("1-9/4,7 0 * * *", [1, 5, 7, 9]),
        ("0 22-2 * * *", [0, 60, 120, 22 * 60, 23 * 60]),
        ("0 */24 * * *", [0]),
        ("@daily", [0]),
        ("@hourly", [hour * 60 for hour in range(24)]),
        # The CRC-32 of these digits is the check value of the algorithm; the place of the field moves its bits.
        ("H 0 * * *", [CHECK_VALUE % 60]),
        ("0 H * * *", [(CHECK_VALUE >> 1) % 24 * 60]),
        ("H(10-19) 0 * * *", [10 + CHECK_VALUE % 10]),
        ("H/20 0 * * *", [CHECK_VALUE % 20 + minutes for minutes in (0, 20, 40)]),
    ],
)
def test_minutes_and_hours_are_times_of_day(text: str, times: list[int]) -> None:
    assert [time / 60 for time in parse(text, "123456789").times] == times


def test_the_sixth_field_is_the_seconds_and_stands_last() -> None:
    assert parse("1 0 * * * */20").times == (60, 80, 100)
    assert len(parse("20 4 * * * *").times) == 60


@pytest.mark.parametrize(
    ("text", "days"),
    [
        # September 2024 began on a Sunday, and ended on a Monday.
        ("0 0 1 * *", [1]),
        ("0 0 L * *", [30]),
        ("0 0 28-L * *", [28, 29, 30]),
        ("0 0 */10 * *", [1, 11, 21]),
        ("0 0 28-2 * *", [1, 2, 28, 29, 30]),
        ("0 0 1W * *", [2]),
        ("0 0 W14 * *", [13]),
        ("0 0 * * sun", [1, 8, 15, 22, 29]),
        ("0 0 * * 7", [1, 8, 15, 22, 29]),
        ("0 0 * * 6-7", [1, 7, 8, 14, 15, 21, 22, 28, 29]),
        ("0 0 * * sat-SUN", [1, 7, 8, 14, 15, 21, 22, 28, 29]),
        ("0 0 * * sun#1,1#5", [1, 30]),
        ("0 0 * * L5,fri#2", [13, 27]),
        ("0 0 * * L0", [29]),
        # Either will do when both are restricted.
        ("0 0 13 * sun", [1, 8, 13, 15, 22, 29]),
        ("0 0 13 * ?", [13]),
        ("0 0 ? * sun", [1, 8, 15, 22, 29]),
        ("0 0 1 Mar-OCT/6 *", [1]),
        ("0 0 1 oct-mar *", []),
        ("0 0 1 * * 0 2020/4", [1]),
        ("0 0 1 * * 0 2025", []),
    ],
)
def test_the_other_fields_are_days(text: str, days: list[int]) -> None:
    expression = parse(text)
    september = [date(2024, 9, 1) + timedelta(days=index) for index in range(30)]
    assert [day.day for day in september if expression.is_on(day)] == days


@pytest.mark.parametrize(
    ("text", "is_fixed"),
    [
        ("30 1 * * *", True),
        ("30 1 * * sun * 2024", True),
        ("H H(0-3) * * *", True),
        ("30 */24 * * *", True),
        ("30 1,2 * * *", False),
        ("30 1-2 * * *", False),
        ("*/30 1 * * *", False),
        ("30 * * * *", False),
    ],
)
def test_a_time_is_fixed_when_minute_and_hour_are_single_values(text: str, is_fixed: bool) -> None:
    assert parse(text).is_fixed is is_fixed
