"""Storing many things batch for batch: the next batch is prepared while the store writes the one before.

Knows: two coroutine functions. Must not know: what the batches are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import anyio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sized

Batch = TypeVar("Batch", bound="Sized")


async def store_all(prepare: Callable[[], Awaitable[Batch]], store: Callable[[Batch], Awaitable[None]]) -> int:
    """Stores what is prepared until a batch is empty, and returns how many were stored.

    Args:
        prepare: Returns the next batch.
        store: Stores one, and is called with one at a time.

    Raises:
        Exception: What either has raised, once the other has ended; that of the batch before, if both have.
    """
    count = 0
    batch = await prepare()
    while batch:
        prepared: list[Batch] = []
        errors: list[Exception] = []

        async def prepare_next(prepared: list[Batch] = prepared, errors: list[Exception] = errors) -> None:
            try:
                prepared.append(await prepare())
            except Exception as error:  # noqa: BLE001  # raised below, when what came before is stored
                errors.append(error)

        async with anyio.create_task_group() as meanwhile:
            meanwhile.start_soon(prepare_next)
            try:
                await store(batch)
            except Exception as error:  # noqa: BLE001  # raised below, outside the group that would wrap it
                errors.insert(0, error)
        if errors:
            raise errors[0]
        count += len(batch)
        [batch] = prepared
    return count
