"""What a body and its middlewares receive: the occurrence, the arguments, the fixtures, the heartbeat.

Knows: the execution it belongs to. Must not know: stores, the loop.
"""

from __future__ import annotations

import functools
from copy import deepcopy
from keyword import iskeyword
from typing import TYPE_CHECKING, Any

from anyscheduler import options
from anyscheduler.clock import from_micros

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from anyscheduler.app_context import AppContext
    from anyscheduler.lease import Row
    from anyscheduler.task import Task


class Execution:
    """One attempt at one occurrence, as the engine sees it.

    Attributes:
        task: What is executed.
        row: The row as this execution holds it; an extension renews it.
        lease_lost: Whether the store has refused an extension or the start.
        extend: Asks the store for a longer lease; see `Context.heartbeat`.
    """

    __slots__ = ("extend", "lease_lost", "row", "task")

    def __init__(self, task: Task, row: Row, extend: Callable[[Execution], Awaitable[None]]) -> None:
        self.task = task
        self.row = row
        self.lease_lost = False
        self.extend = extend


class Context:
    """What a body is called with. Fixtures and `add_to_context` values are attributes, and middlewares may set more.

    Attributes:
        app_context: The running app, for scheduling further tasks.
        task: The task, or the instance of a dynamic task, that is being executed.
    """

    def __init__(self, app_context: AppContext, execution: Execution, shared: dict[str, Any]) -> None:
        self.app_context = app_context
        self.task = execution.task
        self._execution = execution
        if shared:
            self.__dict__.update(shared)

    @functools.cached_property
    def args(self) -> dict[str, Any]:
        """The arguments, as a copy of this execution's own."""
        return deepcopy(self.task.extra_args)

    @functools.cached_property
    def scheduled_at(self) -> datetime:
        """When this occurrence was due, as an aware datetime in the time zone of the task, else in UTC."""
        return from_micros(self._execution.row.due_at, self.task.zone)

    @property
    def fence(self) -> str:
        """The fencing token of this execution, to be passed on to other systems.

        A later execution of the same schedule has a greater one (compared as text); whoever is asked to write can
        refuse a token smaller than the greatest it has seen.
        """
        return self._execution.row.token

    async def heartbeat(self) -> None:
        """Extends the lease to a whole lease duration from now. Under AT_MOST_ONCE there is no lease and no effect.

        A plain function calls it as `anyio.from_thread.run(context.heartbeat)`.

        Raises:
            LeaseLostError: Somebody else has the occurrence, or the store could not be reached before the lease ended;
                the body should stop.
        """
        await self._execution.extend(self._execution)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"the context has no {name!r}: no fixture, add_to_context value or middleware has set it")

    if TYPE_CHECKING:

        def __setattr__(self, name: str, value: Any) -> None: ...


RESERVED_NAMES = frozenset({"app_context", "args", "fence", "heartbeat", "scheduled_at", "task"})
"""Names in the context that no fixture and no added value may take; nor one that begins with an underscore."""


def check_attribute_name(option: str, name: object, taken: object) -> str:
    """Returns `name` if a fixture or an added value may have it in the context.

    Raises:
        ConfigurationError: It is no identifier, begins with an underscore, is reserved, or is in `taken`.
    """
    if not isinstance(name, str) or not name.isidentifier() or iskeyword(name) or name.startswith("_"):
        options.refuse(option, name, "an identifier that does not begin with an underscore")
    if name in RESERVED_NAMES:
        options.refuse(option, name, f"none of the context's own names {', '.join(sorted(RESERVED_NAMES))}")
    if name in taken:  # type: ignore[operator]
        options.refuse(option, name, "a name that is not taken yet")
    return name
