"""What is broken in a run, and when: a pure function of the seed.

Knows: seeds and seconds. Must not know: processes, stores, how anything is carried out.

Every time is in seconds from the begin of the load. Rates are those of soak runs of a minute: a run of ten has ten
times as much of everything.
"""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

WORKERS: Final = 4
LEASE_SECONDS: Final = 3.0
POLL_SECONDS: Final = 1.0

CALLS: Final = ("claim", "start", "extend", "commit", "release", "register", "unregister")
"""The calls of a store that failpoints surround."""

WINDOWS: Final = tuple(f"{side} {call}" for call in CALLS for side in ("before", "after"))

LEAST_HITS: Final = 5
"""How often each window has to be hit; otherwise the run says nothing."""

FOR_ALL_AFTER: Final = 4.0
"""After how many seconds a failpoint that nobody in its slot has come through is there for the other slots as well."""

_QUIET_SECONDS: Final = 2.0
"""How long nothing is broken at the begin, and at the end."""

_PLANNED_HITS: Final = LEAST_HITS + 3
_FOUND_SECONDS: Final = 6.0
"""How long before the end the last failpoint is laid, so that somebody comes through it."""

_WEIGHTS: Final = (1, 3, 3, 3)
"""How much of the trouble each slot gets: on one of them a body that is longer than a lease has a chance to end."""

_WEIGHTS_OF_EXTEND: Final = (3, 1, 1, 1)
"""How the failpoints at extensions are spread, which are rare where bodies seldom live for half a lease."""


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL for the worker of a slot."""

    at: float
    slot: int


@dataclass(frozen=True, slots=True)
class Stop:
    """SIGSTOP for the worker of a slot, and SIGCONT after so many seconds, which are more than a lease."""

    at: float
    slot: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Term:
    """SIGTERM for the worker of a slot, and another one after so many seconds; None for no other one."""

    at: float
    slot: int
    again_after: float | None


@dataclass(frozen=True, slots=True)
class Restart:
    """The server ends, without notice if it is to `crash`, and starts again after so many seconds."""

    at: float
    seconds: float
    crash: bool


@dataclass(frozen=True, slots=True)
class Cut:
    """What the network does to all connections.

    `cut` closes them, `refuse` closes them and accepts no new ones for so many seconds, `hold` forwards nothing for
    so many seconds.
    """

    at: float
    kind: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Hold:
    """Somebody else has a transaction open on the SQLite file for so many seconds, and `writes` or only reads."""

    at: float
    seconds: float
    writes: bool


class Failpoint(NamedTuple):
    """Something that happens to a worker of a slot when it next comes through a window.

    Attributes:
        at: From when on, `FOR_ALL_AFTER` for another slot; whichever worker is there first.
        slot: Which worker.
        window: One of `WINDOWS`.
        action: kill, stop, delay; error (the call is not made, and fails) before a call, lost (the call is made, and
            fails) after it.
    """

    at: float
    slot: int
    window: str
    action: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is done to the workers and their store.

    Attributes:
        seed: What it came from.
        store: sqlite, redis or postgres.
        seconds: How long load and faults last.
        clock_offsets: How many seconds the clock of the worker of each slot is ahead.
        pressure: From when to when bodies take so long that the workers cannot run all that is due.
        stop_seconds: How long each process stays stopped that a failpoint has stopped, in their order.
        faults: All but failpoints, ordered by time.
        failpoints: Ordered by time.
    """

    seed: int
    store: str
    seconds: float
    clock_offsets: tuple[float, ...]
    pressure: tuple[float, float]
    stop_seconds: tuple[float, ...]
    faults: tuple[Kill | Stop | Term | Restart | Cut | Hold, ...]
    failpoints: tuple[Failpoint, ...]

    def save(self, path: Path) -> None:
        """Writes it as JSON."""
        faults = [{"fault": type(fault).__name__, **asdict(fault)} for fault in self.faults]
        path.write_text(json.dumps({**asdict(self), "faults": faults}, indent=1))


def failpoints_for(path: Path, slot: int) -> list[tuple[int, Failpoint]]:
    """Reads the failpoints of a saved plan with the number of each, in the order in which they are there for a slot."""
    saved = [Failpoint(*fields) for fields in json.loads(path.read_text())["failpoints"]]
    for_slot = [point if point.slot == slot else point._replace(at=point.at + FOR_ALL_AFTER) for point in saved]
    return sorted(enumerate(for_slot), key=lambda numbered: numbered[1].at)


def make_plan(seed: int, store: str, seconds: float) -> Plan:
    """Returns the plan of a run."""
    draw = _Draw(random.Random(f"{seed} {store} {seconds}"), seconds)
    failpoints = _failpoints(draw)
    killed = sum(point.action == "kill" for point in failpoints)
    faults: list[Kill | Stop | Term | Restart | Cut | Hold] = []
    faults += [Kill(at, draw.slot()) for at in draw.times(max(draw.count(36) - killed, draw.count(16)))]
    faults += [Stop(at, draw.slot(), draw.stop_seconds()) for at in draw.times(draw.count(9))]
    # Every other one is told twice.
    terms = enumerate(draw.times(draw.count(6)))
    faults += [Term(at, draw.slot(), draw.between(0.3, 2.5) if number % 2 else None) for number, at in terms]
    if store == "sqlite":
        holds = enumerate(draw.times(draw.count(6)))
        faults += [Hold(at, draw.between(1.0, 3.5), writes=number % 3 != 1) for number, at in holds]
    else:
        restarts = enumerate(draw.times(draw.count(3)))
        faults += [Restart(at, draw.between(0.2, 1.5), crash=number % 2 == 1) for number, at in restarts]
        kinds = ("cut", "refuse", "cut", "hold")
        cuts = enumerate(draw.times(draw.count(8)))
        faults += [Cut(at, kinds[number % len(kinds)], draw.between(0.5, 2.5)) for number, at in cuts]
    skewed = draw.random.choice((-20.0, 20.0)) if store != "sqlite" else 0.0
    return Plan(
        seed=seed,
        store=store,
        seconds=seconds,
        clock_offsets=(*[0.0] * (WORKERS - 1), skewed),
        pressure=(round(0.4 * seconds, 3), round(0.4 * seconds + min(4.0, 0.05 * seconds), 3)),
        stop_seconds=tuple(draw.stop_seconds() for point in failpoints if point.action == "stop"),
        faults=tuple(sorted(faults, key=lambda fault: fault.at)),
        failpoints=tuple(sorted(failpoints)),
    )


def _failpoints(draw: _Draw) -> list[Failpoint]:
    """Returns more hits of each window than are asked for, since some of the last ones may find nobody."""
    found: list[Failpoint] = []
    for number, window in enumerate(WINDOWS):
        side, _, call = window.partition(" ")
        weights = _WEIGHTS_OF_EXTEND if call == "extend" else _WEIGHTS
        deadly = ["kill"] * draw.count(1)
        # A stop takes seconds of the life of a worker, so each call gets one, on one side of it. A claim gets both:
        # whoever is stopped behind it holds leases that have ended.
        deadly += ["stop"] * (draw.count(1) if call == "claim" or (number // 2 + number + draw.parity) % 2 else 0)
        mild = ["error" if side == "before" else "lost", "delay"]
        count = max(_PLANNED_HITS, draw.count(_PLANNED_HITS))
        actions = [*deadly, *(mild[place % 2] for place in range(count - len(deadly)))]
        draw.random.shuffle(actions)
        found += [
            Failpoint(at, draw.slot(weights), window, action)
            for at, action in zip(draw.times(count, before_end=_FOUND_SECONDS), actions, strict=True)
        ]
    return found


class _Draw:
    """Draws numbers for a run of so many seconds."""

    def __init__(self, source: random.Random, seconds: float) -> None:
        self.random = source
        self.parity = source.randrange(2)
        self._seconds = seconds

    def count(self, a_minute: int) -> int:
        """How many of something there are in this run: at least one."""
        return max(1, round(a_minute * self._seconds / 60))

    def between(self, least: float, most: float) -> float:
        return round(self.random.uniform(least, most), 3)

    def stop_seconds(self) -> float:
        return self.between(LEASE_SECONDS + 0.4, LEASE_SECONDS + 1.5)

    def slot(self, weights: tuple[int, ...] = _WEIGHTS) -> int:
        return self.random.choices(range(WORKERS), weights)[0]

    def times(self, count: int, before_end: float = _QUIET_SECONDS) -> list[float]:
        """Returns instants that spread over the run: one at random in each of `count` parts of it."""
        first = _QUIET_SECONDS
        part = (self._seconds - before_end - first) / count
        return [self.between(first + number * part, first + (number + 1) * part) for number in range(count)]
