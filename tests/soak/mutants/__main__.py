"""Plants each fault, runs a soak on it, and prints which invariant found it when: `python -m tests.soak.mutants`.

Run it from the root of the repository. It exits with 1 if one of them was not found by an invariant that is about it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.soak.driver import soak
from tests.soak.mutants import ALL, MUTANTS, Mutant
from tests.soak.report import report_on

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.soak.report import Report


def first_by_invariant(report: Report) -> dict[str, float]:
    """Returns when each invariant first found something, in seconds from the begin of the load, earliest first."""
    first: dict[str, float] = {}
    for violation in sorted(report.violations, key=lambda violation: violation.mono):
        first.setdefault(violation.invariant, (violation.mono - report.facts.begin) / 1e6)
    return first


def is_found(mutant: Mutant, report: Report) -> bool:
    """Whether an invariant has found the mutant that is about what it breaks."""
    return not first_by_invariant(report).keys().isdisjoint(mutant.found_by)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line, or other arguments in its place."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.mutants", description=__doc__)
    parser.add_argument("mutant", nargs="*", default=list(MUTANTS), help="which ones; all of them if none is named")
    parser.add_argument("--store", action="append", choices=ALL, help="on which stores; the first that each one is on")
    parser.add_argument("--loop", choices=["asyncio", "trio"], default="asyncio")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long load and faults last for each")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep plan, logs and output of all of them there")
    return parser.parse_args(arguments)


def main() -> None:
    """Runs them one after the other."""
    given = parse()
    missed = 0
    print("| mutant | store | found by (seconds) |")
    print("|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        for mutant in [MUTANTS[name] for name in given.mutant]:
            for store in [store for store in given.store or mutant.stores[:1] if store in mutant.stores]:
                directory = (given.keep or Path(scratch)) / f"{mutant.name}-{store}"
                soak(
                    directory, store=store, loop=given.loop, seconds=given.seconds, seed=given.seed, mutant=mutant.name
                )
                report = report_on(directory)
                found = ", ".join(f"{name} ({after:.1f})" for name, after in first_by_invariant(report).items())
                missed += not is_found(mutant, report)
                verdict = "" if is_found(mutant, report) else f" **expected {' or '.join(mutant.found_by)}**"
                print(f"| {mutant.name} | {store} | {found or 'nothing'}{verdict} |", flush=True)
    sys.exit(missed > 0)


if __name__ == "__main__":
    main()
