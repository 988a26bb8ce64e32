"""The ledger: every start and end of an execution, by whichever process, in one file; and what has to be true of it.

Knows: the format, for the programs that write it and the tests that read it. Must not know: stores, processes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path

    from anyscheduler.lease import Row

SECOND = 1_000_000

_CLAIMED_AT_TOLERANCE = SECOND // 4
"""How far `Entry.claimed_at` may be off: by the time of one question to the store, on a loaded machine."""

# The kernel appends each write as a whole, whoever else appends. The clock is the system's, also in a process that was
# made to believe in another one.
WRITER = """
_ledger = os.open("ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def record(event, context):
    at = time.clock_gettime_ns(time.CLOCK_REALTIME) // 1000
    claimed_at = int(context.fence[:15], 16)
    words = (event, os.getpid(), context.task, micros(context.scheduled_at), claimed_at, at)
    os.write(_ledger, ("|".join(map(str, words)) + "\\n").encode())
"""


class Entry(NamedTuple):
    """A start or an end; instants are in microseconds since the epoch.

    Attributes:
        event: "begins" or "ends".
        pid: The process.
        task: The task, or the task and its instance.
        scheduled_at: The occurrence.
        claimed_at: When it was claimed, as the token of its lease tells.
        at: When it happened.
    """

    event: str
    pid: int
    task: str
    scheduled_at: int
    claimed_at: int
    at: int


def entries(directory: Path) -> list[Entry]:
    """Returns the ledger of the programs in a directory, in the order in which it was written."""
    path = directory / "ledger"
    # While programs write, the last line may not be seen as a whole.
    text = path.read_text(encoding="utf-8").rpartition("\n")[0] if path.exists() else ""
    lines = (line.split("|") for line in text.splitlines())
    return [
        Entry(event, int(pid), task, int(scheduled_at), int(claimed_at), int(at))
        for event, pid, task, scheduled_at, claimed_at, at in lines
    ]


def of_event(event: str, ledger: Iterable[Entry]) -> list[Entry]:
    """Returns the entries of one event."""
    return [entry for entry in ledger if entry.event == event]


def starts_by_occurrence(ledger: Iterable[Entry]) -> dict[tuple[str, int], list[Entry]]:
    """Returns the starts of each task and occurrence, in the order in which they happened."""
    starts: dict[tuple[str, int], list[Entry]] = defaultdict(list)
    for entry in sorted(of_event("begins", ledger), key=lambda entry: entry.at):
        starts[entry.task, entry.scheduled_at].append(entry)
    return starts


def assert_none_early(ledger: Iterable[Entry]) -> None:
    """No execution began before it was due."""
    early = [entry for entry in of_event("begins", ledger) if entry.at < entry.scheduled_at]
    assert not early, early


def assert_none_doubled(ledger: Iterable[Entry]) -> None:
    """No occurrence began twice."""
    doubled = [starts for starts in starts_by_occurrence(ledger).values() if len(starts) > 1]
    assert not doubled, doubled


def assert_repeated_after_its_lease_only(ledger: Iterable[Entry], lease: int) -> None:
    """An occurrence that began again did so after the lease of the execution before it had ended."""
    early = [
        (before, after)
        for starts in starts_by_occurrence(ledger).values()
        for before, after in pairwise(starts)
        if after.at < before.claimed_at + lease - _CLAIMED_AT_TOLERANCE
    ]
    assert not early, early


def assert_none_skipped(ledger: Iterable[Entry], rows: Mapping[str, Row], interval: int) -> None:
    """Each task in the store ended in each of its occurrences, from its first one to the next that is due."""
    runs: dict[str, set[int]] = defaultdict(set)
    for entry in of_event("ends", ledger):
        runs[entry.task].add(entry.scheduled_at)
    for key, row in rows.items():
        instants = [*sorted(runs[key]), row.due_at]
        gaps = [(before, after) for before, after in pairwise(instants) if after - before != interval]
        assert not gaps, (key, gaps)
        assert len(instants) > 1, f"{key} never ended"


def assert_nothing_is_leased(rows: Mapping[str, Row]) -> None:
    """Nobody holds a schedule, nor does one wait for another attempt."""
    held = [row for row in rows.values() if row.claimable_at > row.due_at]
    assert not held, held


def assert_work_is_shared(ledger: Iterable[Entry], pids: Collection[int]) -> None:
    """No process began less than a tenth of what it would have begun if all had been equally fast."""
    shares = Counter(entry.pid for entry in of_event("begins", ledger))
    assert shares.keys() == set(pids), shares
    assert min(shares.values()) > shares.total() / len(pids) / 10, shares
