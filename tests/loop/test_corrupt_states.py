"""Rows whose state, the memory of the rules, cannot be read."""

from __future__ import annotations

import json
from datetime import timedelta

import anyio
import pytest

from anyscheduler import Context, FailureMode
from tests.loop.damage import HUGE, STATES, Scene
from tests.loop.scene import micros, run_for, running, virtual


@pytest.mark.parametrize(("name", "mode"), [("works", FailureMode.NONE), ("fails", FailureMode.UNLOCK)])
@pytest.mark.parametrize("state", STATES.values(), ids=STATES.keys())
@virtual
async def test_an_instance_whose_state_cannot_be_read_is_set_aside_before_its_body_runs(
    state: str, name: str, mode: FailureMode
) -> None:
    scene = Scene(failure_mode=mode)
    await scene.smuggle(f"hello:{name}", state=state)

    async with running(scene.app) as app_context:
        await anyio.sleep(31)
        page = await app_context.list_tasks(scene.hello)

    assert scene.others == [10, 20, 30]
    assert scene.bodies == []
    assert (await scene.repository.row(f"hello:{name}")).due_at == micros(5)
    assert [shown.error is not None for shown in page.tasks] == [True]


@pytest.mark.parametrize("state", STATES.values(), ids=STATES.keys())
@virtual
async def test_a_static_task_whose_state_cannot_be_read_is_set_aside_and_the_app_starts(state: str) -> None:
    scene = Scene()

    @scene.app.task(interval=timedelta(seconds=5))
    async def static(context: Context) -> None:
        scene.bodies.append("static")

    await scene.smuggle("static", task="static", spec="", state=state)

    async with running(scene.app) as app_context:
        await anyio.sleep(31)
        shown = await app_context.get_task(static)

    assert scene.others == [10, 20, 30]
    assert scene.bodies == []
    assert shown is not None
    assert shown.error is not None
    assert (await scene.repository.row("static")).due_at == micros(5)


@pytest.mark.parametrize("state", ["", "{}"], ids=["nothing", "an empty object"])
@virtual
async def test_a_static_task_whose_last_run_is_not_known_is_not_caught_up_from_1970(state: str) -> None:
    scene = Scene()

    @scene.app.task(interval=timedelta(seconds=5))
    async def static(context: Context) -> None:
        scene.bodies.append("static")
        if len(scene.bodies) > 20:
            context.app_context.shutdown()

    await scene.smuggle("static", task="static", spec="", state=state)

    await run_for(scene.app, 31)

    assert scene.others == [10, 20, 30]
    assert len(scene.bodies) <= 7


@pytest.mark.parametrize("last", [HUGE, -HUGE, 10**18])
@pytest.mark.parametrize(
    "timing",
    [{"interval": timedelta(seconds=5)}, {"schedule": "* * * * *", "timezone": "Europe/Dublin"}],
    ids=["interval", "cron"],
)
@virtual
async def test_an_absurd_last_run_of_a_static_task_does_not_keep_the_app_from_starting(
    last: int, timing: dict[str, object]
) -> None:
    scene = Scene()

    @scene.app.task(**timing)
    async def static(context: Context) -> None:
        scene.bodies.append("static")

    state = json.dumps({"fingerprint": "as it was before", "last": last})
    await scene.smuggle("static", task="static", spec="", due=micros(100_000), state=state)

    await run_for(scene.app, 31)

    assert scene.others == [10, 20, 30]
    assert "static" in await scene.repository.keys()


@pytest.mark.parametrize("state", STATES.values(), ids=STATES.keys())
@virtual
async def test_stopping_during_a_claim_that_brings_a_damaged_row_gives_all_the_others_back(state: str) -> None:
    scene = Scene()
    await scene.smuggle("hello:a", state=state)
    await scene.smuggle("hello:b")

    async with running(scene.app):
        await anyio.sleep(4.5)
        scene.repository.slow_replies["claim"] = 2
        await anyio.sleep(1)
    good = await scene.repository.row("hello:b")

    assert scene.bodies == []
    assert good.due_at == good.claimable_at == micros(5)
