"""Datetimes and stored microseconds, there and back; and which instants a datetime can show in every zone."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyscheduler import clock

DUBLIN = ZoneInfo("Europe/Dublin")


@pytest.mark.parametrize(
    ("moment", "micros"),
    [
        (datetime(1970, 1, 1, tzinfo=UTC), 0),
        (datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=UTC), 1),
        (datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), -1),
        (datetime(1970, 1, 1, 12, tzinfo=timezone(timedelta(hours=12))), 0),
        (datetime(2026, 7, 1, 13, tzinfo=DUBLIN), 1_782_907_200_000_000),
        (datetime(2026, 10, 25, 1, 30, tzinfo=DUBLIN), 1_792_888_200_000_000),
        (datetime(2026, 10, 25, 1, 30, fold=1, tzinfo=DUBLIN), 1_792_891_800_000_000),
        (datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), clock.LAST_MICROS),
    ],
)
def test_an_aware_datetime_is_a_number_of_microseconds(moment: datetime, micros: int) -> None:
    assert clock.to_micros(moment) == micros
    # As text: a time that exists twice never equals one in another zone.
    assert moment.tzinfo is not None
    assert clock.from_micros(micros, moment.tzinfo).isoformat() == moment.isoformat()


@given(st.datetimes(timezones=st.just(UTC)))
def test_every_instant_comes_back_to_the_microsecond(moment: datetime) -> None:
    assert clock.from_micros(clock.to_micros(moment)) == moment


def test_a_naive_datetime_is_refused_since_nobody_knows_where_it_is() -> None:
    with pytest.raises(TypeError):
        clock.to_micros(datetime(2026, 1, 1))


def test_an_instant_is_shown_in_the_zone_that_is_asked_for() -> None:
    shown = clock.from_micros(1_782_907_200_000_000, DUBLIN)

    assert shown.isoformat() == "2026-07-01T13:00:00+01:00"
    assert clock.from_micros(0).tzinfo is UTC


@pytest.mark.parametrize(
    ("duration", "micros"),
    [
        (timedelta(seconds=1), 1_000_000),
        (timedelta(microseconds=1), 1),
        (timedelta(days=-1), -86_400_000_000),
        (timedelta.max, 86_399_999_999_999_999_999),
    ],
)
def test_a_duration_is_exact_in_microseconds(duration: timedelta, micros: int) -> None:
    assert clock.duration_micros(duration) == micros


@pytest.mark.parametrize("micros", [0, -1, 1_782_907_200_000_000, clock.clamp(-(2**63)), clock.clamp(2**63)])
def test_an_instant_that_every_zone_can_show_is_accepted(micros: int) -> None:
    clock.check_instant(micros)
    for hours in (-23, 23):
        zone = timezone(timedelta(hours=hours))
        assert clock.to_micros(clock.from_micros(micros, zone)) == micros


@pytest.mark.parametrize(
    "micros",
    [clock.clamp(-(2**63)) - 1, clock.clamp(2**63) + 1, clock.LAST_MICROS, 2**63, -(2**63), True, 1.0, "1", None],
)
def test_any_other_instant_is_refused(micros: Any) -> None:
    with pytest.raises(ValueError, match="instant"):
        clock.check_instant(micros)


def test_an_instant_out_of_reach_is_shown_as_the_nearest_one() -> None:
    assert clock.clamp(5) == 5
    assert clock.from_micros(clock.clamp(2**63)).year == 9999
    assert clock.from_micros(clock.clamp(-(2**63))).year == 1


def test_the_system_clock_is_aware_and_in_utc() -> None:
    moment = clock.system_clock()

    assert moment.utcoffset() == timedelta(0)
    assert abs(moment.timestamp() - time.time()) < 60


def test_the_reader_of_the_system_clock_reads_the_same_time() -> None:
    before = clock.to_micros(clock.system_clock())
    between = clock.micros_reader(clock.system_clock)()
    after = clock.to_micros(clock.system_clock())

    # Two readings of one clock may be off by the last microsecond, cut off in one and rounded in the other.
    assert before - 1 <= between <= after + 1


def test_another_clock_is_read_at_each_call() -> None:
    moments = iter(
        [datetime(1970, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))), datetime(1970, 1, 1, 0, 0, 5, tzinfo=UTC)]
    )
    read = clock.micros_reader(lambda: next(moments))

    assert [read(), read()] == [0, 5_000_000]
