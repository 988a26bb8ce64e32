"""The errors and warnings that callers may catch.

Knows: nothing but the names and the facts that an error carries. Must not know: drivers, tasks, the event loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime


class AnySchedulerError(Exception):
    """The root of every error that this package raises on purpose."""


class ConfigurationError(AnySchedulerError, ValueError):
    """An option, a schedule, a name or an argument that can never work.

    It is raised where the mistake is made (at the decorator, the constructor or the registering call), never later.
    """


class TaskNotFoundError(AnySchedulerError, LookupError):
    """The task does not belong to this app, so the app would never run it."""


class TaskLockedError(AnySchedulerError):
    """The schedule is being executed, and `force=True` was not given.

    Attributes:
        task: The display name of the schedule, `task` or `task:instance`.
        locked_until: The end of its lease, aware, in UTC.
    """

    def __init__(self, task: str, locked_until: datetime) -> None:
        super().__init__(
            f"task {task!r} is being executed and locked until {locked_until.isoformat(timespec='milliseconds')}; "
            "wait for it, or replace it with force=True"
        )
        self.task = task
        self.locked_until = locked_until


class LeaseLostError(AnySchedulerError):
    """The lease of this execution ended and somebody else has taken or replaced the schedule.

    The body may still be running, but whatever it returns will not be recorded.

    Attributes:
        task: The display name of the schedule, `task` or `task:instance`.
    """

    def __init__(self, task: str) -> None:
        super().__init__(f"the lease of task {task!r} was lost: it ended, or the schedule was replaced or removed")
        self.task = task


class RepositoryError(AnySchedulerError):
    """The store did not do what it was asked to; the driver's own error is the `__cause__`."""


class FixtureError(AnySchedulerError):
    """A fixture did not keep to the form: set up, yield once, tear down."""


class MiddlewareError(AnySchedulerError):
    """A middleware called `next()` a second time; raised inside that middleware."""


class ScheduleWarning(UserWarning):
    """A schedule that is valid but probably not what was meant; raised through `warnings` at its definition."""
