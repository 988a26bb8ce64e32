"""A distributed scheduler for async Python.

One process or fifty run the same app against one store; every occurrence of every schedule is run by one of them, with
the guarantee that its task asks for. The same engine on asyncio and on trio.
"""

from anyscheduler.app import Scheduler
from anyscheduler.app_context import AppContext
from anyscheduler.body import with_heartbeat
from anyscheduler.context import Context
from anyscheduler.errors import (
    AnySchedulerError,
    ConfigurationError,
    FixtureError,
    LeaseLostError,
    MiddlewareError,
    RepositoryError,
    ScheduleWarning,
    TaskLockedError,
    TaskNotFoundError,
)
from anyscheduler.events import Event, EventKind
from anyscheduler.registry import ListTasksResponse, TaskState
from anyscheduler.task import ExecutionMode, FailureMode, Task

__version__ = "0.1.0"

__all__ = [
    "AnySchedulerError",
    "AppContext",
    "ConfigurationError",
    "Context",
    "Event",
    "EventKind",
    "ExecutionMode",
    "FailureMode",
    "FixtureError",
    "LeaseLostError",
    "ListTasksResponse",
    "MiddlewareError",
    "RepositoryError",
    "ScheduleWarning",
    "Scheduler",
    "Task",
    "TaskLockedError",
    "TaskNotFoundError",
    "TaskState",
    "with_heartbeat",
]
