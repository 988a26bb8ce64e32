"""Which names are time zones, which are refused before anything is opened, and what offset a zone has."""

from __future__ import annotations

import time
import zoneinfo
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from dateutil import tz

import anyscheduler.zones
from anyscheduler.errors import ConfigurationError
from anyscheduler.zones import offset_at, resolve

HOUR = 3_600
WINTER = int(datetime(2024, 1, 15, tzinfo=UTC).timestamp())
SUMMER = int(datetime(2024, 7, 15, tzinfo=UTC).timestamp())


@pytest.mark.parametrize(
    ("name", "winter", "summer"),
    [
        ("UTC", 0, 0),
        ("GMT", 0, 0),
        ("Europe/Dublin", 0, 1),
        ("America/New_York", -5, -4),
        ("America/New York", -5, -4),
        ("America/Argentina/Buenos_Aires", -3, -3),
        ("Australia/Lord_Howe", 11, 10.5),
        ("Asia/Kathmandu", 5.75, 5.75),
        ("Pacific/Apia", 13, 13),
        ("Etc/GMT+12", -12, -12),
        ("EST5EDT", -5, -4),
        ("UTC+12", 12, 12),
        ("UTC-12", -12, -12),
        ("UTC+3", 3, 3),
        ("GMT-3", -3, -3),
        ("UTC+5:45", 5.75, 5.75),
        ("UTC+0545", 5.75, 5.75),
        ("EST5", -5, -5),
        ("JST-9", 9, 9),
        ("EST5EDT,M3.2.0,M11.1.0", -5, -4),
        ("CET-1CEST,M3.5.0,M10.5.0/3", 1, 2),
        ("AEST-10AEDT,M10.1.0,M4.1.0/3", 11, 10),
    ],
)
def test_a_name_has_the_offset_that_gettz_gives_it(name: str, winter: float, summer: float) -> None:
    zone, reference = resolve(name), tz.gettz(name)
    assert reference is not None
    for second, hours in ((WINTER, winter), (SUMMER, summer)):
        assert offset_at(zone, second) == hours * HOUR == offset_at(reference, second)


def test_every_zone_of_the_zone_data_is_known() -> None:
    names = zoneinfo.available_timezones()
    assert len(names) > 400
    for name in names:
        assert resolve(name) is ZoneInfo(name), name


def test_a_zone_is_looked_up_once() -> None:
    assert resolve("UTC+7") is resolve("UTC+7")


def test_an_abbreviation_of_the_system_zone_is_the_system_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "tzname", ("XYZT", "XYZST"))
    anyscheduler.zones._resolve.cache_clear()
    assert isinstance(resolve("XYZST"), tz.tzlocal)
    anyscheduler.zones._resolve.cache_clear()
    monkeypatch.undo()
    with pytest.raises(ConfigurationError):
        resolve("XYZST")


def test_utc_is_known_on_a_system_without_zone_data(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(key: str) -> ZoneInfo:
        raise zoneinfo.ZoneInfoNotFoundError(key)

    monkeypatch.setattr(anyscheduler.zones, "ZoneInfo", lost)
    anyscheduler.zones._resolve.cache_clear()
    try:
        assert resolve("UTC") is UTC
        assert resolve("GMT") is UTC
        with pytest.raises(ConfigurationError):
            resolve("Europe/Dublin")
    finally:
        anyscheduler.zones._resolve.cache_clear()


@pytest.mark.parametrize(
    ("name", "year", "month", "day", "clock"),
    [
        ("Europe/Dublin", 2024, 3, 31, "01:00"),
        ("Europe/Dublin", 2024, 10, 27, "01:00"),
        ("CET-1CEST,M3.5.0,M10.5.0/3", 2024, 3, 31, "01:00"),
        ("CET-1CEST,M3.5.0,M10.5.0/3", 2024, 10, 27, "01:00"),
        ("EST5EDT,M3.2.0,M11.1.0", 2024, 3, 10, "07:00"),
        ("EST5EDT,M3.2.0,M11.1.0", 2024, 11, 3, "06:00"),
        ("Australia/Lord_Howe", 2024, 4, 6, "15:00"),
        ("Pacific/Apia", 2011, 12, 30, "10:00"),
    ],
)
def test_the_offset_changes_at_the_very_second(name: str, year: int, month: int, day: int, clock: str) -> None:
    hour, minute = map(int, clock.split(":"))
    second = int(datetime(year, month, day, hour, minute, tzinfo=UTC).timestamp())
    zone = resolve(name)
    around = [offset_at(zone, second + step) for step in range(-2, 3)]
    assert [first != then for first, then in pairwise(around)] == [False, True, False, False]


@pytest.mark.parametrize("name", ["Europe/Dublin", "UTC+12", "UTC-12", "EST5EDT,M3.2.0,M11.1.0", "UTC"])
@pytest.mark.parametrize("second", [-(10**18), -62_135_596_800, 253_402_300_799, 10**18])
def test_the_ends_of_the_calendar_have_an_offset(name: str, second: int) -> None:
    assert abs(offset_at(resolve(name), second)) < 86_400


def test_a_posix_string_agrees_with_the_zone_that_it_describes() -> None:
    rule, zone = resolve("EST5EDT,M3.2.0,M11.1.0"), ZoneInfo("America/New_York")
    start = datetime(2010, 1, 1, tzinfo=UTC)
    for hours in range(0, 24 * 365 * 20, 7):
        second = int((start + timedelta(hours=hours)).timestamp())
        assert offset_at(rule, second) == offset_at(zone, second)
