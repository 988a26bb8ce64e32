"""What the guarantees page promises, where no other test looks."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING

import anyio
import pytest

from anyscheduler import Context, Scheduler

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.anyio
async def test_scheduling_a_damaged_instance_again_replaces_it_though_the_app_has_set_it_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "schedules.db"
    app = Scheduler(sqlite_database=file)
    executed = anyio.Event()

    @app.dynamic_task()
    async def task(context: Context) -> None:
        executed.set()

    async with app.create() as app_context:
        await app_context.schedule_task(task, "name", interval=timedelta(milliseconds=1))
        with closing(sqlite3.connect(file)) as connection, connection:
            connection.execute("UPDATE anyscheduler SET spec = '{damaged' WHERE key = 'task:name'")

        async with anyio.create_task_group() as group:
            await group.start(app_context.run)
            with anyio.fail_after(10):
                while "set aside" not in caplog.text:
                    await anyio.sleep(0.01)
            damaged = await app_context.get_task(task, "name")
            assert damaged is not None
            assert damaged.error is not None
            # Nobody executes it.
            assert damaged.locked_until is None
            await app_context.schedule_task(task, "name", interval=timedelta(milliseconds=1))
            with anyio.fail_after(10):
                await executed.wait()
            app_context.shutdown()
