"""One occurrence: the onion of middlewares around the body, and what came of it.

Knows: contexts, middlewares, exceptions. Must not know: stores, leases, what an outcome leads to.
"""

from __future__ import annotations

import enum
import logging
import math
from typing import TYPE_CHECKING, TypeAlias

import anyio

from anyscheduler.body import call_body, keep_leased
from anyscheduler.errors import LeaseLostError, MiddlewareError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from anyscheduler.context import Context

    Next: TypeAlias = Callable[[], Awaitable[None]]
    Middleware: TypeAlias = Callable[[Context, Next], Awaitable[None]]

logger = logging.getLogger(__name__)

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


async def execute(context: Context, middlewares: Sequence[Middleware]) -> Outcome:
    """Runs the body of `context.task` inside the middlewares, the first one outermost.

    It never raises: whatever the body does, SystemExit and KeyboardInterrupt included, is this task's own affair.
    """
    task = context.task
    reached = False

    async def body() -> None:
        nonlocal reached
        reached = True
        if task.heartbeat:
            await keep_leased(
                context,
                lambda: call_body(task.func, context, awaited=task.is_async),
                _HEARTBEAT_RATIO,
                cancels=task.is_async,
            )
        else:
            await call_body(task.func, context, awaited=task.is_async)

    call: Next = body
    for middleware in reversed(middlewares):
        call = _layer(middleware, context, call)
    try:
        await call()
    except BaseException as error:  # noqa: BLE001  # the docstring's promise
        return _outcome_of(error, context, reached=reached)
    if reached:
        return Outcome.SUCCEEDED
    logger.info("%s: skipped, a middleware did not call next()", task)
    return Outcome.SKIPPED


def _layer(middleware: Middleware, context: Context, inner: Next) -> Next:
    called = False

    async def next_once() -> None:
        nonlocal called
        if called:
            name = getattr(middleware, "__name__", repr(middleware))
            raise MiddlewareError(f"middleware {name!r} called next() twice for task {str(context.task)!r}")
        called = True
        await inner()

    async def call() -> None:
        await middleware(context, next_once)

    return call


def _outcome_of(error: BaseException, context: Context, *, reached: bool) -> Outcome:
    """Tells what an exception means.

    1. A scope around the execution was cancelled: the app stops hard, and what the body raised is due to that.
    2. The lease was lost: the execution was cancelled for it, or the body passed on the error of its heartbeat.
    3. Anything else is a failure: also a cancellation that nobody asked for, SystemExit and KeyboardInterrupt.
    """
    if not isinstance(error, Exception) and is_cancelled():
        goes_on = reached and not context.task.is_async
        return Outcome.ABANDONED if goes_on else Outcome.CANCELLED
    if isinstance(error, LeaseLostError):
        return Outcome.LEASE_LOST
    logger.warning(
        "%s: the execution due at %s failed (%s)",
        context.task,
        context.scheduled_at.isoformat(),
        type(error).__name__,
        exc_info=error,
    )
    return Outcome.FAILED


def is_cancelled() -> bool:
    """Tells whether a scope around the caller was cancelled, so that its next wait will not happen."""
    return anyio.current_effective_deadline() == -math.inf
