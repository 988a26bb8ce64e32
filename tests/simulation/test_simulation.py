"""A sample of seeds, the seeds that are kept, and proof that a run depends on its seed alone and can fail.

`python -m tests.simulation` runs as many seeds as one likes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.simulation import kept
from tests.simulation.__main__ import parse
from tests.simulation.invariants import NAMES, Violation, violations
from tests.simulation.mutants import MUTANTS
from tests.simulation.simulation import simulate
from tests.simulation.tally import Tally, audit

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).parents[2]

SEEDS = 200
CHUNK = 10

MUTANT_SEEDS = 2_000
"""A mutant is looked for with as many seeds. Most are found by one of the first ten, `lease_from_claim` by one of 300;
which, changes with the order in which the engine does things."""


PROGRAM = """
import sys
from tests.simulation.simulation import simulate
print(*(simulate(int(seed)).digest for seed in sys.argv[1:]))
"""


def broken(seeds: Iterable[int]) -> dict[int, list[str]]:
    """Returns the promises that were not kept, by seed."""
    found = {seed: violations(simulate(seed)) for seed in seeds}
    return {seed: [violation.line() for violation in of_seed] for seed, of_seed in found.items() if of_seed}


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_every_promise_is_kept(first: int) -> None:
    assert broken(range(first, first + CHUNK)) == {}


def test_every_promise_is_kept_with_the_seeds_that_have_shown_a_fault() -> None:
    assert broken(kept.seeds()) == {}


def test_a_kept_seed_says_what_it_has_shown() -> None:
    for seed in kept.seeds():
        told = json.loads((kept.DIRECTORY / f"{seed}.json").read_text(encoding="utf-8"))
        assert told["seed"] == seed
        assert told["showed"]


def test_a_seed_that_fails_is_kept_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "DIRECTORY", tmp_path / "seeds")

    path = kept.keep(7, [Violation("once", 0, "0.0", "twice")])
    kept.keep(7, [Violation("once", 0, "0.0", "thrice")])

    assert kept.seeds() == [7]
    assert "twice" in path.read_text(encoding="utf-8")


def test_the_same_seed_is_the_same_run_and_another_seed_is_another() -> None:
    # In processes whose sets of strings have different orders, and in which different seeds were run before.
    digests = []
    for hash_seed, seeds in (("1", "34"), ("2", "543")):
        printed = subprocess.run(
            [sys.executable, "-c", PROGRAM, *seeds],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        digests.append(dict(zip(seeds, printed.split(), strict=True)))

    assert digests[0]["3"] == digests[1]["3"] != digests[0]["4"] == digests[1]["4"]


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_fault_is_found(name: str) -> None:
    mutant = MUTANTS[name]
    shown: set[str] = set()

    with mutant.planted():
        for seed in range(MUTANT_SEEDS):
            _, tally, _ = audit(seed)
            shown |= set(tally.violations)
            if shown & mutant.found_by:
                break

    assert shown & mutant.found_by


def test_a_loop_that_never_waits_is_found(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("tests.simulation.order._MOST_ROUNDS", 100)

    _, tally, _ = audit(0)

    assert tally.violations == {"quiet": 1}
    assert "does not come to an end" in capsys.readouterr().err


def test_the_table_counts_what_happened() -> None:
    run = simulate(1)
    total = Tally()
    for _ in range(2):
        total.add(Tally.of(run, [Violation("once", 0, "", "twice")]))

    rows = {line[:24].strip(): line[24:].strip() for line in total.table()}

    assert rows["seeds"] == "2"
    assert rows["entries"] == f"{2 * len(run.entries):,}"
    assert rows["started"] == f"{2 * sum(entry.kind == 'started' for entry in run.entries):,}"
    assert rows["once"] == "2"
    assert rows.keys() >= set(NAMES)


def test_the_command_line_names_one_seed_or_a_range_of_them() -> None:
    assert parse(["--seeds", "3-7", "--jobs", "2"]).seeds == range(3, 8)
    assert parse(["--seed", "9", "--log"]).seed == 9
    with pytest.raises(SystemExit):
        parse(["--log"])
