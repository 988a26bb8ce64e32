"""Logs written by hand, for the tests of the checkers: what happened when, in seconds from the begin of the load.

Knows: lines. Must not know: what is wrong with any of them.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from tests.soak.invariants import check
from tests.soak.log import Facts, Kind, Line, TaskFacts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.soak.log import Violation

AHEAD: Final = 1_800_000_000_000_000
"""How far the store's clock is ahead of CLOCK_MONOTONIC here, in microseconds."""

LEASE: Final = 3.0
PLAIN = TaskFacts("plain", "plain", at_most_once=False, interval=1_000_000)
SKIPPING = TaskFacts("skipping", "plain", at_most_once=False, interval=1_000_000, fast_forward=True)
MOST = TaskFacts("most", "plain", at_most_once=True, interval=1_000_000)
ONCE = TaskFacts("once", "once", at_most_once=False, interval=None)
CHURN = TaskFacts("churn", "churn", at_most_once=False, interval=None)
CORRUPT = TaskFacts("corrupt", "corrupt", at_most_once=False, interval=None)
_END: Final = 1_000.0
FACTS = Facts("redis", "trio", 7, 60.0, 0, 0, LEASE, 1.0, 2, ())


def micros(seconds: float) -> int:
    return round(seconds * 1e6)


def stored(seconds: float | None) -> int | None:
    """Returns an instant of the run as the store keeps it."""
    return None if seconds is None else AHEAD + micros(seconds)


class Log:
    """A log that grows, and in the end is checked.

    Args:
        *tasks: The load.
        end: When the last fault was over, in seconds. From seven seconds before that on nothing is asked of schedules.
    """

    def __init__(self, *tasks: TaskFacts, end: float = 0.0) -> None:
        self.facts = replace(FACTS, tasks=tasks, end=micros(end))
        self.lines: list[Line] = []
        self.outputs: dict[str, str] = {}

    def add(
        self,
        kind: Kind,
        at: float,
        process: str,
        key: str = "",
        due: float | None = None,
        *,
        token: str = "",
        until: float | None = None,
        detail: str = "",
        store: float | None = None,
    ) -> None:
        """Adds a line of the moment `at`; the engine tells the store's time of `store`, else of `at`."""
        if process != "driver" and store is None:
            store = at
        self.lines.append(
            Line(kind, process, micros(at), stored(store), key, stored(due), token, stored(until), detail)
        )

    def granted(
        self, at: float, process: str, key: str, due: float, token: str, *, logged: float | None = None
    ) -> None:
        """Adds a claim, for a lease from `at` on; its line is written when `logged` says, else at once."""
        logged = at if logged is None else logged
        self.add(Kind.GRANT, logged, process, key, due, token=token, until=at + LEASE, store=at)

    def started(self, at: float, process: str, key: str, due: float, token: str) -> None:
        self.add(Kind.START, at, process, key, due, token=token)

    def ended(self, at: float, process: str, key: str, due: float, token: str, *, outcome: str = "succeeded") -> None:
        self.add(Kind.END, at, process, key, due, token=token, detail=outcome)

    def sent(self, at: float, process: str, key: str, due: float, token: str, *, kind: str) -> None:
        self.add(Kind.SENT, at, process, key, due, token=token, detail=kind)

    def committed(
        self,
        at: float,
        process: str,
        key: str,
        due: float,
        token: str,
        *,
        then: float | None,
        sent: float | None = None,
    ) -> None:
        """Adds a commit that is sent when `sent` says, else at once, and its answer; `then` is the next run."""
        self.sent(at if sent is None else sent, process, key, due, token, kind="committed")
        self.add(Kind.COMMIT_ACK, at, process, key, due, token=token, until=then)

    def extended(self, at: float, process: str, key: str, due: float, token: str, *, sent: float | None = None) -> None:
        sent = at if sent is None else sent
        self.sent(sent, process, key, due, token, kind="extended")
        self.add(Kind.EXTEND_ACK, at, process, key, due, token=token, until=sent + LEASE)

    def released(
        self, at: float, process: str, key: str, due: float, token: str, *, until: float | None = None
    ) -> None:
        self.sent(at, process, key, due, token, kind="released")
        self.add(Kind.RELEASE, at, process, key, due, token=token, until=due if until is None else until)

    def lost(
        self, at: float, process: str, key: str, due: float, token: str, *, kind: str, why: str, sent: float
    ) -> None:
        self.sent(sent, process, key, due, token, kind=kind)
        self.add(Kind.LOST, at, process, key, due, token=token, detail=why)

    def executed(self, at: float, process: str, key: str, due: float, token: str, *, then: float | None) -> None:
        """Adds an occurrence that is claimed at `at` and settled 40 ms later, at least once."""
        self.granted(at, process, key, due, token)
        self.started(at + 0.01, process, key, due, token)
        self.ended(at + 0.03, process, key, due, token)
        self.committed(at + 0.04, process, key, due, token, then=then)

    def registered(self, at: float, process: str, key: str, *, due: float, token: str = "r") -> None:
        """Adds that the engine has stored a schedule."""
        self.add(Kind.REG_ACK, at, process, key, due, token=token)

    def asked(self, at: float, process: str, key: str, detail: str, *, due: float | None = None) -> None:
        """Adds that the app asks for a schedule: `detail` is its interval in microseconds, or "once"."""
        self.lines.append(Line(Kind.REG_SENT, process, micros(at), key=key, due=stored(due), detail=detail))

    def scheduled(self, at: float, process: str, key: str, detail: str, *, due: float) -> None:
        """Adds a schedule that is asked for, stored 10 ms later, and confirmed to the app after other 10 ms."""
        self.asked(at, process, key, detail, due=due if detail == "once" else None)
        self.registered(at + 0.01, process, key, due=due)
        self.lines.append(Line(Kind.REG_DONE, process, micros(at + 0.02), key=key, detail=detail))

    def removed(self, at: float, process: str, key: str) -> None:
        """Adds a schedule that the app removes, and the answers of engine and app 10 and 20 ms later."""
        self.lines.append(Line(Kind.UNREG_SENT, process, micros(at), key=key))
        self.add(Kind.UNREG_ACK, at + 0.01, process, key)
        self.lines.append(Line(Kind.UNREG_ACK, process, micros(at + 0.02), key=key))

    def driver(self, kind: Kind, at: float, detail: str, process: str = "driver") -> None:
        """Adds a line of the driver; a fault names its process in `detail`, everything else in `process`."""
        self.lines.append(Line(kind, process, micros(at), detail=detail))

    def row(self, key: str, due: float, token: str = "t", *, until: float | None = None) -> None:
        """Adds what the store has in the end."""
        until = due if until is None else until
        self.lines.append(
            Line(Kind.ROW, "driver", micros(_END), None, key, stored(due), token, stored(until), key.partition(":")[0])
        )

    def sample(self, at: float, process: str, *, bodies: int = 0, rss_kib: int = 40_000, connections: int = 2) -> None:
        counted = {"bodies": bodies, "rss_kib": rss_kib, "threads": 3, "connections": connections}
        self.lines.append(Line(Kind.OPEN, process, micros(at), detail=json.dumps(counted)))

    def check(self) -> Sequence[Violation]:
        """Returns the violations that are found."""
        lines = sorted([*_clocks(), *self.lines, *self._other_rows()], key=lambda line: line.mono)
        return check(lines, self.facts, self.outputs)

    def _other_rows(self) -> list[Line]:
        """Returns the rows of static tasks that no test speaks of: due when the last commit says."""
        told = {line.key for line in self.lines if line.kind is Kind.ROW}
        due = {
            line.key: line.until if line.kind is Kind.COMMIT_ACK else line.due
            for line in self.lines
            if line.kind in {Kind.GRANT, Kind.REG_ACK, Kind.COMMIT_ACK}
        }
        static = [task.name for task in self.facts.tasks if task.is_static and task.name not in told]
        return [Line(Kind.ROW, "driver", micros(_END), key=name, due=due.get(name), detail=name) for name in static]

    @property
    def broken(self) -> list[str]:
        """The names of the invariants that were violated, each as often as it was."""
        return [violation.invariant for violation in self.check()]


def _clocks() -> list[Line]:
    """Returns claims by processes that were prompt with their lines, from which all clocks are known."""
    return [
        Line(Kind.GRANT, f"{slot}.0", 0, AHEAD, "elsewhere", AHEAD, f"{slot}", AHEAD + micros(LEASE))
        for slot in (7, 8, 9)
    ]
