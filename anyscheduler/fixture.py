"""Fixtures: async generators that set something up, yield it once, and tear it down.

Knows: async generators. Must not know: tasks, stores.
"""

from __future__ import annotations

import inspect
import math
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import anyio

from anyscheduler import options
from anyscheduler.errors import FixtureError
from anyscheduler.execution import is_cancelled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from anyscheduler.app_context import AppContext

_HARD_STOP_PATIENCE: Final = 5.0
"""How many seconds all teardowns together get when the app is cancelled."""


@dataclass(frozen=True, slots=True)
class Fixture:
    """A fixture as it was defined.

    Attributes:
        name: The attribute of the context that holds what it yields.
        func: The async generator function; it is called with the `AppContext`.
    """

    name: str
    func: Callable[[AppContext], AsyncIterator[Any]]

    @asynccontextmanager
    async def entered(self, app_context: AppContext) -> AsyncIterator[Any]:
        """Sets the fixture up, gives what it yields, and tears it down.

        Raises:
            FixtureError: It did not yield, or yielded twice. What it raises itself passes through.
        """
        try:
            async with asynccontextmanager(self.func)(app_context) as value:
                yield value
        except RuntimeError as error:
            # contextlib tells what went wrong in words only.
            match str(error):
                case "generator didn't yield":
                    raise FixtureError(f"fixture {self.name!r} ended without a yield") from error
                case "generator didn't stop" | "generator didn't stop after athrow()":
                    raise FixtureError(f"fixture {self.name!r} yielded a second time") from error
                case _:
                    raise


def check_fixture(func: object) -> None:
    """Accepts async generator functions.

    Raises:
        ConfigurationError: It is anything else.
    """
    if not inspect.isasyncgenfunction(func):
        options.refuse("fixture", func, "an async generator function: async def, with one yield")


@asynccontextmanager
async def set_up(fixtures: Sequence[Fixture], app_context: AppContext) -> AsyncIterator[None]:
    """Sets fixtures up in order, adds what they yield to the context, and tears them down in reverse.

    A fixture whose set-up fails stops this with its own exception, after tearing down those before it. One that fails
    in its teardown does not keep the others from theirs. When the app is cancelled, at whatever point, the teardowns
    that are left still get five seconds in which they can await as usual.
    """
    give_up_at = math.inf

    def protect(scope: anyio.CancelScope, _type: object, error: BaseException | None, _traceback: object) -> None:
        nonlocal give_up_at
        if isinstance(error, anyio.get_cancelled_exc_class()) or is_cancelled():
            give_up_at = min(give_up_at, anyio.current_time() + _HARD_STOP_PATIENCE)
            scope.shield = True
            scope.deadline = give_up_at

    async with AsyncExitStack() as stack:
        for fixture in fixtures:
            # A scope for each, around the scopes that the fixture itself may open and inside of those of the fixtures
            # before it: it can be shielded from any of them without disturbing the nesting.
            scope = stack.enter_context(anyio.CancelScope())
            value = await stack.enter_async_context(fixture.entered(app_context))
            stack.push(partial(protect, scope))
            app_context.add_to_context(fixture.name, value)
        yield
