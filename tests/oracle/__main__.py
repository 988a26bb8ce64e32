"""Walks through time zones and holds every due time of every cron form against the package: `python -m tests.oracle`.

Run it from the root of the repository. Without options it walks through forty-four zones: around every change of their
clocks from 1970 to 2037, and through two whole years of each. It exits with 1 if there is a difference.
"""

from __future__ import annotations

import argparse
import sys
import time
import zoneinfo
from zoneinfo import ZoneInfo

from tests.oracle.comparison import Comparison, Tally
from tests.oracle.forms import FORMS, ZONES
from tests.oracle.walk import transitions

_SHOWN = 10
_YEARS = range(1970, 2038)


def main() -> None:
    """Compares, and prints one table."""
    parser = argparse.ArgumentParser(prog="python -m tests.oracle", description=__doc__)
    parser.add_argument("--zones", nargs="+", metavar="ZONE", default=ZONES, help="only these zones")
    parser.add_argument("--all", action="store_true", help="every zone that zoneinfo knows; takes hours")
    given = parser.parse_args()
    zones = sorted(zoneinfo.available_timezones() - {"localtime", "Factory"}) if given.all else given.zones
    started, cpu = time.monotonic(), time.process_time()
    tallies = []
    for index, zone in enumerate(zones):
        print(f"{zone}, {index + 1} of {len(zones)}, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
        tallies.append(_compare(zone, index))
    _show(tallies)
    print(f"took {time.monotonic() - started:.0f} s, {time.process_time() - cpu:.0f} s of it on the processor")
    for difference in [difference for tally in tallies for difference in tally.differences][:_SHOWN]:
        print(difference)
    sys.exit(any(tally.differences for tally in tallies))


def _compare(zone: str, index: int) -> Tally:
    """Compares one zone. The two whole years differ from zone to zone."""
    comparison = Comparison(zone)
    for transition in transitions(ZoneInfo(zone)):
        comparison.around(transition)
    year = _YEARS[index * 5 % (len(_YEARS) - 1)]
    comparison.through(year)
    comparison.through(year + 1)
    return comparison.tally


def _show(tallies: list[Tally]) -> None:
    line = "{:<32} {:>11} {:>5} {:>10} {:>10} {:>11}"
    print(line.format("zone", "transitions", "years", "cron forms", "firings", "differences"))
    total = Tally(f"{len(tallies)} zones")
    for tally in tallies:
        _row(line, tally)
        total.transitions += tally.transitions
        total.years += tally.years
        total.firings += tally.firings
        total.differences += tally.differences
    _row(line, total)


def _row(line: str, tally: Tally) -> None:
    counts = (tally.transitions, tally.years, len(FORMS), f"{tally.firings:,}", len(tally.differences))
    print(line.format(tally.zone, *counts))


if __name__ == "__main__":
    main()
