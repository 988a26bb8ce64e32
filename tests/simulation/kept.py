"""Seeds that have shown a fault: each is a file that says what it showed, and is run again by the tests.

A seed means something to the simulator and the engine that it was found with. Once either does other things, the same
seed is another run; what is found is therefore also shown by the smallest test there is, in tests/loop.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.simulation.invariants import Violation

DIRECTORY: Final = Path(__file__).parent / "seeds"

_MOST_SHOWN: Final = 10


def seeds() -> list[int]:
    """Returns the seeds that are kept, in their order."""
    return sorted(int(path.stem) for path in DIRECTORY.glob("*.json"))


def keep(seed: int, found: Sequence[Violation]) -> Path:
    """Writes a seed down with what it has shown, and returns its file; one that is there already stays as it is."""
    path = DIRECTORY / f"{seed}.json"
    if not path.exists():
        DIRECTORY.mkdir(exist_ok=True)
        text = json.dumps({"seed": seed, "showed": [violation.line() for violation in found[:_MOST_SHOWN]]}, indent=2)
        path.write_text(text + "\n", encoding="utf-8")
    return path
