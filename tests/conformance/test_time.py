"""Whose clock decides: that of the store, where it has one and no instant is given."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from anyscheduler.clock import LAST_MICROS
from anyscheduler.repository import ClaimRequest
from tests.conformance.stores import LEASE, free_row, insert, requests

if TYPE_CHECKING:
    from anyscheduler.repository import Repository

pytestmark = pytest.mark.anyio

NOW = 1_000_000
SECOND = 1_000_000
ONE_MINUTE = 60 * SECOND


async def shown_by(repository: Repository) -> int:
    shown = await repository.time()
    assert shown is not None
    return shown


async def test_a_claim_says_at_which_instant_it_was_taken(repository: Repository) -> None:
    await insert(repository, free_row("a", NOW))

    for now, keys in ((NOW - 1, []), (NOW, ["a"]), (NOW + 1, []), (LAST_MICROS, ["a"]), (-5, [])):
        claimed = await repository.claim(requests("a", "unknown"), 5, now, f"t{now}")
        assert (claimed.now, [row.key for row in claimed.rows]) == (now, keys)


async def test_a_store_without_a_clock_of_its_own_tells_no_time(clockless: Repository) -> None:
    assert await clockless.time() is None


async def test_a_server_shows_the_time_of_day_in_microseconds_since_the_epoch(clocked: Repository) -> None:
    # A server under test is on this machine, or on one whose clock is set.
    assert abs(await shown_by(clocked) - time.time_ns() // 1000) < ONE_MINUTE


async def test_without_an_instant_the_clock_of_the_server_decides_what_is_due(clocked: Repository) -> None:
    before = await shown_by(clocked)
    just_due = free_row("a:1", before)
    await insert(clocked, just_due, free_row("a:2", before + 20 * ONE_MINUTE), free_row("other", 0))

    claimed = await clocked.claim(requests("a"), 10, None, "t1")

    assert before <= claimed.now <= await shown_by(clocked)
    assert claimed.rows == [just_due._replace(claimable_at=claimed.now + LEASE, token="t1")]
    assert claimed.next_claimable == claimed.now + LEASE
    assert await clocked.read(["a:1"]) == {"a:1": claimed.rows[0]}


async def test_what_is_due_in_twenty_seconds_by_the_clock_of_the_server_is_left(clocked: Repository) -> None:
    later = await shown_by(clocked) + 20 * SECOND
    await insert(clocked, free_row("a", later))

    claimed = await clocked.claim(requests("a"), 10, None, "t1")

    # Generously: a machine on which this took twenty seconds tells nothing.
    assert claimed.now < later
    assert (claimed.rows, claimed.next_claimable) == ([], later)


async def test_without_an_instant_nothing_to_claim_still_tells_the_time(clocked: Repository) -> None:
    before = await shown_by(clocked)

    claimed = await clocked.claim(requests("unknown"), 10, None, "t1")
    of_nothing = await clocked.claim([], 10, None, "t2")

    assert before <= claimed.now <= of_nothing.now <= await shown_by(clocked)
    assert (claimed.rows, claimed.next_claimable) == (of_nothing.rows, of_nothing.next_claimable) == ([], None)


async def test_a_lease_from_the_clock_of_the_server_is_respected_by_it(clocked: Repository) -> None:
    await insert(clocked, free_row("a", await shown_by(clocked)))
    one_hour = [ClaimRequest("a", 60 * ONE_MINUTE)]

    first = await clocked.claim(one_hour, 10, None, "t1")
    second = await clocked.claim(one_hour, 10, None, "t2")

    assert [row.token for row in first.rows] == ["t1"]
    assert (second.rows, second.next_claimable) == ([], first.now + 60 * ONE_MINUTE)


async def test_an_instant_that_is_given_wins_over_the_clock_of_the_server(clocked: Repository) -> None:
    later = await shown_by(clocked) + 20 * ONE_MINUTE
    await insert(clocked, free_row("past", NOW), free_row("future", later))

    assert (await clocked.claim(requests("past"), 5, NOW - 1, "t1")).rows == []
    [row] = (await clocked.claim(requests("future"), 5, later, "t2")).rows
    assert row.claimable_at == later + LEASE


async def test_a_clock_that_is_later_than_allowed_ends_no_lease_and_tells_the_time_all_the_same(
    clocked: Repository,
) -> None:
    before = await shown_by(clocked)
    allowed = before - ONE_MINUTE
    await insert(clocked, free_row("a:1", allowed - 1), free_row("a:2", allowed + 1))

    claimed = await clocked.claim(requests("a"), 10, None, "t1", allowed)

    assert [row.key for row in claimed.rows] == ["a:1"]
    assert claimed.rows[0].claimable_at == allowed + LEASE
    assert before <= claimed.now <= await shown_by(clocked)
    assert claimed.next_claimable == allowed + 1


async def test_a_clock_that_is_earlier_than_allowed_decides_by_itself(clocked: Repository) -> None:
    before = await shown_by(clocked)
    await insert(clocked, free_row("a", before + 20 * ONE_MINUTE))

    assert (await clocked.claim(requests("a"), 10, None, "t1", before + 60 * ONE_MINUTE)).rows == []
