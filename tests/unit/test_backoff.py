"""How an outage is reported: one line when it begins and one when it ends, however many activities it hits."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from anyscheduler.backoff import Backoff, Outage

if TYPE_CHECKING:
    import pytest

LOST = OSError("no route")


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Returns the lines of the log, without the seconds."""
    return [re.sub(r"[0-9.]+ s$", "... s", record.message) for record in caplog.records]


def test_delays_double_up_to_five_seconds_and_begin_anew_after_a_success() -> None:
    backoff = Backoff("counting", Outage())

    for _ in range(2):
        delays = [backoff.failed(LOST) for _ in range(10)]
        longest = [min(5.0, 0.1 * 2**number) for number in range(10)]
        assert all(most / 2 <= delay <= most for delay, most in zip(delays, longest, strict=True))
        backoff.succeeded()


def test_delays_differ_so_that_processes_do_not_come_back_together() -> None:
    assert len({Backoff("counting", Outage()).failed(LOST) for _ in range(20)}) > 10


def test_an_outage_is_one_pair_of_lines_for_all_activities_together(caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage()
    claiming, writing = Backoff("claiming", outage), Backoff("writing", outage)

    for backoff in (claiming, writing, claiming, writing):
        backoff.failed(LOST)
    assert told(caplog) == ["the store failed while claiming, will retry until it is back: no route"]
    claiming.succeeded()
    claiming.succeeded()
    # It is not back as long as anybody is still waiting for it.
    assert len(told(caplog)) == 1
    claiming.failed(LOST)
    writing.succeeded()
    assert len(told(caplog)) == 1
    claiming.succeeded()
    assert told(caplog)[1:] == ["the store is back after ... s"]


def test_the_next_outage_is_told_again(caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage()
    claiming, writing = Backoff("claiming", outage), Backoff("writing", outage)

    for backoff in (claiming, writing):
        backoff.failed(LOST)
        backoff.succeeded()

    assert told(caplog) == [
        "the store failed while claiming, will retry until it is back: no route",
        "the store is back after ... s",
        "the store failed while writing, will retry until it is back: no route",
        "the store is back after ... s",
    ]


def test_what_never_failed_is_not_worth_a_line(caplog: pytest.LogCaptureFixture) -> None:
    Backoff("claiming", Outage()).succeeded()

    assert told(caplog) == []


def test_an_outage_that_lasts_is_mentioned_every_five_minutes_with_its_latest_cause(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_000.0
    monkeypatch.setattr("anyscheduler.backoff.time.monotonic", lambda: now)
    backoff = Backoff("claiming", Outage())

    backoff.failed(LOST)
    for _ in range(130):
        now += 5
        backoff.failed(OSError("the password is wrong"))
    backoff.succeeded()

    assert [record.message for record in caplog.records] == [
        "the store failed while claiming, will retry until it is back: no route",
        "the store has failed for 300 s now, the last time while claiming: the password is wrong",
        "the store has failed for 600 s now, the last time while claiming: the password is wrong",
        "the store is back after 650.0 s",
    ]
