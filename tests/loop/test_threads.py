"""Plain functions as bodies, in worker threads. Threads do not wait for virtual time, so this is the real one."""

from __future__ import annotations

import threading
from datetime import timedelta

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest

from anyscheduler import Context, FailureMode, Scheduler
from tests.loop.scene import RAISED, Backend, name_of


def _on_real_time(app: Scheduler, done: threading.Event, backend: Backend) -> None:
    """Runs an app until `done` is set by one of its bodies."""

    async def main() -> None:
        with anyio.fail_after(10):
            async with app.create() as app_context, anyio.create_task_group() as group:
                await group.start(app_context.run)
                await anyio.to_thread.run_sync(done.wait, 5, abandon_on_cancel=True)
                app_context.shutdown()

    anyio.run(main, backend=backend)


both = pytest.mark.parametrize("backend", ["asyncio", "trio"])
SHORT = timedelta(milliseconds=10)


@both
def test_a_plain_function_runs_in_a_thread_and_leaves_the_event_loop_free(backend: Backend) -> None:
    app = Scheduler()
    ticked, done = threading.Event(), threading.Event()
    threads: list[int] = []

    @app.task(interval=SHORT)
    def blocks(context: Context) -> None:
        threads.append(threading.get_ident())
        if ticked.wait(10):
            done.set()

    @app.task(interval=SHORT)
    async def ticks(context: Context) -> None:
        if threads:
            ticked.set()

    _on_real_time(app, done, backend)

    assert threads[0] != threading.get_ident()


@both
@pytest.mark.parametrize("error", RAISED, ids=name_of)
def test_whatever_a_plain_function_raises_it_has_failed_and_the_app_goes_on(
    error: BaseException, backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    app = Scheduler()
    done = threading.Event()
    starts: list[int] = []

    @app.task(interval=SHORT, failure_mode=FailureMode.COMMIT)
    def raises(context: Context) -> None:
        starts.append(len(starts))
        if len(starts) == 1:
            raise error
        done.set()

    _on_real_time(app, done, backend)

    assert len(starts) >= 2
    assert len([record for record in caplog.records if "failed" in record.message]) == 1


@both
def test_a_plain_function_beats_through_the_event_loop(backend: Backend) -> None:
    app = Scheduler()
    done = threading.Event()
    fences: list[str] = []

    @app.task(interval=SHORT)
    def beats(context: Context) -> None:
        anyio.from_thread.run(context.heartbeat)
        fences.append(context.fence)
        done.set()

    _on_real_time(app, done, backend)

    assert fences


@both
def test_a_plain_function_with_a_heartbeat_keeps_its_lease(backend: Backend) -> None:
    app = Scheduler(poll_interval=SHORT)
    done, overtaken = threading.Event(), threading.Event()
    starts: list[object] = []

    @app.task(interval=timedelta(seconds=1), lease_duration=timedelta(milliseconds=300), heartbeat=True)
    def long(context: Context) -> None:
        starts.append(context.scheduled_at)
        if len(starts) > 1:
            overtaken.set()
        overtaken.wait(0.9)
        done.set()

    _on_real_time(app, done, backend)

    assert len(starts) == 1


@both
def test_as_many_plain_functions_run_at_a_time_as_the_concurrency_limit_allows(backend: Backend) -> None:
    app = Scheduler(concurrency_limit=3)
    done, meeting = threading.Event(), threading.Barrier(3)

    def meets(context: Context) -> None:
        meeting.wait(10)
        done.set()

    for number in range(3):
        app.task(name=f"meets {number}", interval=timedelta(milliseconds=200))(meets)

    _on_real_time(app, done, backend)

    assert not meeting.broken
