"""What has to hold, whatever was broken: fifteen invariants, each a function from the history of a run to violations.

Knows: the invariants and their order in the table. Must not know: how any of them is found out.

history.py brings the log in the order of records.py; leases.py, schedules.py, processes.py, lateness.py and remains.py
each hold the invariants of their subject. All take a time that is linear in the log, but for sorting.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.soak.invariants.history import History
from tests.soak.invariants.lateness import fair, not_early, poison
from tests.soak.invariants.leases import cause, final, once, one_lease
from tests.soak.invariants.processes import bound, heal, stop
from tests.soak.invariants.remains import clean, quiet
from tests.soak.invariants.schedules import next_run, no_loss, registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from tests.soak.log import Facts, Line, Violation

    Check = Callable[[History, Mapping[str, str]], Iterable[Violation]]


def _of_log(check: Callable[[History], Iterable[Violation]]) -> Check:
    """Returns a check that does not look at what the processes printed."""
    return lambda history, _outputs: check(history)


_CHECKS: Final[Mapping[str, Check]] = {
    "no-loss": _of_log(no_loss),
    "once": _of_log(once),
    "cause": _of_log(cause),
    "one-lease": _of_log(one_lease),
    "final": _of_log(final),
    "next": _of_log(next_run),
    "clean": _of_log(clean),
    "not-early": _of_log(not_early),
    "fair": _of_log(fair),
    "bound": _of_log(bound),
    "stop": _of_log(stop),
    "heal": _of_log(heal),
    "registry": _of_log(registry),
    "poison": poison,
    "quiet": quiet,
}

NAMES: Final = tuple(_CHECKS)
"""The names, in the order of the table."""


def check(lines: Sequence[Line], facts: Facts, outputs: Mapping[str, str]) -> Sequence[Violation]:
    """Returns what did not hold in a run.

    Args:
        lines: Its log, ordered by time.
        facts: What is known of it besides.
        outputs: What each process has printed, by the name of the process.

    Returns:
        The violations, ordered by the table, and by what happened first where one check finds several.
    """
    history = History(lines, facts)
    return [
        violation
        for find in _CHECKS.values()
        for violation in sorted(find(history, outputs), key=lambda violation: violation.mono)
    ]
