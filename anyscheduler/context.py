"""What a body and its middlewares receive: the occurrence, the arguments, the fixtures, the heartbeat.

Knows: the execution it belongs to. Must not know: stores, the loop.
"""

from __future__ import annotations

import functools
import inspect
import logging
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import anyio

from anyscheduler import options
from anyscheduler.clock import from_micros
from anyscheduler.errors import LeaseLostError, RepositoryError
from anyscheduler.task import ExecutionMode, Task, is_async

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from anyscheduler.app_context import AppContext
    from anyscheduler.lease import Row

logger = logging.getLogger(__name__)


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
        """The instant at which this occurrence was due, aware, in the time zone of the task, or in UTC if it has none."""
        return from_micros(self._execution.row.due_at, self.task.zone)

    @property
    def fence(self) -> str:
        """The fencing token of this execution, to be passed on to other systems.

        A later execution of the same schedule has a greater one (compared as text), as long as the clock is not set
        back; whoever is asked to write can refuse a token smaller than the greatest it has seen.
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
    if not isinstance(name, str) or not name.isidentifier() or name.startswith("_"):
        options.refuse(option, name, "an identifier that does not begin with an underscore")
    if name in RESERVED_NAMES:
        options.refuse(option, name, f"none of the context's own names {', '.join(sorted(RESERVED_NAMES))}")
    if name in taken:  # type: ignore[operator]
        options.refuse(option, name, "a name that is not taken yet")
    return name


def with_heartbeat(
    lease_remaining_ratio: float = 0.5,
    cancel_on_lease_lost: bool = False,  # noqa: FBT002  # the contract's signature
) -> Callable[[Callable[[Context], Awaitable[None] | None]], Callable[[Context], Awaitable[None]]]:
    """Decorates a body so that its lease is extended in the background for as long as it runs.

    Args:
        lease_remaining_ratio: Which part of the lease is left when it is extended, between 0 and 1, both excluded.
        cancel_on_lease_lost: Whether an async body is cancelled when its lease is lost. A plain function, which runs
            in a thread, cannot be cancelled.

    Raises:
        ConfigurationError: The ratio is not between 0 and 1.
    """
    ratio = options.fraction("lease_remaining_ratio", lease_remaining_ratio)
    options.flag("cancel_on_lease_lost", cancel_on_lease_lost)

    def decorate(body: Callable[[Context], Awaitable[None] | None]) -> Callable[[Context], Awaitable[None]]:
        awaited = is_async(body)

        @functools.wraps(body)
        async def beating(context: Context) -> None:
            cancels = cancel_on_lease_lost and awaited
            await keep_leased(context, lambda: call_body(body, context, awaited=awaited), 1 - ratio, cancels=cancels)

        return beating

    return decorate


async def call_body(body: Callable[[Context], Awaitable[None] | None], context: Context, *, awaited: bool) -> None:
    """Calls a body: awaits an async one, runs a plain one in a worker thread (abandoned when it is cancelled)."""
    if awaited:
        await body(context)  # type: ignore[misc]
        return
    limiter = context.app_context.thread_limiter
    result = await anyio.to_thread.run_sync(body, context, limiter=limiter, abandon_on_cancel=True)
    if inspect.isawaitable(result):
        await result


async def keep_leased(
    context: Context, body: Callable[[], Awaitable[None]], elapsed_ratio: float, *, cancels: bool
) -> None:
    """Runs `body` and extends the lease each time `elapsed_ratio` of it has passed.

    Raises:
        LeaseLostError: The lease was lost and `cancels` was asked for; the body was cancelled.
    """
    if context.task.execution_mode is ExecutionMode.AT_MOST_ONCE:
        await body()
        return
    period = context.task.lease_duration.total_seconds() * elapsed_ratio
    failure: BaseException | None = None
    lost = False

    async def beat() -> None:
        nonlocal lost
        while True:
            await anyio.sleep(period)
            try:
                await context.heartbeat()
            except LeaseLostError:
                logger.warning("%s: the lease was lost while it runs; its result will not be recorded", context.task)
                if cancels:
                    lost = True
                    group.cancel_scope.cancel()
                return
            except RepositoryError as error:
                logger.warning("%s: the lease could not be extended yet: %s", context.task, error)

    async with anyio.create_task_group() as group:
        group.start_soon(beat)
        try:
            await body()
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException as error:  # noqa: BLE001  # raised again below, outside the group that would wrap it
            failure = error
        group.cancel_scope.cancel()
    if lost:
        raise LeaseLostError(str(context.task))
    if failure is not None:
        raise failure
