"""What many runs came to: how much happened, what was done to the processes, and which promises were not kept."""

from __future__ import annotations

import traceback
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tests.simulation.invariants import NAMES, Violation, violations
from tests.simulation.simulation import simulate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.simulation.simulation import Run

_ENTRIES: Final = ("grant", "started", "committed", "extended", "released", "lost", "scheduled", "unscheduled")
_TROUBLE: Final = ("killed", "stops", "suspended", "clock set")


@dataclass
class Tally:
    """Counts of what happened.

    Attributes:
        seeds: How many runs.
        entries: By their kind.
        faults: Of requests, by what was asked and what happened to it.
        violations: By invariant.
    """

    seeds: int = 0
    entries: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    violations: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, run: Run, found: Iterable[Violation]) -> Tally:
        """Returns the counts of one run."""
        return cls(
            1,
            Counter(str(entry.kind) for entry in run.entries),
            Counter(entry.detail for entry in run.entries if entry.kind == "fault"),
            cls.count(found),
        )

    @staticmethod
    def count(found: Iterable[Violation]) -> Counter[str]:
        """Returns how many violations there are of each invariant."""
        return Counter(violation.invariant for violation in found)

    def add(self, other: Tally) -> None:
        """Adds the counts of other runs."""
        self.seeds += other.seeds
        self.entries += other.entries
        self.faults += other.faults
        self.violations += other.violations

    def table(self) -> Iterator[str]:
        """Yields the lines of a table."""
        yield f"{'seeds':<24}{self.seeds:>12,}"
        yield f"{'entries':<24}{self.entries.total():>12,}"
        for title, kinds in (("what happened", _ENTRIES), ("to processes", _TROUBLE)):
            yield ""
            yield title
            yield from (f"  {kind:<22}{self.entries[kind]:>12,}" for kind in kinds)
        yield ""
        faults = sorted({fault.partition(" ")[2] for fault in self.faults})
        yield f"{'to requests':<24}" + "".join(f"{fault:>10}" for fault in faults)
        for operation in sorted({fault.partition(" ")[0] for fault in self.faults}):
            counts = (self.faults[f"{operation} {fault}"] for fault in faults)
            yield f"  {operation:<22}" + "".join(f"{count:>10,}" for count in counts)
        yield ""
        yield "violations"
        yield from (f"  {name:<22}{self.violations[name]:>12,}" for name in NAMES)


def audit(seed: int) -> tuple[int, Tally, list[Violation]]:
    """Runs a seed; returns it, its counts, and the promises that were not kept."""
    try:
        run = simulate(seed)
    except Exception as error:  # noqa: BLE001  # whatever comes out is a finding, and the other seeds are still to be run
        traceback.print_exception(error)
        found = [Violation("quiet", 0, "", f"the simulation ended with {error!r}")]
        return seed, Tally(seeds=1, violations=Tally.count(found)), found
    found = violations(run)
    return seed, Tally.of(run, found), found
