"""Rows that cannot be read: set aside, reported, listed, never deleted, and nobody else's affair."""

from __future__ import annotations

from datetime import timedelta

import anyio
import pytest

from anyscheduler import Context, TaskLockedError
from anyscheduler.lease import Change, Row
from tests.loop.damage import GOOD, HUGE, SPECS, Scene
from tests.loop.scene import START, micros, run_for, running, virtual


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
@virtual
async def test_a_spec_that_cannot_be_read_is_set_aside_reported_once_a_minute_and_never_deleted(
    spec: str, caplog: pytest.LogCaptureFixture
) -> None:
    scene = Scene()
    row = await scene.smuggle("hello:bad", spec=spec)

    async with running(scene.app) as app_context:
        await app_context.schedule_task(scene.hello, "good", execute_at=START + timedelta(seconds=5))
        await anyio.sleep(154)
        page = await app_context.list_tasks(scene.hello)
    stored = await scene.repository.row("hello:bad")

    assert scene.bodies == ["good"]
    assert scene.others == [10 * number for number in range(1, 16)]
    assert (stored.spec, stored.state, stored.due_at) == (row.spec, row.state, row.due_at)
    assert [(state.task.name, state.error is not None) for state in page.tasks] == [("bad", True)]
    reports = [record.message for record in caplog.records if "hello:bad" in record.message]
    assert len(reports) == 3


@pytest.mark.parametrize("due", [-HUGE, -1 * 10**17, HUGE, 10**18], ids=str)
@virtual
async def test_an_absurd_due_time_is_set_aside_and_never_deleted(due: int, caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene()
    await scene.smuggle("hello:bad", due=due)

    async with running(scene.app) as app_context:
        await anyio.sleep(31)
        page = await app_context.list_tasks(scene.hello)

    assert scene.bodies == []
    assert scene.others == [10, 20, 30]
    assert (await scene.repository.row("hello:bad")).due_at == due
    assert page.tasks[0].error is not None
    assert len([record for record in caplog.records if "hello:bad" in record.message]) == 1


@virtual
async def test_an_instance_of_what_is_a_static_task_now_is_set_aside_and_the_static_one_runs() -> None:
    scene = Scene()
    await scene.smuggle("other:bill", task="other")

    await run_for(scene.app, 31)

    assert scene.others == [10, 20, 30]
    assert (await scene.repository.row("other:bill")).spec == GOOD


@virtual
async def test_a_static_row_of_what_is_a_dynamic_task_now_is_set_aside_and_instances_run() -> None:
    scene = Scene()
    await scene.smuggle("hello", spec="")

    async with running(scene.app) as app_context:
        await app_context.schedule_task(scene.hello, "it", execute_at=START)
        await anyio.sleep(31)

    assert scene.bodies == ["it"]
    assert (await scene.repository.row("hello")).spec == ""


@virtual
async def test_rows_of_unknown_tasks_are_left_untouched_and_unleased() -> None:
    scene = Scene()
    row = await scene.smuggle("from the future:it", task="from the future@2", spec='{"v":2}')

    await run_for(scene.app, 31)

    assert await scene.repository.row("from the future:it") == row
    assert scene.others == [10, 20, 30]


@virtual
async def test_nothing_in_a_row_selects_the_body() -> None:
    scene = Scene()
    await scene.smuggle("hello:it", spec='{"v":1,"interval":5000000,"func":"os.system","task":"other","name":"other"}')

    await run_for(scene.app, 6)

    assert scene.bodies == ["it"]
    assert scene.others == []


@virtual
async def test_a_thousand_corrupt_rows_make_nobody_late() -> None:
    scene = Scene()
    for number in range(1000):
        await scene.smuggle(f"hello:{number}", spec="{")

    async with running(scene.app) as app_context:
        await app_context.schedule_task(scene.hello, "good", execute_at=START + timedelta(seconds=5))
        await anyio.sleep(31)

    assert scene.bodies == ["good"]
    assert scene.others == [10, 20, 30]
    assert len(await scene.repository.keys()) == 1001


@virtual
async def test_registering_a_damaged_instance_anew_heals_it() -> None:
    scene = Scene()
    await scene.smuggle("hello:a", spec="{")
    await scene.smuggle("hello:b", state="{")

    async with running(scene.app) as app_context:
        for name in ("a", "b"):
            await app_context.schedule_task(scene.hello, name, interval=timedelta(seconds=10))
        await anyio.sleep(11)
        page = await app_context.list_tasks(scene.hello)

    assert sorted(scene.bodies) == ["a", "b"]
    assert [state.error for state in page.tasks] == [None, None]


@virtual
async def test_a_lease_that_ends_beyond_all_time_can_be_shown_refused_and_forced() -> None:
    scene = Scene()
    row = Row("hello:it", "hello", micros(5), HUGE, "0", GOOD, "")
    await scene.repository.write([Change(row.key, None, row)])

    async with running(scene.app) as app_context:
        state = await app_context.get_task(scene.hello, "it")
        with pytest.raises(TaskLockedError):
            await app_context.schedule_task(scene.hello, "it", interval=timedelta(seconds=3))
        await app_context.schedule_task(scene.hello, "it", interval=timedelta(seconds=3), force=True)
        await anyio.sleep(4)

    assert state is not None
    assert state.locked_until is not None
    assert scene.bodies == ["it"]


@pytest.mark.parametrize("due", [-HUGE, HUGE, 10**18], ids=str)
@virtual
async def test_an_absurd_due_time_of_a_static_task_does_not_keep_the_app_from_starting(due: int) -> None:
    scene = Scene()

    @scene.app.task(interval=timedelta(seconds=5))
    async def static(context: Context) -> None:
        scene.bodies.append("static")

    state = '{"fingerprint":"every 0:00:05","last":1}'
    await scene.smuggle("static", task="static", spec="", due=due, state=state)

    await run_for(scene.app, 31)

    assert scene.others == [10, 20, 30]
    assert scene.bodies == []
    assert (await scene.repository.row("static")).due_at == due
