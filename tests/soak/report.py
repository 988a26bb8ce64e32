"""What came of a soak: the files of one run, checked and counted, as one table.

Knows: logs, the checkers. Must not know: how the run was driven.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.soak import invariants
from tests.soak.log import Facts, Kind, read_log
from tests.soak.plan import LEAST_HITS, WINDOWS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.soak.log import Line, Violation

_SHOWN: Final = 8
_ACTIONS: Final = ("kill", "stop", "error", "lost", "delay")
_LEAST: Final = {"kills": 30, "stops": 9, "server restarts": 3}
"""How many of them a minute has at least."""


@dataclass(frozen=True, slots=True)
class Report:
    """One run.

    Attributes:
        facts: What it was.
        counts: How often things happened, by name.
        hits: How often each window and action was hit.
        violations: What did not hold.
    """

    facts: Facts
    counts: dict[str, int]
    hits: Counter[tuple[str, str]]
    violations: Sequence[Violation]

    @property
    def missing(self) -> list[str]:
        """Why the run says nothing, however green it is."""
        needed = {name: int(least * self.facts.seconds / 60) for name, least in _LEAST.items() if name in self.counts}
        by_window = {window: sum(self.hits[window, action] for action in _ACTIONS) for window in WINDOWS}
        return [
            *(
                f"only {self.counts[name]} {name}, {least} are needed"
                for name, least in needed.items()
                if self.counts[name] < least
            ),
            *(
                f"{window} was hit {hits} times, {LEAST_HITS} are needed"
                for window, hits in by_window.items()
                if hits < LEAST_HITS
            ),
        ]

    @property
    def holds(self) -> bool:
        """Whether the run says that all promises were kept."""
        return not self.missing and not self.violations

    def __str__(self) -> str:
        return "\n".join(self._told())

    def _told(self) -> Iterator[str]:
        facts = self.facts
        planted = f", mutant {facts.mutant}" if facts.mutant else ""
        yield f"soak: {facts.store}, {facts.loop}, {facts.seconds:g} s, seed {facts.seed}{planted}"
        for name, count in self.counts.items():
            yield f"  {name:<24}{count:>8}"
        yield f"  {'failpoint hits':<24}" + "".join(f"{action:>8}" for action in _ACTIONS)
        for window in WINDOWS:
            yield f"    {window:<22}" + "".join(f"{self.hits[window, action]:>8}" for action in _ACTIONS)
        found = Counter(violation.invariant for violation in self.violations)
        yield "  violations"
        for name in invariants.NAMES:
            yield f"    {name:<22}{found[name]:>8}"
        for name in invariants.NAMES:
            for violation in [each for each in self.violations if each.invariant == name][:_SHOWN]:
                yield f"  {name} at {(violation.mono - facts.begin) / 1e6:.3f} s: {violation.message}"
        for reason in self.missing:
            yield f"  INVALID: {reason}"


def report_on(directory: Path) -> Report:
    """Reads the files of a run, and checks them."""
    facts = Facts.read(directory / "facts.json")
    lines = read_log(sorted(directory.glob("*.log")))
    outputs = {path.stem: path.read_text(errors="replace") for path in sorted(directory.glob("*.out"))}
    hits: Counter[tuple[str, str]] = Counter()
    for line in lines:
        if line.kind is Kind.FAILPOINT:
            window, _, action = line.detail.rpartition(" ")
            hits[window, action] += 1
    return Report(facts, _counts(lines, facts), hits, invariants.check(lines, facts, outputs))


def _counts(lines: Sequence[Line], facts: Facts) -> dict[str, int]:
    kinds = Counter(line.kind for line in lines)
    during = Counter((line.kind, line.detail) for line in lines if line.mono <= facts.end)
    faults = Counter(line.detail.split()[0] for line in lines if line.kind is Kind.FAULT)
    if facts.store == "sqlite":
        own = {"holds of the file": faults["sqlite"]}
    else:
        own = {
            "server restarts": faults["restart"] + faults["crash"],
            "connections cut": faults["cut"] + faults["refuse"] + faults["hold"],
        }
    return {
        "executions": kinds[Kind.START],
        "commits": kinds[Kind.COMMIT_ACK],
        "processes": kinds[Kind.BEGIN],
        "kills": during[Kind.EXIT, "-9"],
        "stops": faults["stop"],
        "SIGTERMs": during[Kind.SIGNAL, "SIGTERM"],
        **own,
        "log lines": len(lines),
    }
