"""Calls that come while one is under way go together as the next one: group commit for those who wait for the result.

Knows: a call that takes many items at once. Must not know: what the items are.

No task runs in the background: whoever comes first carries out the call, and then hands that duty over to the first of
those who have come meanwhile. So nobody works for others once its own item is done.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar, cast

import anyio

from anyscheduler.errors import RepositoryError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

Item = TypeVar("Item")
Result = TypeVar("Result")

_BATCH = 500
"""Items per call, as in settlement.py and for the same reason."""


class _Turn(Generic[Item, Result]):
    """One item that waits for its result."""

    __slots__ = ("called", "error", "is_done", "item", "leads", "result")

    def __init__(self, item: Item) -> None:
        self.item = item
        self.called = anyio.Event()
        self.leads = False
        self.is_done = False
        self.result: Result | None = None
        self.error: Exception | None = None


class Gathered(Generic[Item, Result]):
    """A call for one item that goes to the store together with others.

    Args:
        call: Takes 1 to 500 items with different keys, and returns the result of each, in their order.
        key: Returns what tells two items apart that must not be in one call.
    """

    def __init__(
        self, call: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]], *, key: Callable[[Item], str]
    ) -> None:
        self._call = call
        self._key = key
        self._waiting: deque[_Turn[Item, Result]] = deque()
        self._is_led = False

    async def __call__(self, item: Item) -> Result:
        """Returns the result for `item`.

        Cancelled while it carries out a call, it ends that call; the others in it are then carried out again.

        Raises:
            RepositoryError: The call failed, for all the items in it.
        """
        turn: _Turn[Item, Result] = _Turn(item)
        self._waiting.append(turn)
        if self._is_led:
            await self._wait(turn)
        if not turn.is_done:
            self._is_led = True
            try:
                await self._carry_out(self._next_batch())
            finally:
                self._hand_over()
        if turn.error is not None:
            raise turn.error
        return cast("Result", turn.result)

    async def _wait(self, turn: _Turn[Item, Result]) -> None:
        try:
            await turn.called.wait()
        except BaseException:
            # Also where it is in a call already: if that is carried out again, nobody waits for this one any more.
            turn.is_done = True
            if turn in self._waiting:
                self._waiting.remove(turn)
            if turn.leads:
                self._hand_over()
            raise

    def _next_batch(self) -> list[_Turn[Item, Result]]:
        batch: dict[str, _Turn[Item, Result]] = {}
        later: list[_Turn[Item, Result]] = []
        while self._waiting and len(batch) < _BATCH:
            turn = self._waiting.popleft()
            if batch.setdefault(self._key(turn.item), turn) is not turn:
                later.append(turn)
        self._waiting.extendleft(reversed(later))
        return list(batch.values())

    async def _carry_out(self, batch: list[_Turn[Item, Result]]) -> None:
        leader = batch[0]
        try:
            results = await self._call([turn.item for turn in batch])
        except Exception as error:  # noqa: BLE001  # whatever it is, nobody may wait for ever
            for turn in batch:
                # One exception is raised in one place: each raise adds to its traceback.
                turn.error = error if turn is leader else _same(error)
        except BaseException:
            self._waiting.extendleft(turn for turn in reversed(batch) if turn is not leader and not turn.is_done)
            raise
        else:
            for turn, result in zip(batch, results, strict=True):
                turn.result = result
        for turn in batch:
            turn.is_done = True
            turn.called.set()

    def _hand_over(self) -> None:
        self._is_led = bool(self._waiting)
        if self._waiting:
            self._waiting[0].leads = True
            self._waiting[0].called.set()


def _same(error: Exception) -> Exception:
    copied = RepositoryError(str(error))
    copied.__cause__ = error
    return copied
