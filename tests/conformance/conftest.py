"""The contract is a function of the store: every test that asks for one of these runs once for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from anyscheduler import threaded
from tests.conformance.shelf import Shelf
from tests.conformance.stores import STORES, Opener, Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from anyscheduler.repository import Repository

# What differed between a store and the model is what one has to know of a failure that does not come again.
pytest.register_assert_rewrite("tests.conformance.machine")


def _cases(is_wanted: Callable[[Store], bool]) -> list[Any]:
    return [pytest.param(store, id=store.name) for store in STORES if is_wanted(store)]


@pytest.fixture(params=_cases(lambda _: True))
def store(request: pytest.FixtureRequest) -> Store:
    """Every store."""
    found: Store = request.param
    return found


@pytest.fixture
async def repository(store: Store, tmp_path: Path) -> AsyncIterator[Repository]:
    """An empty repository of every store."""
    async with store.new_place(tmp_path)() as opened:
        yield opened


@pytest.fixture(params=_cases(lambda store: store.is_shared))
def shared_place(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    """An empty place of every store that several processes can open."""
    return _new_place(request, tmp_path)


@pytest.fixture(params=_cases(lambda store: store.has_clock))
async def clocked(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Repository]:
    """An empty repository of every store that has a clock of its own."""
    async with _new_place(request, tmp_path)() as opened:
        yield opened


@pytest.fixture(params=_cases(lambda store: not store.has_clock))
async def clockless(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Repository]:
    """An empty repository of every store that has none."""
    async with _new_place(request, tmp_path)() as opened:
        yield opened


@pytest.fixture(params=_cases(lambda store: store.announces))
def announcing(request: pytest.FixtureRequest) -> Store:
    """Every store that tells those who listen what is written."""
    found: Store = request.param
    return found


@pytest.fixture(params=_cases(lambda store: not store.announces))
async def silent(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Repository]:
    """An empty repository of every store that cannot."""
    async with _new_place(request, tmp_path)() as opened:
        yield opened


def _new_place(request: pytest.FixtureRequest, directory: Path) -> Opener:
    found: Store = request.param
    return found.new_place(directory)


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    """A small store of its own, for what has to happen to a store in threads."""
    made = Shelf()
    yield made
    made.cut()
    for listener in made.listeners:
        listener.close()


@pytest.fixture
def little_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that was cancelled is not given a second to end, but a moment."""
    monkeypatch.setattr(threaded, "_GRACE_SECONDS", 0.05)
