"""Plain synchronous stores in worker threads: cancellation, hanging servers, and connections that are listened on."""

from __future__ import annotations

import asyncio
import threading
from functools import partial

import anyio
import anyio.to_thread
import pytest

from anyscheduler.errors import RepositoryError
from anyscheduler.lease import Change
from tests.conformance.shelf import GIVE_UP, Shelf, ShelfError, over, until
from tests.conformance.stores import LEASE, free_row, insert, requests

pytestmark = pytest.mark.anyio

NOW = 1_000_000


# --- calls ------------------------------------------------------------------------------------------------------------


async def test_every_operation_reaches_the_store_and_its_answer_comes_back(shelf: Shelf) -> None:
    repository = over(shelf)
    row = free_row("a")
    leased = row._replace(claimable_at=NOW + LEASE, token="t1")

    assert await repository.write([Change("a", None, row)]) == [True]
    assert await repository.claim(requests("a"), 5, NOW, "t1") == ([leased], NOW + LEASE, NOW)
    assert await repository.read(["a", "b"]) == {"a": leased}
    assert await repository.list("a", "", 5) == [leased]
    assert await repository.tasks() == ["a"]
    assert await repository.time() == 77
    assert await repository.write([Change("a", "t1", None)], announce=True) == [True]
    await repository.close()

    assert shelf.closed
    assert shelf.ended == ["write", "claim", "read", "page", "tasks", "time", "announced write", "close"]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ShelfError("it fell"), "a shelf: it fell"),
        (ShelfError("it fell\n  LINE 1: and broke\n"), "a shelf: it fell LINE 1: and broke"),
        (ShelfError(), "a shelf: ShelfError"),
    ],
)
async def test_what_the_driver_raises_is_a_repository_error_in_one_line(
    shelf: Shelf, error: ShelfError, told: str
) -> None:
    repository = over(shelf)
    shelf.fails_with = error

    with pytest.raises(RepositoryError) as caught:
        await repository.tasks()

    assert str(caught.value) == told
    assert caught.value.__cause__ is error
    shelf.fails_with = None
    assert await repository.tasks() == []


async def test_what_anything_else_raises_is_a_fault_and_comes_out_as_it_is(shelf: Shelf) -> None:
    shelf.fails_with = ZeroDivisionError("a fault in the store")

    with pytest.raises(ZeroDivisionError):
        await over(shelf).tasks()


@pytest.mark.parametrize("threads", [1, 2, 5])
async def test_no_more_calls_are_under_way_than_there_are_threads(shelf: Shelf, threads: int) -> None:
    repository = over(shelf, threads=threads)

    async with anyio.create_task_group() as group:
        with shelf.hanging():
            for number in range(12):
                group.start_soon(insert, repository, free_row(f"a:{number}"))
            await until(lambda: len(shelf.began) == threads)
            await anyio.sleep(0.02)

    assert shelf.most == threads
    assert len(shelf.ended) == 12


async def test_bodies_that_fill_the_default_threads_do_not_starve_the_store(shelf: Shelf) -> None:
    release = threading.Event()
    limiter = anyio.to_thread.current_default_thread_limiter()

    async with anyio.create_task_group() as group:
        for _ in range(int(limiter.total_tokens)):
            group.start_soon(partial(anyio.to_thread.run_sync, release.wait))
        try:
            await until(lambda: not limiter.available_tokens)
            with anyio.fail_after(GIVE_UP):
                assert await over(shelf).tasks() == []
        finally:
            release.set()


# --- cancellation -----------------------------------------------------------------------------------------------------

boundless = pytest.mark.parametrize("patience", [30, float("inf")], ids=["bounded", "boundless"])


@boundless
async def test_a_call_that_is_cancelled_before_it_began_does_not_run(shelf: Shelf, patience: float) -> None:
    repository = over(shelf, threads=1, patience=patience)

    async with anyio.create_task_group() as group:
        with shelf.hanging():
            group.start_soon(repository.tasks)
            await until(lambda: shelf.began == ["tasks"])
            with anyio.move_on_after(0.02) as scope:
                await insert(repository, free_row("a"))
    assert scope.cancelled_caught
    await repository.read(["a"])

    assert shelf.began == ["tasks", "read"]


@boundless
async def test_a_call_in_a_scope_that_is_cancelled_already_does_not_run(shelf: Shelf, patience: float) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await insert(over(shelf, patience=patience), free_row("a"))

    assert scope.cancelled_caught
    assert shelf.began == []


@boundless
async def test_a_call_that_is_cancelled_when_it_has_begun_runs_to_its_end_and_is_waited_for(
    shelf: Shelf, patience: float
) -> None:
    repository = over(shelf, patience=patience)
    ended_when_it_returned: list[str] = []

    async def call() -> None:
        try:
            await insert(repository, free_row("a"))
        finally:
            ended_when_it_returned.extend(shelf.ended)

    async with anyio.create_task_group() as group:
        with shelf.hanging():
            group.start_soon(call)
            await until(lambda: shelf.began)
            group.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.03)
            assert ended_when_it_returned == []

    assert ended_when_it_returned == ["write"]
    assert await repository.read(["a"]) == {"a": free_row("a")}
    assert shelf.aborted == []


@pytest.mark.usefixtures("little_grace")
async def test_a_call_that_is_cancelled_and_does_not_end_is_aborted_after_a_grace_period(shelf: Shelf) -> None:
    repository = over(shelf)

    with shelf.hanging(), anyio.fail_after(GIVE_UP), anyio.move_on_after(0.05) as scope:
        await insert(repository, free_row("a"))

    assert scope.cancelled_caught
    assert len(shelf.aborted) == 1
    assert shelf.ended == []
    assert await repository.read(["a"]) == {}


@pytest.mark.usefixtures("little_grace")
async def test_a_store_that_always_answers_is_waited_for_however_long_it_takes(shelf: Shelf) -> None:
    repository = over(shelf, patience=float("inf"))

    async with anyio.create_task_group() as group:
        with shelf.hanging():
            group.start_soon(insert, repository, free_row("a"))
            await until(lambda: shelf.began)
            group.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.3)

    assert shelf.aborted == []
    assert shelf.ended == ["write"]


@boundless
@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True})])
async def test_a_call_that_asyncio_cancels_runs_to_its_end(shelf: Shelf, patience: float) -> None:
    repository = over(shelf, patience=patience)

    with shelf.hanging():
        cancelled = asyncio.ensure_future(insert(repository, free_row("a")))
        await until(lambda: shelf.began)
        cancelled.cancel()
        await anyio.sleep(0.03)
        assert not cancelled.done()
    with pytest.raises(asyncio.CancelledError):
        await cancelled

    assert shelf.ended == ["write"]
    assert shelf.aborted == []


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True})])
async def test_a_call_that_asyncio_cancels_and_nothing_can_cut_keeps_its_place_to_its_end(shelf: Shelf) -> None:
    repository = over(shelf, threads=1, patience=float("inf"))

    with shelf.hanging():
        cancelled = asyncio.ensure_future(repository.write([Change("a", None, free_row("a"))]))
        await until(lambda: shelf.began)
        cancelled.cancel()
        other = asyncio.ensure_future(repository.write([Change("b", None, free_row("b"))]))
        await anyio.sleep(0.03)
        assert shelf.began == ["write"]
    with pytest.raises(asyncio.CancelledError):
        await cancelled

    assert await other == [True]
    assert shelf.most == 1
    assert set(await repository.read(["a", "b"])) == {"a", "b"}


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True})])
async def test_a_call_that_asyncio_cancels_before_it_began_does_not_run(shelf: Shelf) -> None:
    repository = over(shelf, threads=1)

    with shelf.hanging():
        first = asyncio.ensure_future(repository.tasks())
        await until(lambda: shelf.began)
        second = asyncio.ensure_future(repository.write([Change("a", None, free_row("a"))]))
        await anyio.sleep(0.01)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second

    assert await first == []
    assert await repository.read(["a"]) == {}
    assert shelf.began == ["tasks", "read"]


# --- a store that does not answer -------------------------------------------------------------------------------------


async def test_a_call_without_an_answer_fails_after_its_patience_and_its_connection_is_cut(shelf: Shelf) -> None:
    repository = over(shelf, patience=0.05)

    with (
        shelf.hanging(),
        anyio.fail_after(GIVE_UP),
        pytest.raises(RepositoryError, match=r"^a shelf: no answer within 0\.05 s$"),
    ):
        await insert(repository, free_row("a"))

    assert len(shelf.aborted) == 1
    assert await repository.read(["a"]) == {}


async def test_patience_ends_for_those_that_wait_for_a_thread_as_well(shelf: Shelf) -> None:
    repository = over(shelf, threads=1, patience=0.05)
    errors: list[str] = []

    async def call() -> None:
        with pytest.raises(RepositoryError) as caught:
            await repository.tasks()
        errors.append(str(caught.value))

    with shelf.hanging(), anyio.fail_after(GIVE_UP):
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(call)

    assert errors == ["a shelf: no answer within 0.05 s"] * 3


async def test_only_the_thread_that_does_not_answer_is_aborted(shelf: Shelf) -> None:
    repository = over(shelf, threads=2, patience=0.1)

    with anyio.fail_after(GIVE_UP):
        async with anyio.create_task_group() as group:
            with shelf.hanging():

                async def late() -> None:
                    with pytest.raises(RepositoryError):
                        await repository.tasks()

                group.start_soon(late)
                await anyio.sleep(0.07)
                group.start_soon(repository.read, ["a"])
                await until(lambda: shelf.aborted)
                assert shelf.began == ["tasks", "read"]

    assert len(shelf.aborted) == 1
    assert shelf.ended == ["read"]


@pytest.mark.usefixtures("little_grace")
async def test_a_call_that_cannot_be_aborted_is_left_and_the_other_threads_work_on(shelf: Shelf) -> None:
    repository = over(shelf, threads=2, patience=0.05)
    shelf.obeys = False

    with shelf.hanging(), anyio.fail_after(GIVE_UP):
        with pytest.raises(RepositoryError, match="no answer"):
            await repository.tasks()
        shelf.answer()
        assert await repository.read(["a"]) == {}
        assert shelf.ended == ["read"]

    await until(lambda: shelf.ended == ["read", "tasks"])


# --- closing ----------------------------------------------------------------------------------------------------------


async def test_it_is_closed_in_a_scope_that_is_cancelled_as_well(shelf: Shelf) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await over(shelf).close()

    assert shelf.closed


async def test_what_goes_wrong_while_it_closes_is_logged_and_no_error(
    shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    shelf.fails_with = ShelfError("jammed")

    await over(shelf).close()

    assert [record.message for record in caplog.records] == ["the store could not be closed properly: a shelf: jammed"]
