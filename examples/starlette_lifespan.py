"""A web app that runs a scheduler for as long as it serves.

    python examples/starlette_lifespan.py
    curl -X POST http://127.0.0.1:8000/reminders/milk

It needs `starlette` and `uvicorn`, serves on port 8000 (or the one given as an argument), and stops with Ctrl-C.
"""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypedDict

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from anyscheduler import AppContext, Context, Scheduler

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

scheduler = Scheduler(sqlite_database="reminders.db")


class State(TypedDict):
    """What requests find in `request.state`."""

    scheduler: AppContext


@scheduler.task(interval=timedelta(seconds=1), fast_forward=True)
async def tick(context: Context) -> None:
    print("tick, beside the requests", flush=True)


@scheduler.dynamic_task()
async def remind(context: Context) -> None:
    print(f"remember: {context.task.name}", flush=True)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[State]:
    async with scheduler.create() as app_context, anyio.create_task_group() as group:
        await group.start(app_context.run)
        yield {"scheduler": app_context}
        # The group then waits for run(), and run() for the executions that are still running.
        app_context.shutdown()


async def add_reminder(request: Request) -> JSONResponse:
    app_context: AppContext = request.state.scheduler
    at = datetime.now(UTC) + timedelta(seconds=1)
    await app_context.schedule_task(remind, request.path_params["name"], execute_at=at)
    return JSONResponse({"execute_at": at.isoformat()}, status_code=201)


async def show_reminders(request: Request) -> JSONResponse:
    app_context: AppContext = request.state.scheduler
    page = await app_context.list_tasks(remind)
    return JSONResponse({state.task.name: state.scheduled_at.isoformat() for state in page.tasks})


app = Starlette(
    routes=[Route("/reminders", show_reminders), Route("/reminders/{name}", add_reminder, methods=["POST"])],
    lifespan=lifespan,
)

if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
