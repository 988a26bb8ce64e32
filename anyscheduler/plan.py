"""What an app has defined, frozen when it is created: all that the engine gets to know of it.

Knows: tasks and limits. Must not know: where they came from, or what is done with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from anyscheduler.events import Event
    from anyscheduler.execution import Middleware
    from anyscheduler.task import Task


@dataclass(frozen=True, slots=True)
class Plan:
    """What an app has defined, as the engine needs it.

    Attributes:
        defined: Every task, in the order of definition.
        middlewares: The first one is the outermost.
        poll_interval: The longest sleep, and the wait before another attempt after UNLOCK.
        concurrency_limit: How many executions may run at a time.
        batch_size: How many rows one claim may take.
        shutdown_timeout: How long a graceful stop may take before it becomes a hard one; None for no limit.
        on_event: Called with what happens to each occurrence; None for nobody.
    """

    defined: tuple[Task, ...]
    middlewares: tuple[Middleware, ...]
    poll_interval: timedelta
    concurrency_limit: int
    batch_size: int
    shutdown_timeout: timedelta | None
    on_event: Callable[[Event], object] | None

    def enabled(self) -> dict[str, Task]:
        """Returns the tasks that are enabled at the moment, by name, in the order of definition."""
        return {task.name: task for task in self.defined if task.enabled}

    def columns(self) -> set[str]:
        """Returns the `Row.task` of every task, whether it is enabled or not."""
        return {column for task in self.defined for column in task.all_columns()}
