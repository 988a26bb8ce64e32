"""How a refusal has to read, wherever it comes from, and that it leaves nothing behind."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import anyio
import pytest

from anyscheduler import ConfigurationError, Context, Scheduler

if TYPE_CHECKING:
    from collections.abc import Iterator

NewApp: TypeAlias = Callable[[], Scheduler]
"""Returns an app; another one on the same place, when it is called again."""

DAILY: Final[dict[str, Any]] = {"schedule": "@daily"}
"""A schedule that nothing is wrong with."""

_LONGEST = 600


async def body(context: Context) -> None:
    """The body of every task here; what is refused never runs."""


@contextmanager
def refused(*words: str) -> Iterator[None]:
    """Expects a refusal: one short printable line that holds each of the words."""
    with pytest.raises(ConfigurationError) as caught:
        yield
    message = str(caught.value)
    assert [word for word in words if word not in message] == [], message
    assert message.isprintable()
    assert len(message) < _LONGEST


def as_shown(value: object) -> str:
    """Returns the beginning of a value as every refusal shows it, within 80 characters."""
    return repr(value)[:77]


def refused_wherever_it_is_given(given: dict[str, Any], *words: str) -> None:
    """Gives options to each kind of definition and to both ways to schedule an instance; all have to refuse them.

    Nothing may be defined or stored afterwards.
    """
    app = Scheduler()
    for define in (app.task, app.dynamic_task, partial(app.partitioned_task, partition_count=2)):
        with refused(*words):
            define(**{"name": "x", **given})(body)
    assert app._tasks == {}
    refused_for_an_instance(given, *words)


def refused_for_an_instance(given: dict[str, Any], *words: str, name: Any = "x") -> None:
    """Gives options to both ways to schedule an instance; both have to refuse them, and nothing may be stored."""

    async def scene() -> None:
        app = Scheduler()
        task = app.dynamic_task()(body)
        async with app.create() as app_context:
            with refused(*words):
                await app_context.schedule_task(task, name, **given)
            with refused(*words):
                await app_context.schedule_tasks(task, [("good", {"schedule": "@daily"}), (name, given)])
            assert (await app_context.list_tasks(task)).tasks == []

    anyio.run(scene)


def label(value: object) -> str:
    """Returns an id for a case."""
    try:
        text = ascii(value)
    except ValueError:  # an int that is too long for it
        text = "endless"
    text = re.sub(" at 0x[0-9a-f]+", "", text)  # an id is the same in every run
    return f"{text[:60]}-{len(text)}"
