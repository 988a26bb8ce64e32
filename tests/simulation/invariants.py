"""What must hold in every run, read off its entries in one pass.

The checkers see what the store did, as no log of a process can.

once        an at-most-once occurrence has at most one START, ever, and only after the next occurrence was written
cause       no START while somebody else holds the lease
leased      no START after its own lease has ended
one-lease   no grant before the last lease has ended, by the store's clock
fence       the later of two executions, in the order in which the store granted them, has the greater token; what was
            removed and registered again is another schedule
final       no grant of an occurrence after its commit; what was given back had not started
no-loss     each at-least-once occurrence is committed after a run that counts; when all is calm nothing stays overdue
lost        where nothing failed, what was committed at most once did start
next        a commit leads to the occurrence that an independent calculation says
not-early   no START before the due time, and no grant; that of a static schedule 10 ms earlier at most
bound       open bodies of a process never above its concurrency limit
stop        no claim after the first stop; a stop comes to its end, and leaves no lease
registry    what was answered is stored or removed; nothing else comes or goes; the same schedule keeps its next run
ack         what an engine says was stored, was stored
retry       what could not be written is given up only when the lease has ended
quiet       no exception comes out of an app, and nothing is logged as an error
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

from anyscheduler import FailureMode
from anyscheduler.events import EventKind
from tests.simulation.load import SECOND, Schedule
from tests.simulation.machine import BEGINNING
from tests.simulation.registrations import Registrations

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyscheduler.lease import Row
    from tests.simulation.history import Entry
    from tests.simulation.simulation import Run


_ROUND_TRIP: Final = 30_000
"""In microseconds; by no more a process mistakes the store's time where nothing holds up the replies that tell it."""

_HEAD_START: Final = 10_000
"""How many microseconds before it is due a static schedule may be granted."""

NAMES: Final = tuple(re.findall(r"^([a-z-]+)  +", __doc__ or "", re.MULTILINE))
"""Of all invariants, in the order above."""


class Violation(NamedTuple):
    """A promise that was not kept.

    Attributes:
        invariant: Its name, as above.
        at: When it showed, in microseconds since the epoch.
        who: The process, "" where none is to blame.
        message: What happened, in one line.
    """

    invariant: str
    at: int
    who: str
    message: str

    def line(self) -> str:
        """Returns it as one line; the instant in seconds since the run began."""
        return f"{(self.at - BEGINNING) / 1e6:.6f} {self.who or '-'} {self.invariant}: {self.message}"


class _Occurrence(NamedTuple):
    key: str
    registered: int
    """How often the schedule had been registered."""
    due: int


class _Grant(NamedTuple):
    place: int
    """The place of its entry."""
    life: int
    """How often its schedule had been removed."""
    occurrence: _Occurrence
    row: Row


class Audit:
    """Goes through the entries of a run once.

    Args:
        run: The run.
    """

    def __init__(self, run: Run) -> None:
        self.violations: list[Violation] = []
        self._plan = run.plan
        self._entry = run.entries[0]
        self._rows: dict[str, Row] = {}
        self._grants: dict[tuple[str, str], _Grant] = {}
        self._lives: Counter[str] = Counter()
        """How often each schedule was removed."""
        self._executed: dict[tuple[str, int], list[tuple[int, str]]] = {}
        """The executions in each life of a schedule: the place of the grant, and the token."""
        self._claims: dict[tuple[str, str], tuple[str, int]] = {}
        """Who knows of a grant, and since which entry."""
        self._outcomes: dict[tuple[str, str], str] = {}
        self._sent: set[tuple[str, str, str, str]] = set()
        """Who has sent what, for which key, with the token of which claim."""
        self._registered: Counter[str] = Counter()
        self._settled: set[_Occurrence] = set()
        self._ever_settled: set[tuple[str, int]] = set()
        self._released: set[tuple[str, int]] = set()
        self._extended: Counter[tuple[str, str]] = Counter()
        self._known_until: Counter[tuple[str, str]] = Counter()
        """When the lease of each claim ends, as far as its process knows."""
        self._at_most_once_starts: Counter[_Occurrence] = Counter()
        self._removed: set[tuple[str, str]] = set()
        self._replaced: set[tuple[str, str]] = set()
        """What users have removed: keys, and the tokens that they had."""
        self._unstarted: dict[str, set[tuple[str, str]]] = {}
        """What each process has committed at most once and not started yet: keys, and tokens of the claims."""
        self._ambiguous: set[tuple[str, str]] = set()
        """Those of them that may as well have been removed by the users of that process, who were about to."""
        self._registrations = Registrations(self._found)
        self._open: Counter[str] = Counter()
        self._faulted: set[str] = set()
        self._stopping: dict[str, int] = {}
        self._resumed: dict[str, int] = {}
        self._index = 0
        readers: dict[str, Callable[[Entry], object]] = {
            "grant": self._grant,
            "write": self._write,
            "fault": lambda entry: self._faulted.add(entry.who),
            "suspended": lambda entry: self._faulted.add(entry.who),
            "resumed": self._resume,
            "stops": lambda entry: self._stopping.setdefault(entry.who, entry.at),
            "asks to claim": self._ask_to_claim,
            "asks to register": self._ask,
            "asks to unregister": self._ask,
            "register answered": self._registrations.answered,
            "unregister answered": self._registrations.answered,
            "exits": self._exit,
            "hangs": lambda _: self._found("stop", "it did not come to its end"),
            "raised": lambda entry: self._found("quiet", entry.detail),
            "logged": lambda entry: self._found("quiet", entry.detail),
            "overdue": lambda entry: self._found("no-loss", f"{entry.key} is overdue although all is calm"),
            EventKind.CLAIMED: self._claimed,
            EventKind.STARTED: self._start,
            EventKind.ENDED: self._body_ended,
            EventKind.SENT: lambda entry: self._sent.add((entry.who, entry.detail, entry.key, entry.token)),
            EventKind.COMMITTED: self._committed,
            EventKind.EXTENDED: self._acknowledged_extension,
            EventKind.RELEASED: self._acknowledged_release,
            EventKind.LOST: self._lost,
        }
        for self._index, self._entry in enumerate(run.entries):
            reader = readers.get(self._entry.kind)
            if reader is not None:
                reader(self._entry)
        for name in sorted(run.plan.tasks - self._rows.keys()):
            self._found("no-loss", f"{name} is not in the store any more")

    def _found(self, invariant: str, message: str) -> None:
        self.violations.append(Violation(invariant, self._entry.at, self._entry.who, message))

    # What the store did

    def _grant(self, entry: Entry) -> None:
        before, row = _both(entry)
        occurrence = self._occurrence(row)
        if before.claimable_at > entry.at:
            self._found("one-lease", f"{row.key} was granted {before.claimable_at - entry.at} us before it was free")
        if before.due_at > entry.at + (0 if before.spec else _HEAD_START):
            self._found("not-early", f"{row.key} was granted {before.due_at - entry.at} us before it was due")
        if occurrence in self._settled:
            self._found("final", f"{row.key} due {row.due_at} was granted after it was committed")
        self._rows[row.key] = row
        self._grants[row.key, row.token] = _Grant(self._index, self._lives[row.key], occurrence, row)

    def _write(self, entry: Entry) -> None:
        """Tells from what the process had told before which of its writes this is."""
        before, after = entry.before, entry.after
        if before is not None and self._is_commit(entry, before):
            self._settle(entry, before)
            self._check_next(entry, before, after)
        elif after is None:
            self._registrations.removed(entry)
            self._removed.add((entry.key, "" if before is None else before.token))
        elif before is not None and before.token == after.token:
            self._extended[after.key, after.token] = max(after.claimable_at, self._extended[after.key, after.token])
        elif before is not None and (entry.who, EventKind.RELEASED, entry.key, before.token) in self._sent:
            self._released.add((after.key, after.due_at))
        elif not self._registrations.is_new(after) and (settled := self._settled_before(after)) is not None:
            self._give_back(after, settled)
        else:
            self._register(entry, after)
        if after is None:
            self._registrations.gone(self._index, entry.key)
            self._lives[entry.key] += 1
            self._rows.pop(entry.key, None)
        else:
            self._rows[entry.key] = after

    def _is_commit(self, entry: Entry, before: Row) -> bool:
        if (entry.who, EventKind.COMMITTED, entry.key, before.token) not in self._sent:
            return False
        # An extension that was sent before may arrive after a commit that was lost.
        if entry.after is not None and entry.after.token == before.token:
            return False
        # The users of that same process may be faster than its commit.
        if entry.after is None:
            return Schedule(before).is_once or not self._registrations.is_unwanted(entry)
        return not self._registrations.is_new(entry.after)

    def _register(self, entry: Entry, after: Row) -> None:
        was_held = entry.before is not None and (after.key, entry.before.token) in self._grants
        if entry.before is not None:
            self._replaced.add((after.key, entry.before.token))
        if self._registrations.stored(entry, after, was_held=was_held, may_err=entry.who in self._faulted):
            self._registered[after.key] += 1

    def _settled_before(self, row: Row) -> _Occurrence | None:
        """Returns the occurrence that was settled, and is there again with this row; None if there is none.

        What is given back late may be of an earlier registration: another one has come and gone meanwhile.
        """
        earlier = (_Occurrence(row.key, number, row.due_at) for number in range(self._registered[row.key], -1, -1))
        return next((occurrence for occurrence in earlier if occurrence in self._settled), None)

    def _give_back(self, after: Row, occurrence: _Occurrence) -> None:
        if self._at_most_once_starts[occurrence] or not Schedule(after).at_most_once:
            self._found("final", f"{after.key} due {after.due_at} came back after it was committed")
        self._settled.discard(occurrence)
        self._released.add((after.key, after.due_at))
        for unstarted in self._unstarted.values():
            unstarted -= {claim for claim in unstarted if claim[0] == after.key}

    def _settle(self, entry: Entry, before: Row) -> None:
        claim = before.key, before.token
        self._settled.add(self._occurrence(before))
        self._ever_settled.add((before.key, before.due_at))
        schedule = Schedule(before)
        if schedule.at_most_once:
            self._unstarted.setdefault(entry.who, set()).add(claim)
            if entry.after is None and self._registrations.is_unwanted(entry):
                self._ambiguous.add(claim)
            return
        outcome = self._outcomes.get(claim)
        counts = {"succeeded", "skipped"} | ({"failed"} if schedule.failure is FailureMode.COMMIT else set())
        if outcome not in counts:
            self._found("no-loss", f"{before.key} due {before.due_at} was committed, and its run: {outcome}")

    def _check_next(self, entry: Entry, before: Row, after: Row | None) -> None:
        schedule = Schedule(before)
        committed = None if after is None else after.due_at
        due: int | None = schedule.following(before.due_at)
        # Skipped is only what was past, as far as the process knows the time.
        past = entry.at + _ROUND_TRIP
        while schedule.fast_forward and due is not None and due <= past and due != committed:
            due = schedule.following(due)
        if due != committed:
            self._found("next", f"{before.key} due {before.due_at} led to {committed} and not to {due}")

    def _occurrence(self, row: Row) -> _Occurrence:
        return _Occurrence(row.key, self._registered[row.key], row.due_at)

    def _ask(self, entry: Entry) -> None:
        self._registrations.begun(self._index, entry, self._rows.get(entry.key))

    # What the engines told

    def _claimed(self, entry: Entry) -> None:
        assert entry.until is not None
        self._claims[entry.key, entry.token] = entry.who, self._index
        self._known_until[entry.key, entry.token] = entry.until

    def _start(self, entry: Entry) -> None:
        assert entry.due is not None
        claim = entry.key, entry.token
        if claim not in self._grants:
            self._found("one-lease", f"{entry.key} was started under {entry.token}, which was never granted")
            return
        place, life, occurrence, row = self._grants[claim]
        self._check_fence(place, life, entry)
        self._open[entry.who] += 1
        if self._open[entry.who] > self._plan.concurrency_limit:
            self._found("bound", f"{self._open[entry.who]} bodies are open")
        if entry.due > entry.at:
            self._found("not-early", f"{entry.key} was started {entry.due - entry.at} us before it was due")
        if Schedule(row).at_most_once:
            self._start_at_most_once(entry, occurrence)
            return
        # Whoever was stopped between the grant and the start cannot know what has happened meanwhile.
        if self._resumed.get(entry.who, -1) > place:
            return
        stored = self._rows.get(entry.key)
        if stored is not None and stored.claimable_at > entry.at and stored.token != entry.token:
            if (entry.key, stored.token) in self._grants:
                self._found("cause", f"{entry.key} due {entry.due} was started while {stored.token} holds it")
        elif stored is not None and stored.claimable_at <= entry.at and stored.token == entry.token:
            self._found("leased", f"{entry.key} was started {entry.at - stored.claimable_at} us after its lease")

    def _check_fence(self, place: int, life: int, entry: Entry) -> None:
        executions = self._executed.setdefault((entry.key, life), [])
        for granted, token in executions:
            if (granted < place) != (token < entry.token):
                earlier, later = (token, entry.token) if granted < place else (entry.token, token)
                self._found("fence", f"{entry.key} was executed under {earlier}, and later under {later}")
        executions.append((place, entry.token))

    def _start_at_most_once(self, entry: Entry, occurrence: _Occurrence) -> None:
        self._at_most_once_starts[occurrence] += 1
        if self._at_most_once_starts[occurrence] > 1:
            self._found("once", f"{entry.key} due {entry.due} was started again")
        # Whoever's reply was lost cannot tell a row that its own write has removed from one that a user has, or that a
        # user has replaced and somebody else has then executed for the last time.
        claim = entry.key, entry.token
        may_err = claim in self._removed or (claim in self._replaced and entry.key not in self._rows)
        if occurrence not in self._settled and not may_err:
            self._found("once", f"{entry.key} due {entry.due} was started before its next occurrence was written")
        self._unstarted.get(entry.who, set()).discard(claim)

    def _body_ended(self, entry: Entry) -> None:
        self._open[entry.who] -= 1
        self._outcomes[entry.key, entry.token] = entry.detail

    def _committed(self, entry: Entry) -> None:
        # A removed row does not tell whether it was the commit that removed it.
        if (entry.key, entry.due) not in self._ever_settled and entry.until is not None:
            self._found("ack", f"{entry.key} due {entry.due} is not committed")

    def _acknowledged_extension(self, entry: Entry) -> None:
        assert entry.until is not None
        if self._extended[entry.key, entry.token] < entry.until:
            self._found("ack", f"{entry.key} is not leased until {entry.until}")
        self._known_until[entry.key, entry.token] = entry.until

    def _acknowledged_release(self, entry: Entry) -> None:
        if entry.due is None or (entry.key, entry.due) not in self._released:
            self._found("ack", f"{entry.key} due {entry.due} is not released")

    def _lost(self, entry: Entry) -> None:
        # A process mistakes the time by no more than it has waited for the reply that it has that from.
        claim = entry.key, entry.token
        left = self._known_until[claim] - entry.at - round(self._plan.patience * SECOND)
        if entry.detail == "refused" and claim in self._ambiguous:
            self._unstarted[entry.who].discard(claim)
        if entry.detail == "given up" and left > 0 and not self._puts_back(entry):
            self._found("retry", f"{entry.key} due {entry.due} was given up {left} us or more before its lease ends")

    def _puts_back(self, entry: Entry) -> bool:
        """Tells whether the process undoes a start that has removed the row: unguarded, and so tried only once."""
        schedule = Schedule(self._grants[entry.key, entry.token].row)
        sent = {(entry.who, kind, entry.key, entry.token) for kind in (EventKind.COMMITTED, EventKind.RELEASED)}
        return schedule.at_most_once and schedule.is_once and sent <= self._sent

    def _resume(self, entry: Entry) -> None:
        self._resumed[entry.who] = self._index

    def _ask_to_claim(self, entry: Entry) -> None:
        # A claim that was about to be sent in the same instant still is.
        if self._stopping.get(entry.who, entry.at) < entry.at:
            self._found("stop", "it claims although it was stopped")

    def _exit(self, entry: Entry) -> None:
        """A hard stop has two seconds only, so after it leases may be left where something else went wrong as well."""
        if entry.who not in self._faulted:
            for key, token in sorted(self._unstarted.get(entry.who, ())):
                self._found("lost", f"{key} was committed under {token} and not started")
        elif entry.detail == "hard":
            return
        for row in self._rows.values():
            claim = row.key, row.token
            if self._claims.get(claim, ("",))[0] != entry.who or row.claimable_at <= entry.at:
                continue
            if self._outcomes.get(claim) == "failed" and Schedule(row).failure is FailureMode.NONE:
                continue
            # No answer came to its extension, so it had to take the lease for ended: then it is not its to give back.
            if entry.who in self._faulted and self._known_until[claim] < min(row.claimable_at, entry.at):
                continue
            self._found("stop", f"it left {row.key} leased for {row.claimable_at - entry.at} us")


def _both(entry: Entry) -> tuple[Row, Row]:
    assert entry.before is not None
    assert entry.after is not None
    return entry.before, entry.after


def violations(run: Run) -> list[Violation]:
    """Returns the promises that were not kept in a run, in order."""
    return Audit(run).violations
