"""The planted faults: each replaces something that is there, and a soak finds it.

`python -m tests.soak.mutants` has all of them found, which takes a quarter of an hour.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.soak import invariants
from tests.soak.driver import soak
from tests.soak.mutants import ALL, MUTANTS, plant
from tests.soak.mutants.__main__ import is_found
from tests.soak.report import report_on

if TYPE_CHECKING:
    from pathlib import Path

PLACES = [(name, store) for name, mutant in MUTANTS.items() for store in mutant.stores]
NO_PLACES = [(name, store) for name, mutant in MUTANTS.items() for store in ALL if store not in mutant.stores]


def test_there_are_twelve_and_each_is_expected_by_an_invariant() -> None:
    assert len(MUTANTS) == 12
    assert {name for mutant in MUTANTS.values() for name in mutant.found_by} <= set(invariants.NAMES)


@pytest.mark.parametrize(("name", "store"), PLACES)
def test_each_mutant_replaces_what_is_there(name: str, store: str) -> None:
    replaced: list[tuple[Any, Any]] = []
    plant(name, store, lambda owner, attribute, value: replaced.append((vars(owner)[attribute], value)))
    assert replaced
    assert all(before != after for before, after in replaced)


@pytest.mark.parametrize(("name", "store"), NO_PLACES)
def test_a_mutant_is_not_planted_on_a_store_without_such_a_thing(name: str, store: str) -> None:
    with pytest.raises(LookupError, match=f"{name} does not exist on {store}"):
        plant(name, store)


@pytest.mark.parametrize(("name", "store"), PLACES)
def test_planting_fails_when_what_it_replaces_is_gone(name: str, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    replaced: list[tuple[Any, str]] = []
    plant(name, store, lambda owner, attribute, _value: replaced.append((owner, attribute)))
    for owner, attribute in replaced:
        with monkeypatch.context() as patched:
            patched.delattr(owner, attribute)
            with pytest.raises(LookupError, match=attribute):
                plant(name, store)


@pytest.mark.parametrize(
    ("name", "store", "loop"), [("no-row-lock", "sqlite", "trio"), ("no-retry", "redis", "asyncio")]
)
def test_seconds_of_a_soak_are_enough_to_find_one(name: str, store: str, loop: str, tmp_path: Path) -> None:
    soak(tmp_path / "run", store=store, loop=loop, seconds=10, seed=7, mutant=name)
    report = report_on(tmp_path / "run")
    assert is_found(MUTANTS[name], report), str(report)
