"""Each invariant can be broken: histories made by hand, and what the checkers find in them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from anyscheduler.lease import Row
from tests.simulation.history import Entry
from tests.simulation.invariants import NAMES, violations
from tests.simulation.machine import BEGINNING
from tests.simulation.plan import Plan
from tests.simulation.simulation import Run

if TYPE_CHECKING:
    from collections.abc import Sequence

PLAN = replace(Plan.of(0), tasks=frozenset({"tick"}), concurrency_limit=1, patience=0.5)
"""`tick` is due every 0.7 seconds, from 0.7 on."""

ONCE_OFF = json.dumps({"v": 1, "execute_at": BEGINNING + 1_000_000, "args": {"call": 1}})
EVERY = json.dumps({"v": 1, "interval": 800_000, "args": {"call": 1}})
EVERY_AGAIN = EVERY.replace('"call": 1', '"call": 2')


def instant(seconds: float) -> int:
    return BEGINNING + round(seconds * 1e6)


def row(key: str, due: float, token: int = 0, *, until: float = 0, spec: str = "") -> Row:
    """Returns a row; under a lease `until` then."""
    return Row(key, key.partition(":")[0], instant(due), instant(max(due, until)), f"{token:015x}", spec, "")


def entry(at: float, kind: str, key: str = "tick", *, who: str = "0.0", **more: Any) -> Entry:
    for name in ("due", "until"):
        if name in more:
            more[name] = instant(more[name])
    if "token" in more:
        more["token"] = f"{more['token']:015x}"
    return Entry(instant(at), who, kind, key, **more)


def write(at: float, before: Row | None, after: Row | None, *, who: str = "0.0") -> Entry:
    key = next(row.key for row in (before, after) if row is not None)
    return entry(at, "write", key, who=who, before=before, after=after)


def asks(at: float, verb: str, key: str, *, call: int, force: bool = False) -> Entry:
    return entry(at, f"asks to {verb}", key, call=call, detail="force" if force else "")


def answered(at: float, verb: str, key: str, *, call: int, answer: str = "done") -> Entry:
    return entry(at, f"{verb} answered", key, call=call, detail=answer)


def claim(at: float, before: Row, token: int, *, until: float, who: str = "0.0") -> list[Entry]:
    """A claim that arrives, and whose reply does."""
    after = before._replace(claimable_at=instant(until), token=f"{token:015x}")
    due = (before.due_at - BEGINNING) / 1e6
    return [
        entry(at, "grant", before.key, who=who, due=due, token=token, before=before, after=after),
        entry(at, "claimed", before.key, who=who, due=due, token=token, until=until),
    ]


def start(at: float, token: int, *, key: str = "tick", due: float = 0.7, who: str = "0.0") -> Entry:
    return entry(at, "started", key, who=who, due=due, token=token)


def end(at: float, token: int, outcome: str = "succeeded", *, key: str = "tick", who: str = "0.0") -> Entry:
    return entry(at, "ended", key, who=who, token=token, detail=outcome)


def commit(at: float, before: Row, after: Row | None, *, who: str = "0.0") -> list[Entry]:
    """A commit that is sent, arrives, and is answered."""
    held = before.key, (before.due_at - BEGINNING) / 1e6, int(before.token, 16)
    until = {} if after is None else {"until": (after.claimable_at - BEGINNING) / 1e6}
    return [
        entry(at, "sent", held[0], who=who, due=held[1], token=held[2], detail="committed"),
        write(at, before, after, who=who),
        entry(at, "committed", held[0], who=who, due=held[1], token=held[2], **until),
    ]


def held(free: Row, token: int) -> Row:
    """Returns a row as a claim until 3.0 leaves it."""
    return free._replace(claimable_at=instant(3), token=f"{token:015x}")


FIRST = write(0, None, row("tick", 0.7))
FREE, HELD = row("tick", 0.7), row("tick", 0.7, 1, until=3)
CLAIM, START, END = claim(0.8, FREE, 1, until=3), start(0.8, 1), end(0.9, 1)
COMMIT = commit(1, HELD, row("tick", 1.4, 2))
EXECUTED = [FIRST, *CLAIM, START, END, *COMMIT]
EXIT, LATE_EXIT = (entry(at, "exits", "", detail="graceful") for at in (2, 3.2))

# At most once: every 0.9 seconds, from 0.9 on.
ONCE_FREE, ONCE_HELD = row("once_each", 0.9), row("once_each", 0.9, 1, until=3)
ONCE_CLAIM = claim(1, ONCE_FREE, 1, until=3)
ONCE_COMMIT = commit(1, ONCE_HELD, row("once_each", 1.8, 2))
ONCE_FIRST = [FIRST, write(0, None, ONCE_FREE), *ONCE_CLAIM]
ONCE_START = start(1.1, 1, key="once_each", due=0.9)
ONCE_END = end(1.2, 1, key="once_each")

INSTANCE = row("repeated:a", 0.8, spec=EVERY)
REGISTERED = [FIRST, asks(0, "register", "repeated:a", call=1), write(0, None, INSTANCE)]
CHANGED = asks(0.5, "register", "repeated:a", call=2)

# One that a user replaces while it is claimed; the process that claimed it does not hear what became of its commit.
LAST = [row("at_most_once:a", 1, call, spec=ONCE_OFF.replace(": 1}}", f": {call}}}}}")) for call in (1, 2)]
REPLACED = [
    *(FIRST, asks(0, "register", "at_most_once:a", call=1), write(0, None, LAST[0])),
    *claim(1.1, LAST[0], 7, until=3),
    *(asks(1.2, "register", "at_most_once:a", call=2, force=True), write(1.2, held(LAST[0], 7), LAST[1])),
]
EXECUTED_BY_ANOTHER = [
    *claim(1.3, LAST[1], 8, until=3, who="1.0"),
    *commit(1.4, held(LAST[1], 8), None, who="1.0"),
    start(1.5, 8, key="at_most_once:a", due=1, who="1.0"),
]
REPLACED_START = start(1.6, 7, key="at_most_once:a", due=1)

FORWARD_FREE, FORWARD_HELD = row("forward", 0.4), row("forward", 0.4, 1, until=3)
"""Due every 0.4 seconds, and skips what is past."""
FORWARD = [
    *(FIRST, write(0, None, FORWARD_FREE), *claim(0.5, FORWARD_FREE, 1, until=3)),
    *(start(0.5, 1, key="forward", due=0.4), end(0.7, 1, key="forward")),
]

# The lease that is known until 3 is extended until 5, and the process does not hear of it.
EXTENDED = [
    FIRST,
    *CLAIM,
    START,
    entry(1, "fault", "", detail="write lost"),
    write(1, HELD, HELD._replace(claimable_at=instant(5))),
]
EXTENSION_AFTER_COMMIT = [
    *(FIRST, *CLAIM, START, END, entry(0.9, "fault", "", detail="write slow"), COMMIT[0]),
    *(write(1, HELD, HELD._replace(claimable_at=instant(3.1))), *COMMIT[1:]),
]

ONLY_FIRST = [
    *(FIRST, asks(0, "register", "at_most_once:a", call=1), write(0, None, LAST[0])),
    *claim(1.05, LAST[0], 1, until=3),
]
ONLY_COMMIT = commit(1.1, held(LAST[0], 1), None)
ONLY_REFUSED = entry(1.2, "lost", "at_most_once:a", due=1, token=1, detail="refused")
ONLY_RELEASE = entry(1.2, "sent", "at_most_once:a", due=1, token=1, detail="released")
ONLY_GIVEN_UP = ONLY_REFUSED._replace(detail="given up")
# The users of a process remove what it is about to commit.
REMOVED_FIRST = [
    *(*ONLY_FIRST, asks(1, "unregister", "at_most_once:a", call=2), *ONLY_COMMIT[:2]),
    *(answered(1.15, "unregister", "at_most_once:a", call=2), ONLY_REFUSED, EXIT),
]


@pytest.mark.parametrize(
    "entries",
    [
        EXECUTED,
        REMOVED_FIRST,
        # What a start at most once has removed is put back only once.
        [*ONLY_FIRST, *ONLY_COMMIT, ONLY_RELEASE, ONLY_GIVEN_UP],
        [*ONLY_FIRST, *ONLY_COMMIT, ONLY_RELEASE, write(1.15, None, LAST[0]), ONLY_GIVEN_UP],
        [*REPLACED, *EXECUTED_BY_ANOTHER, REPLACED_START],
        [*EXECUTED, *claim(1.5, row("tick", 1.4, 2), 3, until=4), start(1.5, 3, due=1.4)],
        [*ONCE_FIRST, *ONCE_COMMIT, ONCE_START, ONCE_END, EXIT],
        [*REGISTERED, answered(0.1, "register", "repeated:a", call=1)],
        [*REGISTERED, CHANGED, write(0.5, INSTANCE, row("repeated:a", 0.8, 1, spec=EVERY_AGAIN))],
        [*REGISTERED, asks(1, "unregister", "repeated:a", call=2), write(1, INSTANCE, None)],
        [*REGISTERED, CHANGED, answered(0.6, "register", "repeated:a", call=2, answer="failed")],
        [*FORWARD, *commit(0.79, FORWARD_HELD, row("forward", 1.2, 2))],
        [*EXTENDED, end(3, 1, "lease_lost"), LATE_EXIT],
        EXTENSION_AFTER_COMMIT,
    ],
)
def test_a_history_that_is_as_promised_breaks_nothing(entries: Sequence[Entry]) -> None:
    assert found(entries) == []


BROKEN: dict[str, list[tuple[str, list[Entry]]]] = {
    "once": [
        ("twice", [*ONCE_FIRST, *ONCE_COMMIT, ONCE_START, ONCE_END, ONCE_START]),
        ("before the next is written", [*ONCE_FIRST, ONCE_START]),
        ("replaced, and still there", [*REPLACED, REPLACED_START]),
    ],
    "cause": [("somebody else's", [FIRST, *CLAIM, *claim(3.1, HELD, 2, until=5, who="1.0"), start(3.2, 1)])],
    "leased": [("over", [FIRST, *CLAIM, start(3.1, 1)])],
    "one-lease": [
        ("not over", [FIRST, *CLAIM, *claim(2.9, HELD, 2, until=5, who="1.0")]),
        ("not granted", [FIRST, *CLAIM, start(0.8, 7)]),
    ],
    "fence": [
        (
            "smaller",
            [
                FIRST,
                *claim(0.8, FREE, 5, until=3),
                start(0.8, 5),
                *claim(3.1, HELD, 4, until=6, who="1.0"),
                start(3.1, 4, who="1.0"),
            ],
        )
    ],
    "final": [
        ("granted again", [*EXECUTED, *claim(1.1, row("tick", 0.7, 3), 4, until=3)]),
        (
            "given back after its start",
            [
                *ONCE_FIRST,
                *ONCE_COMMIT,
                ONCE_START,
                ONCE_END,
                write(1.3, row("once_each", 1.8, 2), row("once_each", 0.9, 3)),
            ],
        ),
    ],
    "no-loss": [
        ("not executed", [FIRST, *CLAIM, *COMMIT]),
        ("failed", [FIRST, *CLAIM, START, end(0.9, 1, "failed"), *COMMIT]),
        ("overdue", [*EXECUTED, entry(300, "overdue")]),
        ("not stored", [entry(1, "calm")]),
    ],
    "lost": [
        ("not started", [*ONCE_FIRST, *ONCE_COMMIT, EXIT]),
        ("refused", [*ONLY_FIRST, *ONLY_COMMIT[:2], ONLY_REFUSED, EXIT]),
        ("not refused", [entry for entry in REMOVED_FIRST if entry is not ONLY_REFUSED]),
    ],
    "next": [
        ("later", [FIRST, *CLAIM, START, END, *commit(1, HELD, row("tick", 2.1, 2))]),
        ("not past", [*FORWARD, *commit(0.75, FORWARD_HELD, row("forward", 1.2, 2))]),
    ],
    "not-early": [
        ("claimed", [FIRST, *claim(0.6, FREE._replace(claimable_at=0), 1, until=3)]),
        ("started", [FIRST, *claim(0.8, FREE, 1, until=3), start(0.6, 1)]),
    ],
    "bound": [
        (
            "two bodies",
            [*EXECUTED[:-4], write(0, None, ONCE_FREE), *ONCE_CLAIM, *ONCE_COMMIT, ONCE_START],
        )
    ],
    "stop": [
        ("claims", [FIRST, entry(1, "stops", ""), entry(1.1, "asks to claim", "")]),
        ("hangs", [FIRST, entry(1, "hangs", "")]),
        ("leaves a lease", [FIRST, *CLAIM, START, END, EXIT]),
        ("leaves a lease that it knows of", [*EXTENDED, end(1.5, 1, "cancelled"), EXIT]),
        ("leaves an extension without trouble", [*(one for one in EXTENDED if one.kind != "fault"), LATE_EXIT]),
    ],
    "registry": [
        ("removed by itself", [*REGISTERED, write(1, INSTANCE, None)]),
        ("registered by itself", [FIRST, write(0, None, INSTANCE)]),
        ("registered twice", [FIRST, write(1, FREE, row("tick", 1.7, 1))]),
        ("not stored", [*REGISTERED[:2], answered(1, "register", "repeated:a", call=1)]),
        (
            "not removed",
            [*REGISTERED, asks(1, "unregister", "repeated:a", call=2), answered(1, "unregister", "repeated:a", call=2)],
        ),
        ("postponed", [*REGISTERED, CHANGED, write(0.5, INSTANCE, row("repeated:a", 1.3, 1, spec=EVERY_AGAIN))]),
        (
            "not postponed by force",
            [
                *REGISTERED,
                asks(0.5, "register", "repeated:a", call=2, force=True),
                write(0.5, INSTANCE, row("repeated:a", 0.8, 1, spec=EVERY_AGAIN)),
            ],
        ),
        (
            "another instant",
            [FIRST, asks(0, "register", "once:a", call=1), write(0, None, row("once:a", 2, spec=ONCE_OFF))],
        ),
        (
            "replaced while it is executed",
            [
                *REGISTERED,
                *claim(0.8, INSTANCE, 1, until=3),
                asks(1, "register", "repeated:a", call=2),
                write(
                    1,
                    row("repeated:a", 0.8, 1, until=3, spec=EVERY),
                    row("repeated:a", 0.8, 2, until=3, spec=EVERY_AGAIN),
                ),
            ],
        ),
    ],
    "ack": [
        ("commit", [FIRST, *CLAIM, START, END, COMMIT[0], COMMIT[2]]),
        ("extension", [FIRST, *CLAIM, START, entry(1, "extended", due=0.7, token=1, until=4)]),
        ("release", [FIRST, *CLAIM, START, entry(1, "released", due=0.7, token=1, until=4)]),
    ],
    "retry": [
        ("start", [*ONLY_FIRST, ONLY_COMMIT[0], ONLY_GIVEN_UP]),
        ("early", [FIRST, *CLAIM, START, END, entry(1, "lost", due=0.7, token=1, detail="given up")]),
    ],
    "quiet": [
        ("raised", [FIRST, entry(1, "raised", "", detail="OSError()")]),
        ("logged", [FIRST, entry(1, "logged", "", detail="it could not be read")]),
    ],
}


@pytest.mark.parametrize(
    ("invariant", "entries"),
    [pytest.param(name, entries, id=f"{name}: {case}") for name, cases in BROKEN.items() for case, entries in cases],
)
def test_a_history_that_breaks_an_invariant_is_found(invariant: str, entries: Sequence[Entry]) -> None:
    assert found(entries) == [invariant]


def test_there_is_a_history_that_breaks_each_invariant() -> None:
    assert set(BROKEN) == set(NAMES)


def found(entries: Sequence[Entry]) -> list[str]:
    """Returns the invariants that a history breaks, each once for each violation."""
    return [violation.invariant for violation in violations(Run(PLAN, list(entries), ""))]
