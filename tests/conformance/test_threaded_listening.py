"""What a store in threads announces, on connections that are cut, refused, and made in vain."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeAlias

import anyio
import pytest

from anyscheduler import threaded
from anyscheduler.alarm import AT_ONCE
from tests.conformance.shelf import GIVE_UP, Shelf, ShelfError, over, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from anyscheduler.threaded import ThreadedRepository

    Hear: TypeAlias = Callable[[], Awaitable[int]]

pytestmark = pytest.mark.anyio


@pytest.fixture
def quick_reconnect(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that was cut is replaced at once."""
    monkeypatch.setattr(threaded, "_LISTEN_AGAIN_SECONDS", 0.01)


@asynccontextmanager
async def listening(repository: ThreadedRepository) -> AsyncIterator[Hear]:
    """Listens meanwhile, and gives what waits for the next instant that is heard."""
    say, heard = anyio.create_memory_object_stream[int](100)
    with say, heard, anyio.fail_after(GIVE_UP):
        async with anyio.create_task_group() as group:
            group.start_soon(repository.listen, say.send_nowait)
            yield heard.receive
            group.cancel_scope.cancel()


async def test_what_is_announced_is_heard_in_its_order_and_so_is_that_one_listens(shelf: Shelf) -> None:
    async with listening(over(shelf)) as hear:
        assert await hear() == AT_ONCE
        shelf.announce(5, -7, 2**62)
        assert [await hear() for _ in range(3)] == [5, -7, 2**62]
        shelf.announce(6)
        assert await hear() == 6

    assert [listener.is_closed for listener in shelf.listeners] == [True]


async def test_who_listens_takes_no_thread_from_the_others(shelf: Shelf) -> None:
    repository = over(shelf, threads=1)

    async with listening(repository) as hear:
        await hear()
        assert await repository.tasks() == []


@pytest.mark.usefixtures("quick_reconnect")
async def test_a_connection_that_is_cut_is_replaced_and_what_was_missed_is_looked_for(
    shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    repository = over(shelf)

    async with listening(repository) as hear:
        assert await hear() == AT_ONCE
        for number in range(3):
            # The rest of the store works all the time, as it does when a server closes what idles.
            assert await repository.tasks() == []
            shelf.cut()
            assert await hear() == AT_ONCE
            shelf.announce(number)
            assert await hear() == number

    assert [listener.is_closed for listener in shelf.listeners] == [True] * 4
    # It is back at once each time: nothing that anybody would have to know.
    assert [record.message for record in caplog.records] == []


@pytest.mark.usefixtures("quick_reconnect")
async def test_while_the_store_is_gone_connecting_is_tried_again_without_a_word(
    shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    async with listening(over(shelf)) as hear:
        assert await hear() == AT_ONCE
        shelf.fails_with = ShelfError("gone")
        shelf.cut()
        await until(lambda: shelf.began.count("listener") >= 5)
        shelf.fails_with = None
        assert await hear() == AT_ONCE

    # Whoever claims says so.
    assert [record.message for record in caplog.records] == []


@pytest.mark.usefixtures("quick_reconnect")
async def test_a_store_that_answers_everything_but_this_is_worth_one_line(
    shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    repository = over(shelf)
    shelf.refuses_listeners_with = ShelfError("no more connections")

    async with listening(repository) as hear:
        while shelf.began.count("listener") < 5:
            await repository.tasks()
        shelf.refuses_listeners_with = None
        assert await hear() == AT_ONCE

    (line,) = [record.message for record in caplog.records]
    assert line.startswith("cannot listen")
    assert line.endswith("no more connections")


async def test_a_store_that_cannot_tell_returns_at_once(shelf: Shelf) -> None:
    shelf.can_listen = False
    heard: list[int] = []

    with anyio.fail_after(GIVE_UP):
        await over(shelf).listen(heard.append)

    assert heard == []


@pytest.mark.usefixtures("little_grace")
async def test_a_connection_that_is_made_while_listening_is_cancelled_is_closed(shelf: Shelf) -> None:
    repository = over(shelf)

    async with anyio.create_task_group() as group:
        with shelf.hanging():
            group.start_soon(repository.listen, lambda _: None)
            await until(lambda: shelf.began)
            group.cancel_scope.cancel()

    await until(lambda: shelf.listeners)
    await until(lambda: all(listener.is_closed for listener in shelf.listeners))


@pytest.mark.usefixtures("little_grace")
async def test_a_connection_that_is_made_when_listening_is_over_is_closed(shelf: Shelf) -> None:
    repository = over(shelf)
    shelf.obeys = False

    with shelf.hanging():
        async with anyio.create_task_group() as group:
            group.start_soon(repository.listen, lambda _: None)
            await until(lambda: shelf.began)
            group.cancel_scope.cancel()
        assert shelf.listeners == []

    await until(lambda: shelf.listeners)
    await until(lambda: all(listener.is_closed for listener in shelf.listeners))
