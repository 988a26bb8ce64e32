"""Storing many things batch for batch: the next batch is prepared while the store writes the one before.

Knows: two coroutine functions. Must not know: what the batches are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import anyio

from anyscheduler.execution import is_cancelled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sized

Batch = TypeVar("Batch", bound="Sized")


async def store_all(prepare: Callable[[], Awaitable[Batch]], store: Callable[[Batch], Awaitable[None]]) -> int:
    """Stores what is prepared until a batch is empty, and returns how many were stored.

    Args:
        prepare: Returns the next batch.
        store: Stores one, and is called with one at a time.

    Raises:
        BaseException: What either has raised, once the other has ended; that of the batch before, if both have.
    """
    count = 0
    batch = await prepare()
    while batch:
        errors: list[BaseException] = []

        async def store_this(batch: Batch = batch, errors: list[BaseException] = errors) -> None:
            try:
                await store(batch)
            except Exception as error:  # noqa: BLE001  # raised below, outside the group that would wrap it
                errors.insert(0, error)

        following: Batch | None = None
        async with anyio.create_task_group() as meanwhile:
            meanwhile.start_soon(store_this)
            # Here, and not in a task of its own: what is prepared comes from users, whose context variables would be
            # others there, and whose SystemExit would end the event loop.
            try:
                following = await prepare()
            except BaseException as error:  # raised below as well, unless it is this call that was cancelled
                if isinstance(error, anyio.get_cancelled_exc_class()) and is_cancelled():
                    raise
                errors.append(error)
        if errors:
            raise errors[0]
        count += len(batch)
        assert following is not None
        batch = following
    return count
