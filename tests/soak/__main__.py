"""Breaks an app in every way there is while it runs, and checks what it promises: `python -m tests.soak`.

Run it from the root of the repository. It prints one table, and exits with 1 if a promise was not kept, or if the run
was not hard enough to say so.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.soak.driver import soak
from tests.soak.report import report_on

if TYPE_CHECKING:
    from collections.abc import Sequence


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line, or other arguments in its place."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--store", choices=["sqlite", "redis", "postgres"], default="sqlite")
    parser.add_argument("--loop", choices=["asyncio", "trio"], default="asyncio")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long load and faults last")
    parser.add_argument("--seed", type=int, default=7, help="the same seed, store and seconds give the same plan")
    parser.add_argument("--mutant", default="", help="a fault that is planted in the workers, and has to be found")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep plan, logs and output of all processes there")
    parser.add_argument("--check", type=Path, metavar="DIR", help="run nothing, check what was kept there")
    return parser.parse_args(arguments)


def main() -> None:
    """Runs a soak, or checks one that was kept, and prints one table."""
    given = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # ends the server and the workers, as Ctrl-C does
    started = time.monotonic()
    if given.check is not None:
        report = report_on(given.check)
    else:
        directory = given.keep or Path(tempfile.mkdtemp(prefix="soak-"))
        print(f"plan and logs: {directory}", file=sys.stderr, flush=True)
        if directory.exists() and any(directory.iterdir()):
            sys.exit(f"{directory} holds something already; --check reads what was kept there")
        options = {name: getattr(given, name) for name in ("store", "loop", "seconds", "seed", "mutant")}
        soak(directory, **options)
        report = report_on(directory)
        if given.keep is None and report.holds:
            shutil.rmtree(directory)
    print(report)
    print(f"took {time.monotonic() - started:.0f} s")
    sys.exit(not report.holds)


if __name__ == "__main__":
    main()
