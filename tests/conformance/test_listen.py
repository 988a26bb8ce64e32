"""What those who listen learn of writes, in another process as well."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeAlias

import anyio
import pytest

from anyscheduler.alarm import AT_ONCE
from anyscheduler.clock import LAST_MICROS
from anyscheduler.lease import Change, Row
from tests.conformance.stores import Store, free_row, insert

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from anyscheduler.repository import Repository

    Hear: TypeAlias = Callable[[], Awaitable[int]]

pytestmark = pytest.mark.anyio

NOW = 1_000_000
PATIENCE = 60
"""Seconds after which a test gives up."""


@asynccontextmanager
async def listening(repository: Repository) -> AsyncIterator[Hear]:
    """Listens in a repository meanwhile, and gives what waits for the next instant that it is told."""
    say, heard = anyio.create_memory_object_stream[int](100)
    with say, heard, anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as group:
            group.start_soon(repository.listen, say.send_nowait)
            # From here on nothing is missed; whatever was before has to be looked for.
            assert await heard.receive() == AT_ONCE
            yield heard.receive
            group.cancel_scope.cancel()


async def announce(repository: Repository, *rows: Row) -> None:
    assert all(await repository.write([Change(row.key, None, row) for row in rows], announce=True))


async def test_who_listens_learns_the_earliest_instant_that_another_one_announces(
    announcing: Store, tmp_path: Path
) -> None:
    place = announcing.new_place(tmp_path)
    async with place() as one, place() as other, listening(other) as hear:
        await announce(one, free_row("a:1", NOW + 50), free_row("b", NOW + 20), free_row("a:2", NOW + 90))
        assert await hear() == NOW + 20


async def test_what_counts_is_when_a_row_is_claimable_and_not_when_it_is_due(announcing: Store, tmp_path: Path) -> None:
    place = announcing.new_place(tmp_path)
    async with place() as one, place() as other, listening(other) as hear:
        await announce(one, free_row("a", NOW)._replace(claimable_at=NOW + 5))
        assert await hear() == NOW + 5


@pytest.mark.parametrize("at", [0, -1, -(2**62), LAST_MICROS, 2**62])
async def test_an_instant_is_heard_to_the_microsecond(announcing: Store, tmp_path: Path, at: int) -> None:
    place = announcing.new_place(tmp_path)
    async with place() as one, place() as other, listening(other) as hear:
        await announce(one, free_row("a", at))
        assert await hear() == at


async def test_a_write_that_is_not_to_be_announced_is_not_heard(announcing: Store, tmp_path: Path) -> None:
    place = announcing.new_place(tmp_path)
    async with place() as one, place() as other, listening(other) as hear:
        await insert(one, free_row("a", NOW))
        await announce(one, free_row("b", NOW + 7))
        assert await hear() == NOW + 7


async def test_what_did_not_apply_and_what_was_deleted_is_not_heard(announcing: Store, tmp_path: Path) -> None:
    place = announcing.new_place(tmp_path)
    async with place() as one, place() as other, listening(other) as hear:
        await insert(one, free_row("kept"), free_row("deleted"), free_row("changed", NOW + 9))
        applied = await one.write(
            [
                Change("kept", "wrong", free_row("kept", NOW + 1)),
                Change("kept too", "wrong", None),
                Change("deleted", "t0", None),
            ],
            announce=True,
        )
        assert applied == [False, False, True]
        assert await one.write([], announce=True) == []
        applied = await one.write(
            [Change("kept", None, free_row("kept", NOW + 2)), Change("changed", "t0", free_row("changed", NOW + 8))],
            announce=True,
        )
        assert applied == [False, True]
        assert await hear() == NOW + 8


async def test_every_process_that_listens_hears_it_also_the_one_that_wrote_it(
    announcing: Store, tmp_path: Path
) -> None:
    place = announcing.new_place(tmp_path)
    async with (
        place() as one,
        place() as other,
        place() as third,
        listening(one) as first_ear,
        listening(other) as second_ear,
        listening(third) as third_ear,
    ):
        await announce(one, free_row("a", NOW))
        assert [await hear() for hear in (first_ear, second_ear, third_ear)] == [NOW] * 3


async def test_what_is_heard_can_be_read_at_once(announcing: Store, tmp_path: Path) -> None:
    place = announcing.new_place(tmp_path)
    async with place() as one, place() as other, listening(other) as hear:
        for number in range(20):
            row = free_row(f"a:{number}", NOW + number)
            await announce(one, row)
            assert await hear() == NOW + number
            assert await other.read([row.key]) == {row.key: row}


async def test_what_happens_in_another_place_is_not_heard(announcing: Store, tmp_path: Path) -> None:
    place = announcing.new_place(tmp_path)
    async with (
        announcing.new_place(tmp_path)() as elsewhere,
        place() as one,
        place() as other,
        listening(other) as hear,
    ):
        await announce(elsewhere, free_row("a", NOW))
        await announce(one, free_row("a", NOW + 1))
        assert await hear() == NOW + 1


async def test_a_store_works_on_while_it_listens_and_after_it_has_stopped(announcing: Store, tmp_path: Path) -> None:
    async with announcing.new_place(tmp_path)() as repository:
        for round_number in range(3):
            async with listening(repository) as hear:
                await announce(repository, free_row(f"a:{round_number}", NOW))
                assert await hear() == NOW
            assert len(await repository.list("a", "", 10)) == round_number + 1


async def test_a_store_that_cannot_tell_returns_at_once_and_takes_announcements_all_the_same(
    silent: Repository,
) -> None:
    heard: list[int] = []

    with anyio.fail_after(PATIENCE):
        await silent.listen(heard.append)

    await announce(silent, free_row("a"))
    assert await silent.read(["a"]) == {"a": free_row("a")}
    assert heard == []
