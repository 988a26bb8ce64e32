"""Seeded scheduling on trio: the same seed runs the same tasks in the same order, on virtual time.

trio shuffles what is ready in each round, and has a switch for Hypothesis that first brings it into a fixed order. With
that switch on, the generator behind the shuffle decides everything. Ours does three things more: it may hold any task
back for a round, so that tasks overtake one another at every await and not within a round only; it holds all tasks of a
process that is stopped, as SIGSTOP does; and it counts the steps of each process, so that a fault can hit any await.
"""

from __future__ import annotations

import gc
import random
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, TypeVar
from unittest import mock

import trio
import trio.testing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

T = TypeVar("T")

_RUN: Final = trio._core._run

_MOST_ROUNDS: Final = 1_000_000
"""A hundred times what a run takes."""


class Steps:
    """The tasks of one process, as the event loop sees them.

    Attributes:
        is_stopped: Whether none of them may take a step.
    """

    def __init__(self) -> None:
        self.is_stopped = False
        self._held: list[Any] = []
        self._countdown = -1
        self._action: Callable[[], None] = lambda: None

    def at(self, step: int, action: Callable[[], None]) -> None:
        """Calls `action` when so many more steps are taken."""
        self._countdown, self._action = step, action

    def takes(self, task: Any) -> bool:
        """Tells whether a task that is ready may take its step now; otherwise it is kept until `resume`."""
        if not self.is_stopped:
            self._countdown -= 1
            if self._countdown == 0:
                self._action()
        if self.is_stopped:
            self._held.append(task)
        return not self.is_stopped

    def stop(self) -> None:
        """Stops the process, between any two of its steps."""
        self.is_stopped = True

    def resume(self) -> None:
        """Lets it go on where it was."""
        self.is_stopped = False
        _RUN.GLOBAL_RUN_CONTEXT.runner.runq.extend(self._held)
        self._held.clear()


STEPS: Final[ContextVar[Steps | None]] = ContextVar("STEPS", default=None)
"""The process that a task belongs to."""


class _Order(random.Random):
    """Stands in for the generator that trio shuffles each round with."""

    def __init__(self, seed: str, hold_back: float, everything: trio.CancelScope) -> None:
        super().__init__(seed)
        self._hold_back = hold_back
        self._everything = everything
        self._rounds = 0

    def shuffle(self, batch: Any) -> None:
        self._rounds += 1
        if self._rounds == _MOST_ROUNDS:
            self._everything.cancel()
        super().shuffle(batch)
        ready = batch.copy()
        batch.clear()
        for task in ready:
            steps = task.context.get(STEPS)
            if steps is None:
                batch.append(task)
            elif self._hold_back and self.random() < self._hold_back:
                _RUN.GLOBAL_RUN_CONTEXT.runner.runq.append(task)
            elif steps.takes(task):
                batch.append(task)


@contextmanager
def _seeded(seed: int, order: _Order) -> Iterator[None]:
    before = random.getstate()
    with ExitStack() as stack:
        stack.callback(random.setstate, before)
        stack.enter_context(mock.patch.object(_RUN, "_ALLOW_DETERMINISTIC_SCHEDULING", True))
        stack.enter_context(mock.patch.object(_RUN, "_r", order))
        # What the engine draws: the random part of tokens, of delays and of sleeps.
        random.seed(f"engine {seed}")
        # It runs when it likes, and what it finds may have a say in what runs next.
        gc.disable()
        stack.callback(gc.enable)
        yield


def run_seeded(function: Callable[[], Awaitable[T]], seed: int, hold_back: float) -> T:
    """Runs an async function on virtual time, in the order that the seed decides.

    Args:
        function: The async function.
        seed: Decides the order, and what the engine draws.
        hold_back: How probably a task that is ready waits for the next round, each time.

    Raises:
        RuntimeError: It takes more rounds of the event loop than any run should.
    """
    everything = trio.CancelScope()

    async def run() -> T:
        with everything:
            return await function()
        raise RuntimeError("the simulation does not come to an end: is there a loop that never waits?")

    with _seeded(seed, _Order(f"order {seed}", hold_back, everything)):
        return trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))
