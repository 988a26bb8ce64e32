"""Runs the engine through seeds of the simulator, and holds each run to the invariants: `python -m tests.simulation`.

Run it from the root of the repository. It prints one table, keeps each seed that failed as a file under
tests/simulation/seeds/, and exits with 1 if there was one.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from typing import TYPE_CHECKING, Final

from tests.simulation import kept
from tests.simulation.simulation import simulate
from tests.simulation.tally import Tally, audit

if TYPE_CHECKING:
    from collections.abc import Sequence

_SAID_EVERY: Final = 10.0
"""After how many seconds it is said again how far it has come."""


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--seeds", type=_seeds, default=range(200), metavar="FIRST-LAST", help="0-199 by default")
    which.add_argument("--seed", type=int, help="this one only")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="how many processes share the work")
    parser.add_argument("--log", action="store_true", help="with --seed: print all that happened")
    given = parser.parse_args(arguments)
    if given.log and given.seed is None:
        parser.error("--log shows one run: say which one with --seed")
    return given


def main() -> None:
    """Runs the seeds, and prints one table."""
    given = parse()
    if given.log:
        _show(given.seed)
    seeds = given.seeds if given.seed is None else range(given.seed, given.seed + 1)
    started = said = time.monotonic()
    total = Tally()
    # Spawned and not forked, so that no process begins with what another one has imported or left behind.
    with multiprocessing.get_context("spawn").Pool(given.jobs) as pool:
        for seed, tally, found in pool.imap_unordered(audit, seeds):
            total.add(tally)
            if found:
                print(f"seed {seed}, kept as {kept.keep(seed, found)}:")
                print("".join(f"  {violation.line()}\n" for violation in found), end="", flush=True)
            if time.monotonic() - said > _SAID_EVERY or total.seeds == len(seeds):
                said = time.monotonic()
                rate = total.seeds / (said - started)
                failed = total.violations.total()
                print(
                    f"{total.seeds:,} of {len(seeds):,} seeds, {rate:.1f} a second, {failed} violations",
                    file=sys.stderr,
                    flush=True,
                )
    print("\n".join(total.table()))
    seconds = time.monotonic() - started
    print(f"\n{total.seeds / seconds:.1f} seeds a second, {seconds:.0f} s")
    sys.exit(bool(total.violations))


def _seeds(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def _show(seed: int) -> None:
    run = simulate(seed)
    print(run.plan)
    for entry in run.entries:
        print(entry.line())


if __name__ == "__main__":
    main()
