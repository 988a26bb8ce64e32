"""The contract of `repository.py`, sentence by sentence, for every store on every event loop."""

# tokens are fences, and no passwords

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import pytest

from anyscheduler import lease
from anyscheduler.clock import LAST_MICROS
from anyscheduler.lease import Change, Row
from anyscheduler.repository import Claimed, ClaimRequest
from anyscheduler.task import static_key
from tests.conformance.stores import LEASE, Opener, free_row, insert, requests, stored_rows

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from anyscheduler.repository import Repository

pytestmark = pytest.mark.anyio

NOW = 1_000_000

# Under every one of these something goes wrong that treats a key as a pattern, as SQL, as a path, as UTF-16, or as what
# a reader of some language would call the same word.
ODD_NAMES = [
    "a",
    "A",
    "a ",
    " a",
    "a:b",
    "a:b:c",
    "a/b",
    "a\\b",
    "a%b",
    "a_b",
    "a*",
    "a?b",
    "[a]",
    "{a}",
    "{}",
    "'",
    '"',
    "`",
    "'; DROP TABLE anyscheduler; --",
    "$1",
    "?",
    ":name",
    "\u00e9",  # one word in its composed form,
    "e\u0301",  # and in its decomposed one
    "\u00df",
    "SS",
    "ss",
    "\u0130",
    "i\u0307",
    "\u05e9\u05dc\u05d5\u05dd",
    "\u202eabc",
    "\U0001f600",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\uffee",  # sorts before the emoji by code point, and behind them by UTF-16 unit
    "\ufeffa",
    "null",
    "1",
    "01",
    "1.0",
    "x" * 255,
]


async def claim(repository: Repository, *tasks: str, limit: int = 100, now: int = NOW, token: str = "t1") -> Claimed:
    return await repository.claim(requests(*tasks), limit, now, token)


def keys_of(claimed: Claimed) -> list[str]:
    return [row.key for row in claimed.rows]


# --- claim: who is eligible -------------------------------------------------------------------------------------------


async def test_a_claim_returns_the_due_row_under_its_lease_and_stores_it_so(repository: Repository) -> None:
    row = Row("a", "a", NOW - 5, NOW - 3, "t0", '{"v":1}', '{"last":7}')
    await insert(repository, row)

    claimed = await claim(repository, "a")

    expected = row._replace(claimable_at=NOW + LEASE, token="t1")
    assert claimed.rows == [expected]
    assert await repository.read(["a"]) == {"a": expected}


async def test_a_row_is_claimable_from_its_very_microsecond_on(repository: Repository) -> None:
    await insert(repository, free_row("a", NOW))

    assert keys_of(await claim(repository, "a", now=NOW - 1)) == []
    assert keys_of(await claim(repository, "a", now=NOW)) == ["a"]


async def test_what_counts_is_when_a_row_is_claimable_and_not_when_it_is_due(repository: Repository) -> None:
    await insert(repository, free_row("a", NOW - 100)._replace(claimable_at=NOW + 100))

    assert keys_of(await claim(repository, "a")) == []
    assert keys_of(await claim(repository, "a", now=NOW + 100)) == ["a"]


async def test_a_claimed_row_is_claimed_again_only_when_its_lease_has_ended(repository: Repository) -> None:
    await insert(repository, free_row("a"))
    await claim(repository, "a")

    assert keys_of(await claim(repository, "a", now=NOW + LEASE - 1, token="t2")) == []
    assert [row.token for row in (await claim(repository, "a", now=NOW + LEASE, token="t3")).rows] == ["t3"]


async def test_rows_of_other_tasks_are_neither_returned_nor_changed_nor_in_the_way(repository: Repository) -> None:
    others = [free_row(f"other:{number}") for number in range(30)] + [free_row("A"), free_row("aa"), free_row("a%")]
    await insert(repository, *others, free_row("a", NOW))

    claimed = await claim(repository, "a", limit=1)

    assert keys_of(claimed) == ["a"]
    assert await repository.read([row.key for row in others]) == {row.key: row for row in others}


async def test_a_claim_of_no_task_or_of_unknown_tasks_brings_nothing(repository: Repository) -> None:
    await insert(repository, free_row("a"))

    assert await claim(repository) == Claimed([], None, NOW)
    assert await claim(repository, "unknown", "also unknown") == Claimed([], None, NOW)


async def test_a_claim_in_an_empty_store_brings_nothing(repository: Repository) -> None:
    assert await claim(repository, "a", "b") == Claimed([], None, NOW)


async def test_each_request_has_a_lease_of_its_own(repository: Repository) -> None:
    await insert(repository, free_row("a"), free_row("b"))

    claimed = await repository.claim([ClaimRequest("a", 10), ClaimRequest("b", 7_000_000)], 10, NOW, "t1")

    assert {row.key: row.claimable_at for row in claimed.rows} == {"a": NOW + 10, "b": NOW + 7_000_000}


async def test_all_rows_of_one_claim_carry_its_token(repository: Repository) -> None:
    await insert(repository, *(free_row(f"a:{number}", token=f"own {number}") for number in range(5)))

    claimed = await claim(repository, "a", token="theirs")

    assert [row.token for row in claimed.rows] == ["theirs"] * 5
    assert {row.token for row in await stored_rows(repository, "a")} == {"theirs"}


async def test_a_claim_that_was_long_on_its_way_gets_a_later_token_than_the_row_has_had(repository: Repository) -> None:
    # Drawn before somebody else claimed and committed what is claimed now.
    tokens = [lease.new_token(NOW, 7), lease.new_token(NOW + 1, 2), f"{lease.new_token(NOW, 9)}.waiting", "t0", ""]
    tokens.append(lease.new_token(NOW - 9, 9))  # and one from before it was drawn
    await insert(repository, *(free_row(f"a:{number}", token=token) for number, token in enumerate(tokens)))

    claimed = await claim(repository, "a", token=lease.new_token(NOW, 5))

    at, later, latest = (lease.new_token(NOW + more, 5) for more in range(3))
    assert {row.key: row.token for row in claimed.rows} == {
        "a:0": later,
        "a:1": latest,
        "a:2": later,
        "a:3": at,
        "a:4": at,
        "a:5": at,
    }
    assert await repository.read([row.key for row in claimed.rows]) == {row.key: row for row in claimed.rows}


async def test_a_clock_that_was_put_back_claims_nothing_early(repository: Repository) -> None:
    await insert(repository, free_row("a", NOW), free_row("b", NOW - 50))
    await claim(repository, "b")

    assert await claim(repository, "a", "b", now=NOW - 40) == Claimed([], NOW, NOW - 40)


# --- claim: how many, and in which order ------------------------------------------------------------------------------


async def test_the_oldest_comes_first_inside_a_task(repository: Repository) -> None:
    ages = {"a:1": 3, "a:2": 9, "a:3": 1, "a:4": 7}
    await insert(repository, *(free_row(key, NOW - age) for key, age in ages.items()))

    assert keys_of(await claim(repository, "a")) == ["a:2", "a:4", "a:1", "a:3"]


async def test_the_oldest_is_the_one_that_has_been_claimable_for_longest(repository: Repository) -> None:
    late_due = free_row("a:1", NOW - 5)
    retried = free_row("a:2", NOW - 100)._replace(claimable_at=NOW - 1)
    await insert(repository, late_due, retried)

    assert keys_of(await claim(repository, "a")) == ["a:1", "a:2"]


async def test_no_more_than_the_limit_are_claimed_and_the_rest_stays_as_it_is(repository: Repository) -> None:
    rows = [free_row(f"a:{number}", number) for number in range(10)]
    await insert(repository, *rows)

    assert keys_of(await claim(repository, "a", limit=3)) == ["a:0", "a:1", "a:2"]
    assert (await stored_rows(repository, "a"))[3:] == rows[3:]
    assert keys_of(await claim(repository, "a", limit=3, token="t2")) == ["a:3", "a:4", "a:5"]


async def test_each_task_gets_one_before_any_gets_a_second_one(repository: Repository) -> None:
    await insert(repository, *(free_row(f"a:{number}", number) for number in range(100)))
    await insert(repository, *(free_row(f"b:{number}", NOW - 10 + number) for number in range(2)))
    await insert(repository, free_row("c", NOW))

    claimed = await claim(repository, "a", "b", "c", limit=7)

    assert keys_of(claimed) == ["a:0", "b:0", "c", "a:1", "b:1", "a:2", "a:3"]


async def test_the_order_of_the_requests_decides_who_is_served_when_the_limit_is_small(repository: Repository) -> None:
    await insert(repository, *(free_row(f"{task}:{number}", number) for task in "abc" for number in range(3)))

    assert keys_of(await claim(repository, "c", "a", "b", limit=2)) == ["c:0", "a:0"]
    assert keys_of(await claim(repository, "b", "c", "a", limit=4)) == ["b:0", "c:1", "a:1", "b:1"]


async def test_a_task_with_nothing_due_leaves_its_turn_to_the_others(repository: Repository) -> None:
    await insert(repository, free_row("a", NOW + 1), *(free_row(f"b:{number}", number) for number in range(3)))

    assert keys_of(await claim(repository, "a", "unknown", "b", limit=2)) == ["b:0", "b:1"]


async def test_an_overdue_crowd_delays_another_task_by_no_more_than_one_batch(repository: Repository) -> None:
    await insert(repository, *(free_row(f"crowd:{number:04}", 0) for number in range(1_000)))
    await insert(repository, free_row("single", NOW))

    assert "single" in keys_of(await claim(repository, "crowd", "single", limit=2))


async def test_a_thousand_tasks_are_claimed_at_once(repository: Repository) -> None:
    names = [f"task {number}" for number in range(1_000)]
    await insert(repository, *(free_row(name) for name in names))

    assert keys_of(await claim(repository, *names, limit=2_000)) == names


async def test_what_was_changed_many_times_is_claimed_as_it_was_left(repository: Repository) -> None:
    rows = {f"a:{number}": free_row(f"a:{number}", NOW) for number in range(40)}
    await insert(repository, *rows.values())
    for turn in range(20):
        # Any order but that of the keys, ending with different ages; the token stays in some turns, as extensions do.
        changed = {
            key: row._replace(claimable_at=NOW - (number * 7 + turn * 11) % 40, token=f"t{turn // 3}")
            for number, (key, row) in enumerate(rows.items())
        }
        assert all(await repository.write([Change(key, rows[key].token, row) for key, row in changed.items()]))
        rows = changed

    claimed = await claim(repository, "a", token="last")

    assert keys_of(claimed) == sorted(rows, key=lambda key: (rows[key].claimable_at, key))
    assert claimed.next_claimable == NOW + LEASE


# --- claim: when to look again ----------------------------------------------------------------------------------------


async def test_next_claimable_is_the_earliest_row_that_is_not_claimable_yet(repository: Repository) -> None:
    await insert(repository, free_row("a:1", NOW + 50), free_row("a:2", NOW + 20), free_row("b", NOW + 30))

    assert await claim(repository, "a", "b") == Claimed([], NOW + 20, NOW)
    assert await claim(repository, "b") == Claimed([], NOW + 30, NOW)


async def test_next_claimable_takes_in_the_leases_that_this_claim_has_given(repository: Repository) -> None:
    await insert(repository, free_row("a"), free_row("b", NOW + 5 * LEASE))

    assert (await claim(repository, "a", "b")).next_claimable == NOW + LEASE


async def test_next_claimable_takes_in_the_leases_of_others(repository: Repository) -> None:
    await insert(repository, free_row("a")._replace(claimable_at=NOW + 77), free_row("b", NOW + 99))

    assert (await claim(repository, "a", "b")).next_claimable == NOW + 77


async def test_next_claimable_lies_in_the_past_when_the_limit_left_due_rows_behind(repository: Repository) -> None:
    await insert(repository, *(free_row(f"a:{number}", number) for number in range(5)))

    assert (await claim(repository, "a", limit=2)).next_claimable == 2


async def test_next_claimable_knows_of_due_rows_of_one_task_when_the_others_have_few(repository: Repository) -> None:
    # Of three tasks that share a limit of six each one has two or three rows looked at.
    await insert(repository, *(free_row(f"a:{number}", number) for number in range(4)), free_row("b"))
    await insert(repository, free_row("c:1"), free_row("c:2"), free_row("c:3", NOW + 9))

    claimed = await claim(repository, "a", "b", "c", limit=6)

    assert keys_of(claimed) == ["a:0", "b", "c:1", "a:1", "c:2", "a:2"]
    assert claimed.next_claimable == 3


async def test_next_claimable_ignores_tasks_that_were_not_requested(repository: Repository) -> None:
    await insert(repository, free_row("a", NOW + 50), free_row("other", 0))

    assert await claim(repository, "a") == Claimed([], NOW + 50, NOW)


async def test_next_claimable_follows_writes(repository: Repository) -> None:
    early, late = free_row("a:1", NOW + 10), free_row("a:2", NOW + 20)
    await insert(repository, early, late)

    await repository.write([Change(early.key, "t0", early._replace(claimable_at=NOW + 30))])
    assert (await claim(repository, "a")).next_claimable == NOW + 20
    await repository.write([Change(late.key, "t0", None)])
    assert (await claim(repository, "a")).next_claimable == NOW + 30
    await repository.write([Change(early.key, "t0", None)])
    assert (await claim(repository, "a")).next_claimable is None


# --- write ------------------------------------------------------------------------------------------------------------


async def test_a_row_is_inserted_if_none_is_expected_and_none_is_there(repository: Repository) -> None:
    row = free_row("a")

    assert await repository.write([Change("a", None, row)]) == [True]
    assert await repository.read(["a"]) == {"a": row}


async def test_an_insert_does_not_apply_to_a_row_that_exists(repository: Repository) -> None:
    row = free_row("a")
    await insert(repository, row)

    assert await repository.write([Change("a", None, free_row("a", 5, token="t9"))]) == [False]
    assert await repository.read(["a"]) == {"a": row}


async def test_a_change_applies_to_the_row_that_carries_the_expected_token(repository: Repository) -> None:
    await insert(repository, free_row("a"))
    changed = Row("a", "a", 11, 12, "t9", '{"v":1}', '{"last":1}')

    assert await repository.write([Change("a", "t0", changed)]) == [True]
    assert await repository.read(["a"]) == {"a": changed}


@pytest.mark.parametrize("wrong", ["t1", "", "T0", "t0 ", "t", "%"])
async def test_a_change_with_another_token_does_not_apply(repository: Repository, wrong: str) -> None:
    row = free_row("a")
    await insert(repository, row)

    assert await repository.write([Change("a", wrong, row._replace(due_at=9, token="t9"))]) == [False]
    assert await repository.write([Change("a", wrong, None)]) == [False]
    assert await repository.read(["a"]) == {"a": row}


async def test_a_row_is_deleted_by_its_token(repository: Repository) -> None:
    await insert(repository, free_row("a"), free_row("b"))

    assert await repository.write([Change("a", "t0", None)]) == [True]
    assert await stored_rows(repository, "a", "b") == [free_row("b")]


async def test_a_change_or_a_deletion_of_a_row_that_is_gone_does_not_apply(repository: Repository) -> None:
    assert await repository.write([Change("a", "t0", free_row("a"))]) == [False]
    assert await repository.write([Change("a", "t0", None)]) == [False]
    assert await repository.read(["a"]) == {}


async def test_what_does_not_apply_holds_up_nothing_else_and_results_come_in_order(repository: Repository) -> None:
    await insert(repository, free_row("kept"), free_row("changed"), free_row("deleted"), free_row("taken"))

    applied = await repository.write(
        [
            Change("kept", "wrong", None),
            Change("changed", "t0", free_row("changed", 5, token="t1")),
            Change("gone", "t0", free_row("gone")),
            Change("deleted", "t0", None),
            Change("taken", None, free_row("taken", 9)),
            Change("new", None, free_row("new")),
        ]
    )

    assert applied == [False, True, False, True, False, True]
    assert await stored_rows(repository, "kept", "changed", "gone", "deleted", "taken", "new") == [
        free_row("kept"),
        free_row("changed", 5, token="t1"),
        free_row("taken"),
        free_row("new"),
    ]


async def test_the_token_may_stay_as_an_extension_needs_it(repository: Repository) -> None:
    await insert(repository, free_row("a"))
    [row] = (await claim(repository, "a")).rows
    extended = lease.extend(row, NOW + 10 * LEASE)

    assert await repository.write([Change("a", row.token, extended)]) == [True]
    assert await repository.write([Change("a", row.token, lease.extend(row, NOW + 20 * LEASE))]) == [True]
    assert keys_of(await claim(repository, "a", now=NOW + 20 * LEASE - 1)) == []


async def test_an_empty_write_does_nothing(repository: Repository) -> None:
    assert await repository.write([]) == []


async def test_a_thousand_changes_go_in_one_write(repository: Repository) -> None:
    rows = [free_row(f"a:{number:04}", number) for number in range(1_000)]
    await insert(repository, *rows)

    applied = await repository.write(
        [Change(row.key, "t0" if row.due_at % 2 else "wrong", row._replace(token="t1")) for row in rows]
    )

    assert applied == [bool(row.due_at % 2) for row in rows]
    assert [row.token for row in await stored_rows(repository, "a")] == ["t0", "t1"] * 500


async def test_every_field_comes_back_as_it_was_stored(repository: Repository) -> None:
    text = "".join(ODD_NAMES) + "\n\t\\u0000 \u2028 " + "\U0001f600" * 20_000
    rows = [
        Row("a:1", "a", 0, 0, "", "", ""),
        Row("a:2", "a", -1, 1, "t", '{"v":1}', text),
        Row("a:3", "a", LAST_MICROS, LAST_MICROS, "0" * 40, text, "{}"),
        Row("a:4", "a", -(2**62), 2**62, "t", "null", "5"),
    ]
    await insert(repository, *rows)

    assert await stored_rows(repository, "a") == rows
    changed = [row._replace(spec=row.state, state=row.spec, token="t9") for row in rows]
    assert all(await repository.write([Change(row.key, row.token, row._replace(token="t9")) for row in rows]))
    assert all(await repository.write([Change(row.key, "t9", row) for row in changed]))
    assert await stored_rows(repository, "a") == changed


# --- the fence --------------------------------------------------------------------------------------------------------


async def test_who_was_overtaken_can_neither_commit_nor_extend_nor_release(repository: Repository) -> None:
    await insert(repository, free_row("a"))
    [mine] = (await claim(repository, "a", token="mine")).rows
    [theirs] = (await claim(repository, "a", now=NOW + LEASE, token="theirs")).rows

    for late in (
        lease.commit(mine, NOW + 5, "n1"),
        lease.commit(mine, None, "n2"),
        lease.release(mine, NOW, "n3"),
        Change("a", mine.token, lease.extend(mine, NOW + 9 * LEASE)),
    ):
        assert await repository.write([late]) == [False]
    assert await repository.read(["a"]) == {"a": theirs}


async def test_a_lease_that_ended_can_be_extended_while_nobody_else_has_claimed(repository: Repository) -> None:
    await insert(repository, free_row("a"))
    [row] = (await claim(repository, "a")).rows

    assert await repository.write([Change("a", row.token, lease.extend(row, NOW + 9 * LEASE))]) == [True]
    assert keys_of(await claim(repository, "a", now=NOW + 5 * LEASE, token="t2")) == []


async def test_a_schedule_that_was_removed_and_registered_again_refuses_the_old_token(repository: Repository) -> None:
    await insert(repository, free_row("a"))
    [row] = (await claim(repository, "a", token="claimed")).rows
    assert await repository.write([Change("a", "claimed", None)]) == [True]
    again = free_row("a", token="registered again")
    await insert(repository, again)

    assert await repository.write([lease.commit(row, NOW + 5, "late")]) == [False]
    assert await repository.read(["a"]) == {"a": again}


# --- read, list, tasks ------------------------------------------------------------------------------------------------


async def test_a_read_returns_what_is_there_among_the_keys(repository: Repository) -> None:
    await insert(repository, free_row("a"), free_row("b"), free_row("c"))

    assert await repository.read(["c", "unknown", "a"]) == {"a": free_row("a"), "c": free_row("c")}
    assert await repository.read([]) == {}


async def test_names_that_only_look_alike_never_meet(repository: Repository) -> None:
    rows = [free_row(f"task:{name}", number, token=name) for number, name in enumerate(ODD_NAMES)]
    keys = [row.key for row in rows]
    await insert(repository, *rows)

    for row in rows:
        assert await repository.read([row.key]) == {row.key: row}
    assert (await repository.list("task", "", 1_000)) == sorted(rows)
    assert keys_of(await claim(repository, "task")) == keys
    assert await repository.write([Change(key, "t1", None) for key in keys]) == [True] * len(keys)
    assert await repository.tasks() == []


async def test_tasks_whose_names_only_look_alike_never_meet(repository: Repository) -> None:
    tasks = [static_key(name) for name in ODD_NAMES]
    await insert(repository, *(free_row(key) for task in tasks for key in (task, f"{task}:x")))

    assert sorted(await repository.tasks()) == sorted(tasks)
    for task in tasks:
        assert [row.key for row in await repository.list(task, "", 10)] == [task, f"{task}:x"]
        assert keys_of(await claim(repository, task)) == [task, f"{task}:x"]


async def test_a_list_is_in_the_order_of_code_points(repository: Repository) -> None:
    names = ["Z", "a", "\u00e9", "\u0130", "\uffee", "\U0001f600", "10", "9", "B", "_", "~", ":", "e\u0301"]
    keys = [f"task:{name}" for name in names]
    await insert(repository, *(free_row(key) for key in keys))

    assert [row.key for row in await repository.list("task", "", 100)] == sorted(keys)


async def test_a_list_begins_behind_the_given_key_whether_it_exists_or_not(repository: Repository) -> None:
    await insert(repository, *(free_row(f"a:{number}") for number in (1, 3, 5)))

    assert [row.key for row in await repository.list("a", "a:3", 10)] == ["a:5"]
    assert [row.key for row in await repository.list("a", "a:2", 10)] == ["a:3", "a:5"]
    assert [row.key for row in await repository.list("a", "a:2", 1)] == ["a:3"]
    assert [*await repository.list("a", "a:5", 10)] == []


async def test_a_list_shows_one_task_with_its_leased_rows(repository: Repository) -> None:
    await insert(repository, free_row("a:1"), free_row("ab:1"), free_row("b:1"), free_row("a:2", NOW + 1))
    [claimed] = (await claim(repository, "a")).rows

    assert [*await repository.list("a", "", 10)] == [claimed, free_row("a:2", NOW + 1)]
    assert [*await repository.list("unknown", "", 10)] == []


async def test_paging_shows_every_row_that_was_there_throughout_whatever_changes(repository: Repository) -> None:
    there = [f"a:{number:03}" for number in range(50)]
    await insert(repository, *(free_row(key) for key in there))
    doomed = {key for key in there if key.endswith("4")}
    seen: list[str] = []
    after = ""
    pages = 0
    while page := await repository.list("a", after, 7):
        pages += 1
        seen += [row.key for row in page]
        after = page[-1].key
        # Rows are claimed; the page token itself disappears, and so do rows that still come; new ones appear before
        # and behind it, and right after it.
        await claim(repository, "a", limit=3, now=NOW * pages, token=f"t{pages}")
        changed = await repository.read([*doomed, after])
        assert all(await repository.write([Change(key, row.token, None) for key, row in changed.items()]))
        if pages <= 4:
            await insert(repository, free_row(f"a:!{pages}"), free_row(f"a:~{pages}"), free_row(f"{after}!{pages}"))

    assert seen == sorted(set(seen))
    assert set(there) - doomed <= set(seen)


async def test_tasks_are_listed_once_each_while_they_have_rows(repository: Repository) -> None:
    assert [*await repository.tasks()] == []
    await insert(repository, *(free_row(f"{task}:{number}") for task in ("b", "a", "c") for number in range(5)))

    assert sorted(await repository.tasks()) == ["a", "b", "c"]
    await repository.write([Change(f"b:{number}", "t0", None) for number in range(5)])
    assert sorted(await repository.tasks()) == ["a", "c"]


async def test_a_task_that_had_no_rows_left_works_again(repository: Repository) -> None:
    for round_number in range(3):
        await insert(repository, free_row("a:1", NOW + 5), free_row("a:2", NOW))
        assert keys_of(await claim(repository, "a")) == ["a:2"], round_number
        assert await repository.write([Change("a:1", "t0", None), Change("a:2", "t1", None)]) == [True, True]
        assert await claim(repository, "a") == Claimed([], None, NOW)


# --- several at once --------------------------------------------------------------------------------------------------


async def test_claims_at_the_same_time_never_share_a_row(repository: Repository) -> None:
    await insert(repository, *(free_row(f"a:{number:03}") for number in range(100)))
    claimed: list[str] = []

    async def take(name: int) -> None:
        turn = 0
        while rows := (await claim(repository, "a", limit=7, token=f"{name}.{turn}")).rows:
            claimed.extend(row.key for row in rows)
            turn += 1

    async with anyio.create_task_group() as group:
        for name in range(5):
            group.start_soon(take, name)

    assert sorted(claimed) == [f"a:{number:03}" for number in range(100)]


async def test_of_several_changes_to_one_row_at_the_same_time_one_applies(repository: Repository) -> None:
    await insert(repository, free_row("a"))
    applied: list[int] = []

    async def change(number: int) -> None:
        if await repository.write([Change("a", "t0", free_row("a", token=f"t{number}"))]) == [True]:
            applied.append(number)

    async with anyio.create_task_group() as group:
        for number in range(1, 9):
            group.start_soon(change, number)

    assert len(applied) == 1
    assert (await repository.read(["a"]))["a"].token == f"t{applied[0]}"


async def test_several_processes_on_one_store_never_claim_the_same_row(shared_place: Opener) -> None:
    claimed: list[str] = []

    async def take(repository: Repository, name: int) -> None:
        turn = 0
        while rows := (await claim(repository, "a", "b", limit=5, token=f"{name}.{turn}")).rows:
            claimed.extend(row.key for row in rows)
            turn += 1

    async with shared_place() as first, shared_place() as second, shared_place() as third:
        await insert(first, *(free_row(f"{task}:{number:03}") for task in "ab" for number in range(150)))
        async with anyio.create_task_group() as group:
            for name, repository in enumerate((first, second, third)):
                group.start_soon(take, repository, name)

    assert sorted(claimed) == sorted(f"{task}:{number:03}" for task in "ab" for number in range(150))


async def test_what_one_process_wrote_the_next_call_of_another_one_sees(shared_place: Opener) -> None:
    async with shared_place() as first, shared_place() as second:
        await insert(first, free_row("a", NOW + 5))
        assert await second.read(["a"]) == {"a": free_row("a", NOW + 5)}
        assert await claim(second, "a") == Claimed([], NOW + 5, NOW)
        assert await second.write([Change("a", "t0", free_row("a", NOW, token="t5"))]) == [True]
        assert await first.write([Change("a", "t0", None)]) == [False]
        assert keys_of(await claim(first, "a")) == ["a"]


async def test_rows_outlive_those_who_wrote_them(shared_place: Opener) -> None:
    async with shared_place() as repository:
        await insert(repository, free_row("a", spec='{"v":1}'))
        [row] = (await claim(repository, "a")).rows
    async with shared_place() as repository:
        assert await repository.read(["a"]) == {"a": row}


# --- cancellation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("checkpoints", [0, 1, 2, 3, 5, 8])
async def test_a_cancelled_write_is_complete_or_has_not_begun(repository: Repository, checkpoints: int) -> None:
    rows = [free_row(f"a:{number:03}") for number in range(50)]
    replies: list[Sequence[bool | None]] = []

    async def write() -> None:
        replies.append(await repository.write([Change(row.key, None, row) for row in rows]))

    async with anyio.create_task_group() as group:
        group.start_soon(write)
        for _ in range(checkpoints):
            await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()

    stored = await stored_rows(repository, "a")
    assert stored in ([], rows)
    assert replies in ([], [[True] * 50])
    assert not replies or stored == rows
    # Nothing of it comes later: the next write finds the store as it was found above.
    await insert(repository, free_row("b"))
    assert await stored_rows(repository, "a") == stored


@pytest.mark.parametrize("checkpoints", [0, 1, 2, 3, 5, 8])
async def test_a_cancelled_claim_is_known_to_its_caller_or_has_not_begun(
    repository: Repository, checkpoints: int
) -> None:
    await insert(repository, *(free_row(f"a:{number:03}") for number in range(50)))
    replies: list[Claimed] = []

    async def take() -> None:
        # As the loop does it: whatever is claimed, it must get to know.
        with anyio.CancelScope(shield=True):
            replies.append(await claim(repository, "a", limit=20, token="mine"))

    async with anyio.create_task_group() as group:
        group.start_soon(take)
        for _ in range(checkpoints):
            await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()

    leased = [row for row in await stored_rows(repository, "a") if row.token == "mine"]
    assert leased == [row for reply in replies for row in reply.rows]
    assert len(leased) in (0, 20)


async def test_a_call_in_a_scope_that_is_cancelled_already_leaves_a_usable_store(repository: Repository) -> None:
    calls: list[Callable[[], Awaitable[object]]] = [
        partial(repository.write, [Change("a", None, free_row("a"))]),
        partial(claim, repository, "a"),
        partial(repository.read, ["a"]),
        partial(repository.list, "a", "", 5),
        repository.tasks,
    ]
    for call in calls:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await call()

    stored = await repository.read(["a"])
    # The memory store never waits, so that its calls are complete; the others have not begun.
    assert stored in ({}, {"a": free_row("a")._replace(claimable_at=NOW + LEASE, token="t1")})
    await insert(repository, free_row("b"))
    assert keys_of(await claim(repository, "b")) == ["b"]
