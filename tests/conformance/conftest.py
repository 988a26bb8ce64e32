"""The contract is a function of the store: every test that asks for one of these runs once for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.conformance.stores import STORES, Opener, Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from anyscheduler.repository import Repository


@pytest.fixture(params=[pytest.param(store, id=store.name) for store in STORES])
def store(request: pytest.FixtureRequest) -> Store:
    """Every store."""
    found: Store = request.param
    return found


@pytest.fixture
async def repository(store: Store, tmp_path: Path) -> AsyncIterator[Repository]:
    """An empty repository of every store."""
    async with store.new_place(tmp_path)() as opened:
        yield opened


@pytest.fixture(params=[pytest.param(store, id=store.name) for store in STORES if store.is_shared])
def shared_place(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    """An empty place of every store that several processes can open."""
    found: Store = request.param
    return found.new_place(tmp_path)
