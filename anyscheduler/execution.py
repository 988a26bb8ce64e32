"""One occurrence: the onion of middlewares around the body, and what came of it.

Knows: contexts, middlewares, exceptions. Must not know: stores, leases, what an outcome leads to.
"""

from __future__ import annotations

import enum
import math
from typing import TYPE_CHECKING, TypeAlias

import anyio

from anyscheduler.body import call_body, keep_leased
from anyscheduler.clock import from_micros
from anyscheduler.errors import LeaseLostError, MiddlewareError
from anyscheduler.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from anyscheduler.context import Context, Execution
    from anyscheduler.task import Task

    Next: TypeAlias = Callable[[], Awaitable[None]]
    Middleware: TypeAlias = Callable[[Context, Next], Awaitable[None]]

logger = get_logger(__name__)

_HEARTBEAT_RATIO = 0.5


class Outcome(enum.Enum):
    """What came of an execution.

    SUCCEEDED: the body returned.
    SKIPPED: a middleware returned without calling the body; settled like a success.
    FAILED: the body or a middleware raised.
    CANCELLED: the app is being stopped hard, and the body has ended.
    ABANDONED: the app is being stopped hard, and the body goes on in a thread that cannot be stopped.
    LEASE_LOST: somebody else has the occurrence; nothing of this execution counts.
    """

    SUCCEEDED = enum.auto()
    SKIPPED = enum.auto()
    FAILED = enum.auto()
    CANCELLED = enum.auto()
    ABANDONED = enum.auto()
    LEASE_LOST = enum.auto()


async def execute(execution: Execution, context: Context, middlewares: Sequence[Middleware]) -> Outcome:
    """Runs the body of a task inside the middlewares, the first one outermost.

    It never raises: whatever the body does, SystemExit and KeyboardInterrupt included, is this task's own affair.
    """
    # Taken from the execution: the context is in the hands of user code, which may set what it likes there.
    task = execution.task
    if middlewares:
        reached, cut_off, failure = await _run_inside(middlewares, task, context)
    else:
        reached, cut_off, failure = True, False, None
        try:
            await _run_body(task, context)
        except BaseException as error:  # noqa: BLE001  # the docstring's promise
            cut_off, failure = is_cancelled(), error
    # 1. A scope around the execution was cancelled, because the app stops hard, and the body was cut off by that,
    #    whatever the middlewares made of it; or a middleware was.
    # 2. Nothing was raised.
    # 3. The lease was lost: the body was cancelled for it, or passed on the error of its heartbeat.
    # 4. Anything else is a failure: also a cancellation that nobody asked for, SystemExit and KeyboardInterrupt.
    if cut_off or (failure is not None and not isinstance(failure, Exception) and is_cancelled()):
        return Outcome.ABANDONED if cut_off and not task.is_async else Outcome.CANCELLED
    if failure is None:
        if reached:
            return Outcome.SUCCEEDED
        logger.info("%s: skipped, a middleware did not call next()", task)
        return Outcome.SKIPPED
    if isinstance(failure, LeaseLostError):
        return Outcome.LEASE_LOST
    due = from_micros(execution.row.due_at, task.zone).isoformat()
    logger.warning("%s: the execution due at %s failed (%s)", task, due, type(failure).__name__, exc_info=failure)
    return Outcome.FAILED


async def _run_body(task: Task, context: Context) -> None:
    if task.heartbeat:
        await keep_leased(
            context,
            lambda: call_body(task.func, context, awaited=task.is_async),
            _HEARTBEAT_RATIO,
            cancels=task.is_async,
        )
    elif task.is_async:
        await task.func(context)  # type: ignore[misc]  # that is what is_async says
    else:
        await call_body(task.func, context, awaited=False)


async def _run_inside(
    middlewares: Sequence[Middleware], task: Task, context: Context
) -> tuple[bool, bool, BaseException | None]:
    """Returns whether the body was called, whether a cancelled scope cut it off, and what came out of the onion."""
    reached = cut_off = False

    async def body() -> None:
        nonlocal reached, cut_off
        reached = True
        try:
            await _run_body(task, context)
        except BaseException:
            # Whatever it raised on the way out: a clean-up that fails is due to the stop as well.
            cut_off = is_cancelled()
            raise

    call: Next = body
    for middleware in reversed(middlewares):
        call = _layer(middleware, context, call, task)
    try:
        await call()
    except BaseException as error:  # noqa: BLE001  # the promise of `execute`
        return reached, cut_off, error
    return reached, cut_off, None


def _layer(middleware: Middleware, context: Context, inner: Next, task: Task) -> Next:
    called = False

    async def next_once() -> None:
        nonlocal called
        if called:
            name = getattr(middleware, "__name__", repr(middleware))
            raise MiddlewareError(f"middleware {name!r} called next() twice for task {str(task)!r}")
        called = True
        await inner()

    async def call() -> None:
        await middleware(context, next_once)

    return call


def is_cancelled() -> bool:
    """Tells whether a scope around the caller was cancelled, so that its next wait will not happen."""
    return anyio.current_effective_deadline() == -math.inf
