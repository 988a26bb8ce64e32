"""Rows that lie side by side by key: those of each task are its own, whatever its name begins with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from anyscheduler.lease import Change, Row
from anyscheduler.repository import Claimed
from tests.conformance.stores import LEASE, free_row, insert, requests

if TYPE_CHECKING:
    from anyscheduler.repository import Repository

pytestmark = pytest.mark.anyio

NOW = 1_000_000

# All begin with the first one; the ends are the characters on both sides of the colon, by code point and by collation.
TASKS = ["a", "a-b", "a0", "a9", "a;", "a;b", "a ", "aa", "a%3A", "a%25", "a%p1", "a%p10", "a%p2", "a\U0010ffff"]
# Of each task, without a name: the row of a static task that was dynamic once, or has become so since.
NAMES = [None, "!", "0", "1", ":", "::", ";", "a:1", "\U0010ffff"]
ROWS = {
    task: [free_row(task if name is None else f"{task}:{name}", token=f"token of {task}") for name in NAMES]
    for task in TASKS
}
KEYS = [row.key for rows in ROWS.values() for row in rows]


def keys_of(rows: list[Row]) -> list[str]:
    return [row.key for row in rows]


@pytest.fixture
async def neighbourhood(repository: Repository) -> Repository:
    await insert(repository, *(row for rows in ROWS.values() for row in rows))
    return repository


async def test_a_list_shows_the_rows_of_one_task_and_its_static_row_among_them(neighbourhood: Repository) -> None:
    for task, rows in ROWS.items():
        assert [*await neighbourhood.list(task, "", 1_000)] == sorted(rows)


async def test_a_list_is_exact_behind_any_key_also_behind_that_of_a_neighbour(neighbourhood: Repository) -> None:
    for task in ("a", "a0", "a%p1", "a;"):
        for after in KEYS:
            page = await neighbourhood.list(task, after, 3)
            assert keys_of([*page]) == sorted(row.key for row in ROWS[task] if row.key > after)[:3], (task, after)


async def test_pages_of_one_row_each_end_where_the_task_does(neighbourhood: Repository) -> None:
    for task, rows in ROWS.items():
        seen: list[Row] = []
        while page := await neighbourhood.list(task, seen[-1].key if seen else "", 1):
            seen += page
        assert seen == sorted(rows)


async def test_a_claim_takes_the_rows_of_its_tasks_and_leaves_their_neighbours(neighbourhood: Repository) -> None:
    for task in TASKS:
        claimed = await neighbourhood.claim(requests(task), 1_000, NOW, f"mine of {task}")
        assert sorted(keys_of(claimed.rows)) == sorted(keys_of(ROWS[task]))
        assert claimed.next_claimable == NOW + LEASE

    assert {key: row.token for key, row in (await neighbourhood.read(KEYS)).items()} == {
        row.key: f"mine of {task}" for task, rows in ROWS.items() for row in rows
    }


async def test_what_a_neighbour_has_due_is_no_reason_to_look_again(repository: Repository) -> None:
    await insert(repository, *(free_row(f"{task}:1", NOW + number) for number, task in enumerate(TASKS)))

    for number, task in enumerate(TASKS):
        earlier = NOW - 1
        assert await repository.claim(requests(task), 10, earlier, "t1") == Claimed([], NOW + number, earlier)


async def test_a_task_that_is_emptied_leaves_its_neighbours(neighbourhood: Repository) -> None:
    left = list(TASKS)
    for task in TASKS:
        assert sorted(await neighbourhood.tasks()) == sorted(left)
        left.remove(task)
        assert all(await neighbourhood.write([Change(row.key, row.token, None) for row in ROWS[task]]))
        assert await neighbourhood.read(KEYS) == {row.key: row for other in left for row in ROWS[other]}


async def test_the_static_row_and_the_instances_of_a_task_come_and_go_by_themselves(repository: Repository) -> None:
    static, first, second = free_row("a"), free_row("a:1"), free_row("a:2")

    await insert(repository, first, second)
    assert await repository.read(["a"]) == {}
    assert await repository.write([Change("a", "t0", None)]) == [False]
    await insert(repository, static)
    assert await repository.write([Change("a", "t0", None)]) == [True]
    assert [*await repository.list("a", "", 10)] == [first, second]
