"""What the tests of tasks share: a body, short ways to define a task and an instance, and a table of instances."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from anyscheduler import task
from anyscheduler.task import ExecutionMode, FailureMode, Task

LIMIT = 65_536
SECOND = timedelta(seconds=1)
AT = datetime(2026, 7, 1, 12, tzinfo=UTC)


async def body(context: Any) -> None:
    """The body of every task here; it is never called."""


def define(func: object = body, *, dynamic: bool = False, **given_options: Any) -> Task:
    """Returns a task, as a decorator defines it."""
    return task.define(func, given_options, dynamic=dynamic, size_limit=LIMIT)


def template(**given_options: Any) -> Task:
    """Returns a dynamic task."""
    return define(dynamic=True, **given_options)


def instance(parent: Task, name: str = "x", **given_options: Any) -> Task:
    """Returns an instance of a dynamic task, as `schedule_task` makes it."""
    return task.instantiate(parent, name, given_options, size_limit=LIMIT)


def properties(of: Task) -> dict[str, Any]:
    """Returns what an instance has to keep when it is stored and read."""
    return {
        name: getattr(of, name)
        for name in (
            "name",
            "key",
            "func",
            "trigger",
            "fast_forward",
            "failure_mode",
            "execution_mode",
            "lease_duration",
            "heartbeat",
            "extra_args",
            "enabled",
        )
    }


INSTANCES: list[dict[str, Any]] = [
    {"interval": timedelta(milliseconds=1)},
    {"interval": timedelta(days=36_525)},
    {"schedule": "*/5 1,2 1-3 jan mon 0 2099"},
    {"schedule": "0 12 * * *", "timezone": "Europe/Dublin"},
    {"schedule": "0 12 * * *", "timezone": "UTC+12"},
    {"schedule": "@daily"},
    {"schedule": "H H * * *"},
    {"execute_at": AT},
    {"execute_at": datetime(1970, 1, 1, tzinfo=UTC)},
    {"execute_at": datetime(1900, 1, 1, 0, 0, 0, 1, tzinfo=UTC)},
    {"interval": SECOND, "fast_forward": True, "heartbeat": True},
    {"interval": SECOND, "failure_mode": FailureMode.COMMIT},
    {"interval": SECOND, "execution_mode": ExecutionMode.AT_MOST_ONCE},
    {"interval": SECOND, "lease_duration": timedelta(microseconds=1_001)},
    {"interval": SECOND, "lease_duration": timedelta(days=366)},
    {"interval": SECOND, "user": "\u05e9\U0001f600'\"\\\u2028", "deep": [[{"": [None, True, -1.5e300]}]], "v": 5},
    {"interval": SECOND, "args": {"args": 1}, "key": "x", "schedules": []},
]
"""What `instance` may be given, of every kind."""
