"""What is compared with what: cases that are measured in turn, and the targets that their medians have to reach.

Knows: measured values, by their names. Must not know: how they are measured, or how they are shown.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tests.benchmarks.progress import Progress

Values: TypeAlias = dict[str, float]


class Figure(NamedTuple):
    """One of the measured values: its name, its title in the table, and the format of its numbers."""

    name: str
    title: str
    shown: str


class Target(NamedTuple):
    """What a median has to reach.

    Attributes:
        sign: On which side of the bound it has to lie; the bound itself will do.
        bound: The number.
        peer: Whose value, in the same round, the bound is a multiple of; None for a bound that stands by itself.
        unit: What the number counts, for those who read it.
    """

    sign: Literal[">=", "<="]
    bound: float
    peer: Case | None = None
    unit: str = ""

    @property
    def words(self) -> str:
        return f"{self.sign} {self.bound:,g}{self.unit}" + (f"x {self.peer.system}" if self.peer else "")

    def is_reached(self, value: float) -> bool:
        """Tells whether the median, or the ratio to the peer, lies where it should."""
        return value >= self.bound if self.sign == ">=" else value <= self.bound


@dataclass(eq=False)
class Case:
    """One system in one situation.

    Attributes:
        system: Who is measured.
        where: The store, the event loop, and how much of it.
        measure: Takes one measurement, which may bring several values.
        peers: The cases that it is compared with in each round.
        targets: What has to be reached, by the name of the value.
        rounds: What was measured, one entry for each round.
    """

    system: str
    where: str
    measure: Callable[[], Values]
    peers: Sequence[Case] = ()
    targets: Mapping[str, Sequence[Target]] = field(default_factory=dict)
    rounds: list[Values] = field(default_factory=list)

    def values(self, name: str) -> list[float]:
        """Returns the value of each round; none if this case does not have it."""
        return [values[name] for values in self.rounds if name in values]

    def ratio(self, name: str, peer: Case) -> float | None:
        """Returns the median of the ratios within a round; None if one of the two has none, or not above zero."""
        pairs = list(zip(self.values(name), peer.values(name), strict=False))
        if not pairs or not all(own >= 0 and other > 0 for own, other in pairs):
            return None
        return statistics.median(own / other for own, other in pairs)


class Group(NamedTuple):
    """Cases that are measured in turn, and what is shown of each."""

    name: str
    cases: Sequence[Case]
    figures: Sequence[Figure]
    rounds: int

    def take(self, progress: Progress) -> None:
        """Takes all the rounds, and each case once in each of them."""
        for number in range(self.rounds):
            for case in self.cases:
                with progress.measuring(self.name, f"{number + 1}/{self.rounds}: {case.system}, {case.where}"):
                    case.rounds.append(case.measure())
