"""Says on standard error what is measured now, and how long the rest will take.

Knows: how long a case of each group takes. Must not know: what it measures.
"""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_SECONDS = {
    "drain": 3.5,
    "recurring": 2.0,
    "sizes": 25.0,
    "workers": 18.0,
    "registering": 6.0,
    "idle": 60.0,
    "churn": 120.0,
    "lateness": 6.0,
    "wake-up": 7.0,
    "keep-up": 26.0,
    "start": 1.5,
    "memory": 2.5,
    "import": 0.7,
}
"""What a case took on two cores; it counts until the first one of its group has been measured."""
_SECONDS_IF_QUICK = 4.0


class Progress:
    """Counts what has been measured.

    Args:
        cases: How many measurements each group takes, in the order in which they are taken.
        is_quick: Whether they are short ones.
    """

    def __init__(self, cases: Mapping[str, int], *, is_quick: bool) -> None:
        self._left = dict(cases)
        self._pace = {name: _SECONDS_IF_QUICK if is_quick else _SECONDS[name] for name in cases}
        self._taken: dict[str, list[float]] = {name: [] for name in cases}

    @contextmanager
    def measuring(self, group: str, what: str) -> Iterator[None]:
        """Says that this is measured now, and learns how long it takes."""
        done, left = sum(map(len, self._taken.values())), sum(self._left.values())
        print(f"[{done + 1} of {done + left}, {self._minutes_left():.0f} min left] {group} {what}", file=sys.stderr)
        started = time.monotonic()
        yield
        taken = self._taken[group]
        taken.append(time.monotonic() - started)
        self._left[group] -= 1
        self._pace[group] = sum(taken) / len(taken)

    def _minutes_left(self) -> float:
        return sum(self._pace[group] * count for group, count in self._left.items()) / 60
