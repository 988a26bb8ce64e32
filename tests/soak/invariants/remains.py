"""What is left behind, in the store and in the output of the processes: clean, quiet.

Knows: rows, index entries, samples, output. Must not know: in which order anything happened.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from typing import TYPE_CHECKING, Final

from tests.servers.process import PASSWORD, QUOTED_PASSWORD
from tests.soak.log import Kind, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.soak.invariants.history import History
    from tests.soak.invariants.records import Lease

_WARM: Final = 5
"""After so many samples, one in a second, a process has opened what it needs."""

_LASTING: Final = 5
"""In so many samples one after the other shows what stays; a call that is being given up has connections for less."""

_GROWTH: Final = {"rss_kib": 12 * 1024, "connections": 4}
"""By how much a warm process may still grow."""

_SECRETS: Final = ("canary", PASSWORD, QUOTED_PASSWORD)
_TRACEBACK: Final = "Traceback (most recent call last):"
_EXPECTED: Final = re.compile(r"ValueError: this body raises every other time|(\w+\.)*Cancelled(Error)?\b")
"""The last line of a traceback that a body of the load wants."""


def clean(history: History) -> Iterator[Violation]:
    """Nothing is left in the store that belongs to nobody.

    After draining: no row of a finished once-off, no index entry without row or row without entry, no lease of a worker
    that stopped gracefully.
    """
    for line in history.lines:
        if line.kind is Kind.ORPHAN:
            yield Violation("clean", line.mono, line.detail)
    for key, row in history.rows.items():
        for lease in history.leases.get(key, ()):
            if lease.commit is not None and lease.commit.until is None and lease.due == row.due:
                yield Violation("clean", row.mono, f"{lease} was finished, and its row is still there")
            if row.token == lease.granted.token and history.processes[lease.granted.process].code == 0:
                yield Violation("clean", row.mono, f"{lease} is still held, and its process has stopped gracefully")
    for process in history.processes.values():
        if process.code == 0:
            for lease in history.by_process[process.name]:
                if lease.starts and not _is_settled(lease):
                    message = f"{lease} was never settled, and its process has stopped gracefully"
                    yield Violation("clean", lease.granted.mono, message)


def quiet(history: History, outputs: Mapping[str, str]) -> Iterator[Violation]:
    """No traceback outside the expected list, flat memory and connections after warm-up, no password in any log."""
    for name, output in outputs.items():
        process = history.processes.get(name)
        at = history.facts.end if process is None or process.ended is None else process.ended
        for last in _tracebacks(output):
            if not _EXPECTED.match(last):
                yield Violation("quiet", at, f"{name} has a traceback that ends with {last!r}")
        if any(secret in output for secret in _SECRETS):
            yield Violation("quiet", at, f"{name} has written the password to its output")
    for line in history.lines:
        if any(secret in line.detail for secret in _SECRETS):
            yield Violation("quiet", line.mono, f"{line.process} has the password in its log")
    yield from _growth(history)


def _is_settled(lease: Lease) -> bool:
    """Tells whether the store has answered for an execution, or has told it before that it is somebody else's."""
    if any(end.detail == "lease_lost" for end in lease.ends):
        return True
    return any(write.answer is not None for write in lease.writes if write.kind != "extended")


def _tracebacks(output: str) -> Iterator[str]:
    """Yields the last line of each traceback: the first one behind its head that is not indented."""
    is_open = False
    for line in output.splitlines():
        if line == _TRACEBACK:
            is_open = True
        elif is_open and line and not line[0].isspace():
            is_open = False
            yield line


def _growth(history: History) -> Iterator[Violation]:
    """Finds processes that still grow when they are warm, and keep what they have taken."""
    samples: dict[str, list[tuple[int, dict[str, int]]]] = defaultdict(list)
    for line in history.lines:
        if line.kind is Kind.OPEN:
            samples[line.process].append((line.mono, json.loads(line.detail)))
    for name, of_process in samples.items():
        for what, allowed in _GROWTH.items():
            before = max(sample[what] for _, sample in of_process[:_WARM])
            for last in range(_WARM + _LASTING, len(of_process) + 1):
                after = min(sample[what] for _, sample in of_process[last - _LASTING : last])
                if after > before + allowed:
                    at = of_process[last - 1][0]
                    yield Violation("quiet", at, f"{name} has grown from {before} to {after}: {what}")
                    break
