"""What `on_event` is told, and in which order."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import anyio
import pytest

from anyscheduler import ConfigurationError, Context, Event, EventKind, ExecutionMode, FailureMode, Scheduler
from tests.loop.scene import START, running, virtual, virtual_app

if TYPE_CHECKING:
    from collections.abc import Sequence

SECOND = timedelta(seconds=1)


def kinds_of(events: Sequence[Event], name: str) -> list[str]:
    return [f"{event.kind} {event.detail}".rstrip() for event in events if event.name == name]


@virtual
async def test_an_execution_is_claimed_started_ended_sent_and_committed() -> None:
    events: list[Event] = []
    app = virtual_app(on_event=events.append)

    @app.task(interval=SECOND)
    async def tick(context: Context) -> None:
        fences.append(context.fence)

    fences: list[str] = []
    async with running(app):
        await anyio.sleep(1.5)

    scheduled, *execution = events
    assert scheduled == Event(EventKind.SCHEDULED, START, "tick", START + SECOND, scheduled.fence)
    assert kinds_of(execution, "tick") == ["claimed", "started", "ended succeeded", "sent committed", "committed"]
    assert {(event.key, event.scheduled_at, event.fence) for event in execution} == {
        ("tick", START + SECOND, fences[0])
    }
    claimed, *_, committed = execution
    assert claimed.until == START + SECOND + timedelta(seconds=60)
    assert committed.until == START + 2 * SECOND


@virtual
async def test_at_most_once_commits_before_it_starts() -> None:
    events: list[Event] = []
    app = virtual_app(on_event=events.append)

    @app.task(interval=SECOND, execution_mode=ExecutionMode.AT_MOST_ONCE)
    async def tick(context: Context) -> None:
        raise ValueError

    async with running(app):
        await anyio.sleep(1.5)

    assert kinds_of(events, "tick") == [
        "scheduled",
        "claimed",
        "sent committed",
        "committed",
        "started",
        "ended failed",
    ]


@virtual
async def test_a_failure_that_is_tried_again_is_released_and_a_heartbeat_extends() -> None:
    events: list[Event] = []
    app = virtual_app(on_event=events.append)

    @app.task(interval=timedelta(minutes=1), failure_mode=FailureMode.UNLOCK)
    async def tick(context: Context) -> None:
        await context.heartbeat()
        raise ValueError

    async with running(app):
        await anyio.sleep(60.5)

    assert kinds_of(events, "tick")[1:] == [
        "claimed",
        "started",
        "sent extended",
        "extended",
        "ended failed",
        "sent released",
        "released",
    ]
    assert events[-1].until == events[-1].at + timedelta(seconds=1)


@virtual
async def test_a_late_result_is_lost() -> None:
    events: list[Event] = []
    app = virtual_app(on_event=events.append)

    @app.dynamic_task()
    async def overtaken(context: Context) -> None:
        await context.app_context.unschedule_task(context.task)

    async with running(app) as app_context:
        await app_context.schedule_task(overtaken, "a:b", execute_at=START)
        await anyio.sleep(1)

    assert kinds_of(events, "overtaken:a:b") == [
        "scheduled",
        "claimed",
        "started",
        "unscheduled",
        "ended succeeded",
        "sent committed",
        "lost refused",
    ]


@virtual
async def test_a_fast_forward_tells_what_it_leaves_out() -> None:
    events: list[Event] = []
    app = virtual_app(on_event=events.append)

    @app.task(interval=SECOND, fast_forward=True)
    async def slow(context: Context) -> None:
        await anyio.sleep(3.5)

    async with running(app):
        await anyio.sleep(1.5)

    (skipped,) = [event for event in events if event.kind is EventKind.SKIPPED]
    assert (skipped.scheduled_at, skipped.until) == (START + 2 * SECOND, START + 5 * SECOND)


@pytest.mark.parametrize("error", [RuntimeError("no metrics"), SystemExit(4), KeyboardInterrupt()], ids=repr)
@virtual
async def test_a_callable_that_raises_changes_nothing_and_is_reported_once_a_minute(
    caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    ran: list[Context] = []

    def fail(event: Event) -> None:
        raise error

    app = virtual_app(on_event=fail)

    @app.task(interval=SECOND)
    async def tick(context: Context) -> None:
        ran.append(context)

    async with running(app):
        await anyio.sleep(90.5)

    assert len(ran) == 90
    assert [record.message for record in caplog.records if "on_event" in record.message] == [
        "on_event raised; that changes nothing else, and is not said again for a minute"
    ] * 2


def test_what_cannot_be_called_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="on_event"):
        Scheduler(on_event="print")  # type: ignore[arg-type]
