"""What is added to an app: values in the context."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import anyio
import pytest

from anyscheduler import AppContext, ConfigurationError, Context
from tests.loop.scene import running, virtual, virtual_app

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def _fixture(app_context: AppContext) -> AsyncIterator[str]:
    yield "a value"


@virtual
async def test_add_to_context_reaches_every_later_execution() -> None:
    app = virtual_app()
    seen: list[object] = []

    @app.task(interval=timedelta(seconds=1))
    async def tick(context: Context) -> None:
        seen.append(getattr(context, "greeting", None))

    async with running(app) as app_context:
        await anyio.sleep(1.5)
        app_context.add_to_context("greeting", "hello")
        await anyio.sleep(1)

    assert seen == [None, "hello"]


@pytest.mark.parametrize("name", ["task", "args", "heartbeat", "_private", "no name", "", "db", 5])
@virtual
async def test_a_name_that_the_context_cannot_give_away_is_refused(name: str) -> None:
    app = virtual_app()
    app.use_fixture("db", _fixture)

    with pytest.raises(ConfigurationError, match="refused"):
        app.use_fixture(name, _fixture)
    async with app.create() as app_context:
        with pytest.raises(ConfigurationError, match="refused"):
            app_context.add_to_context(name, 1)


@virtual
async def test_an_app_can_be_created_again_and_has_its_fixtures_set_up_anew() -> None:
    app = virtual_app()
    events: list[str] = []

    @app.fixture()
    async def db(app_context: AppContext) -> AsyncIterator[None]:
        events.append("db up")
        yield
        events.append("db down")

    for _ in range(2):
        async with app.create():
            events.append("created")

    assert events == ["db up", "created", "db down"] * 2
