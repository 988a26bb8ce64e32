"""Calling a body: on the event loop or in a thread, with its lease kept alive if that is asked for.

Knows: contexts and their heartbeat. Must not know: stores, outcomes, the loop.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from anyscheduler import options
from anyscheduler.errors import LeaseLostError, RepositoryError
from anyscheduler.logs import get_logger
from anyscheduler.task import ExecutionMode, Task, is_async

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from anyscheduler.context import Context

logger = get_logger(__name__)


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
        if isinstance(body, Task):
            options.refuse("the body", body, "a function; put with_heartbeat below the decorator of the app")
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

    def caught() -> tuple[Awaitable[None] | None, BaseException | None]:
        # Carried over as a value: some exceptions mean something else to the futures and coroutines on the way.
        try:
            return body(context), None
        except BaseException as error:  # noqa: BLE001  # raised again below
            return None, error

    limiter = context.app_context.thread_limiter
    result, error = await anyio.to_thread.run_sync(caught, limiter=limiter, abandon_on_cancel=True)
    if error is not None:
        raise error
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

    ended = False
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(beat)
            try:
                await body()
            except BaseException as error:  # noqa: BLE001  # raised again below, outside the group that would wrap it
                failure = error
            ended = True
            group.cancel_scope.cancel()
    except anyio.get_cancelled_exc_class():
        # Leaving the group is a wait, which a hard stop may cut off; that does not undo what the body has done.
        if not ended:
            raise
    if lost:
        raise LeaseLostError(str(context.task))
    if failure is not None:
        raise failure
