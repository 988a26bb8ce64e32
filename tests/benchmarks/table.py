"""The table of what was measured.

Knows: cases, figures and targets. Must not know: how they were measured.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.benchmarks.comparison import Case, Figure, Group

_HEAD = ("measured", "system", "where", "median", "spread", "ratio to", "target")


def show(groups: Iterable[Group]) -> None:
    """Prints a table in Markdown whose columns also line up as plain text."""
    lines = [_HEAD, *(line for group in groups for line in _lines(group))]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, tuple("-" * width for width in widths))
    for line in lines:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |")


def _lines(group: Group) -> Iterator[tuple[str, ...]]:
    for figure in group.figures:
        for case in group.cases:
            if values := case.values(figure.name):
                median, shown = statistics.median(values), figure.shown
                spread = f"{min(values):{shown}} to {max(values):{shown}}"
                ratios, verdicts = _ratios(case, figure), _verdicts(case, figure, median)
                yield (figure.title, case.system, case.where, f"{median:{shown}}", spread, ratios, verdicts)


def _ratios(case: Case, figure: Figure) -> str:
    ratios = ((case.ratio(figure.name, peer), peer.system) for peer in case.peers)
    return ", ".join(f"{_digits(ratio)}x {system}" for ratio, system in ratios if ratio is not None)


def _digits(ratio: float) -> str:
    return f"{ratio:.{1 if ratio >= 10 else 2 if ratio >= 0.1 else 4}f}"


def _verdicts(case: Case, figure: Figure, median: float) -> str:
    verdicts = []
    for target in case.targets.get(figure.name, ()):
        value = median if target.peer is None else case.ratio(figure.name, target.peer)
        assert value is not None, f"{target.words}: there is nothing to compare with"
        verdicts.append(f"{target.words}: {'reached' if target.is_reached(value) else 'MISSED'}")
    return ", ".join(verdicts)
