"""A sample of the oracle's walk, and checks that it looks where it should: `python -m tests.oracle` walks all of it."""

from __future__ import annotations

from datetime import UTC, datetime
from random import Random
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest

from anyscheduler.trigger import next_due
from tests.oracle.comparison import Comparison
from tests.oracle.expression import parse
from tests.oracle.forms import FORMS, ODD_ZONES, ZONES
from tests.oracle.walk import DAY, HOUR, Walk, new_year, transitions

if TYPE_CHECKING:
    from anyscheduler.trigger import Trigger

SEED = 5


def instant(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def changes(zone: str, year: int) -> list[int]:
    return transitions(ZoneInfo(zone), new_year(year), new_year(year + 1))


# Years in which a zone did what it is known for.
@pytest.mark.parametrize(
    ("zone", "year"),
    [
        ("Europe/Dublin", 2024),
        ("Australia/Lord_Howe", 2024),
        ("Africa/Casablanca", 2023),
        ("Pacific/Apia", 2011),
        ("America/Havana", 2024),
        ("Africa/Cairo", 2014),
        ("Asia/Tehran", 2022),
        ("Antarctica/Troll", 2024),
        ("America/Nuuk", 2023),
        ("Asia/Pyongyang", 2018),
        ("Africa/Monrovia", 1972),
        ("Pacific/Kwajalein", 1993),
        ("America/Caracas", 2007),
        ("Asia/Kathmandu", 1985),
    ],
)
def test_an_odd_change_of_the_clock_agrees_with_the_walk(zone: str, year: int) -> None:
    # What comes in Kathmandu with the first of January happened in the old year, by UTC.
    found = changes(zone, year)
    compared = Comparison(zone)
    for transition in found[-2:]:
        compared.around(transition)
    assert found
    assert compared.tally.differences == []


def test_a_sample_of_all_changes_agrees_with_the_walk() -> None:
    chance = Random(SEED)
    compared: list[Comparison] = []
    while len(compared) < 12:
        zone, year = chance.choice(ZONES), chance.randrange(1970, 2038)
        if found := changes(zone, year):
            compared.append(Comparison(zone, SEED))
            compared[-1].around(chance.choice(found))
    assert [difference for each in compared for difference in each.tally.differences] == []
    assert min(each.tally.firings for each in compared) > 1_000


def test_a_year_agrees_with_the_walk() -> None:
    compared = Comparison("America/St_Johns", forms=FORMS[::5])
    compared.through(2028)
    assert compared.tally.differences == []
    assert compared.tally.firings > 5_000


def test_forty_zones_and_every_kind_of_cron_are_walked() -> None:
    assert len(set(ZONES)) == len(ZONES) >= 40
    assert set(ODD_ZONES) < set(ZONES)
    assert len({form.expression.text for form in FORMS}) == len(FORMS) > 90


@pytest.mark.parametrize(
    ("zone", "year", "expected"),
    [
        ("Europe/Dublin", 2024, ["2024-03-31T01:00", "2024-10-27T01:00"]),
        ("Pacific/Apia", 2011, ["2011-04-02T14:00", "2011-09-24T14:00", "2011-12-30T10:00"]),
        ("Africa/Monrovia", 1972, ["1972-01-07T00:44:30"]),
        ("Asia/Tokyo", 2024, []),
    ],
)
def test_a_change_of_the_clock_is_the_first_instant_that_shows_another_time(
    zone: str, year: int, expected: list[str]
) -> None:
    assert changes(zone, year) == [instant(text) for text in expected]


@pytest.mark.parametrize(
    ("zone", "text", "after", "expected"),
    [
        # Ahead from 01:00 to 02:00: what is skipped is due at the end of the gap, once.
        ("Europe/Dublin", "30 1 * * *", "2024-03-31T00:00", ["2024-03-31T01:00"]),
        ("Europe/Dublin", "*/30 1,2 * * *", "2024-03-31T00:00", ["2024-03-31T01:00", "2024-03-31T01:30"]),
        # Back from 02:00 to 01:00: a fixed time the first time, others by elapsed time.
        ("Europe/Dublin", "30 1 * * *", "2024-10-27T00:00", ["2024-10-27T00:30"]),
        ("Europe/Dublin", "30 1 * * *", "2024-10-27T00:30", []),
        ("Europe/Dublin", "30 1-2 * * *", "2024-10-27T00:00", [f"2024-10-27T0{hour}:30" for hour in range(3)]),
        # A day that never was.
        ("Pacific/Apia", "30 1 30 * *", "2011-12-30T00:00", ["2011-12-30T10:00"]),
        # From 44:30 behind to none: the new time begins in the middle of an hour.
        (
            "Africa/Monrovia", "10 * * * *", "1972-01-07T00:00",
            ["1972-01-07T00:44:30", "1972-01-07T01:10", "1972-01-07T02:10"],
        ),
    ],
)  # fmt: skip
def test_the_walk_keeps_the_rule(zone: str, text: str, after: str, expected: list[str]) -> None:
    first = instant(after)
    until = first + 14 * HOUR if zone == "Pacific/Apia" else first + 2 * HOUR + 30 * 60
    walk = Walk(ZoneInfo(zone), first - DAY, until)
    assert walk.due(parse(text), first, until) == [instant(each) for each in expected]


def test_one_due_time_that_is_off_is_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = instant("2024-10-27T01:30") * 1_000_000

    def wrong(trigger: Trigger, due_at: int, now: int, *, fast_forward: bool) -> int | None:
        found = next_due(trigger, due_at, now, fast_forward=fast_forward)
        return next_due(trigger, lost, lost, fast_forward=False) if found == lost else found

    monkeypatch.setattr("tests.oracle.comparison.next_due", wrong)
    compared = Comparison("Europe/Dublin", forms=[form for form in FORMS if form.expression.text == "30 * * * *"])
    compared.around(instant("2024-10-27T01:00"))
    assert any(f"lacks [{lost // 1_000_000}] and has []" in difference for difference in compared.tally.differences)
