"""Events: what the engine does with each occurrence, told as it happens to the one callable of `Scheduler(on_event=)`.

Knows: rows and changes. Must not know: the loop, the store; nor what anybody does with an event.

They are for metrics, for an audit log, and for a checker that holds a whole fleet to its promises. An app without
`on_event` has no `Reporter`, and pays nothing.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, NamedTuple

from anyscheduler.clock import clamp, from_micros
from anyscheduler.logs import get_logger
from anyscheduler.task import display_name

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from anyscheduler.lease import Change, Row

logger = get_logger(__name__)

_SAID_AGAIN_AFTER: Final = 60_000_000
"""For how many microseconds a callable that raises is not reported again."""


class EventKind(enum.StrEnum):
    """What happened to an occurrence, or to a schedule."""

    CLAIMED = enum.auto()
    """This process has leased the occurrence; `until` is the end of the lease."""

    STARTED = enum.auto()
    """Its body is about to be called, inside the middlewares."""

    ENDED = enum.auto()
    """The body and the middlewares have ended.

    `detail` is the outcome: `succeeded`, `skipped` (a middleware did not call the body), `failed`, `cancelled`,
    `abandoned` (its thread goes on) or `lease_lost`.
    """

    SENT = enum.auto()
    """What is to be stored of it is about to be written; `detail` is the kind that follows when it was."""

    EXTENDED = enum.auto()
    """The lease was extended; `until` is its new end."""

    COMMITTED = enum.auto()
    """The occurrence is settled; `until` is when the schedule is due next, None if it has ended.

    At most once that comes before STARTED.
    """

    RELEASED = enum.auto()
    """The occurrence was given back unsettled; `until` is when it can be claimed again."""

    LOST = enum.auto()
    """What was SENT was not stored.

    `detail` says why: `refused`, since another execution or another schedule has taken its place, or `given up`, since
    the store could not be reached before the lease ended.
    """

    SKIPPED = enum.auto()
    """Occurrences are left out by `fast_forward`, from `scheduled_at` to before `until`.

    It comes before the SENT of the commit that leaves them out.
    """

    SCHEDULED = enum.auto()
    """A schedule was stored, by `schedule_task` or from the code; `scheduled_at` is when it is due."""

    UNSCHEDULED = enum.auto()
    """A schedule was removed."""


class Event(NamedTuple):
    """Something that happened to an occurrence, or to a schedule.

    Attributes:
        kind: What.
        at: When, aware, in UTC, by the clock that decides what is due: the store's where several processes share one.
        key: The schedule, unique in its store.
        scheduled_at: When the occurrence is due, aware, in UTC; None for UNSCHEDULED.
        fence: The fencing token of the execution, as `Context.fence`; that of the stored row for SCHEDULED.
        until: An instant that belongs to the kind, aware, in UTC; None where the kind has none.
        detail: More about it, which belongs to the kind; "" where there is none.
    """

    kind: EventKind
    at: datetime
    key: str
    scheduled_at: datetime | None
    fence: str
    until: datetime | None = None
    detail: str = ""

    @property
    def name(self) -> str:
        """The schedule as log lines show it: the task, or the task, a colon and the instance."""
        return display_name(self.key)


class Reporter:
    """Tells a callable of events; what it raises is logged once a minute, and harms nothing.

    Args:
        on_event: The callable.
        now: The time, in microseconds since the epoch.
    """

    def __init__(self, on_event: Callable[[Event], object], now: Callable[[], int]) -> None:
        self._on_event = on_event
        self._now = now
        self._silent_until = 0

    def tell(
        self, kind: EventKind, row: Row, *, at: int | None = None, until: int | None = None, detail: str = ""
    ) -> None:
        """Tells that something happened to the occurrence that `row` stands for, now or at `at`."""
        self._call(Event(kind, self._moment(at), row.key, _shown(row.due_at), row.token, _shown(until), detail))

    def unscheduled(self, key: str) -> None:
        """Tells that a schedule was removed."""
        self._call(Event(EventKind.UNSCHEDULED, self._moment(None), key, None, ""))

    def sent(self, held: Row, change: Change) -> None:
        """Tells that `change` to a row that this process holds is about to be written."""
        self.tell(EventKind.SENT, held, detail=_kind_of(held, change))

    def answered(self, held: Row, change: Change, applied: bool | None) -> None:  # the store's answer
        """Tells what the store made of `change`: whether it applied, or None if it could not be asked in time."""
        if not applied:
            self.tell(EventKind.LOST, held, detail="given up" if applied is None else "refused")
            return
        row = change.row
        self.tell(_kind_of(held, change), held, until=None if row is None else max(row.due_at, row.claimable_at))

    def _moment(self, at: int | None) -> datetime:
        return from_micros(clamp(self._now() if at is None else at))

    def _call(self, event: Event) -> None:
        try:
            self._on_event(event)
        except BaseException:  # it is called where nothing waits, so this is never a cancellation
            now = self._now()
            if now >= self._silent_until:
                self._silent_until = now + _SAID_AGAIN_AFTER
                logger.exception("on_event raised; that changes nothing else, and is not said again for a minute")


def _kind_of(held: Row, change: Change) -> EventKind:
    """Tells what a change to a held row means: the lease rules leave exactly these three."""
    if change.row is None or change.row.due_at != held.due_at:
        return EventKind.COMMITTED
    return EventKind.EXTENDED if change.row.token == held.token else EventKind.RELEASED


def _shown(micros: int | None) -> datetime | None:
    return None if micros is None else from_micros(clamp(micros))
