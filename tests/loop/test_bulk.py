"""Many schedules at once: the next 500 are worked out while the store writes those before."""

from __future__ import annotations

from contextvars import ContextVar
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from anyscheduler import ConfigurationError, RepositoryError
from tests.loop.scene import START, Stopwatch, WatchedRepository, run_for, shared, virtual, virtual_app

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anyscheduler import Context

LATER = START + timedelta(days=1)
AT_ONCE = 500


async def noop(context: Context) -> None: ...


class Source:
    """Yields pairs of a name and what it is scheduled with.

    Attributes:
        taken: How many were asked for so far.
    """

    def __init__(self, count: int, *, malformed: int | None = None, raises: int | None = None) -> None:
        self._count = count
        self._malformed = malformed
        self._raises = raises
        self.taken = 0

    def __iter__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for number in range(self._count):
            self.taken += 1
            if number == self._raises:
                raise LookupError("the source is at its end")
            yield f"{number:04}" + ("\n" if number == self._malformed else ""), {"execute_at": LATER}


@virtual
async def test_the_next_ones_are_taken_while_those_before_are_written_and_no_more() -> None:
    repository = WatchedRepository()
    source = Source(5 * AT_ONCE)
    taken: list[int] = []
    repository.before["write"] = lambda: taken.append(source.taken)
    repository.slow["write"] = 1
    app = virtual_app(repository_factory=shared(repository))
    task = app.dynamic_task()(noop)

    async with app.create() as app_context, anyio.create_task_group() as group:
        group.start_soon(app_context.schedule_tasks, task, source)
        await anyio.sleep(0.5)
        # One batch is being written, and one is ready.
        assert source.taken == 2 * AT_ONCE

    assert repository.written == [AT_ONCE] * 5
    assert all(before <= (number + 2) * AT_ONCE for number, before in enumerate(taken))


@pytest.mark.parametrize("option", ["malformed", "raises"])
@virtual
async def test_what_comes_before_the_500_with_an_error_is_stored(option: str) -> None:
    repository = WatchedRepository()
    repository.slow["write"] = 1
    app = virtual_app(repository_factory=shared(repository))
    task = app.dynamic_task()(noop)
    now = Stopwatch()

    async with app.create() as app_context:
        with pytest.raises(ConfigurationError if option == "malformed" else LookupError):
            await app_context.schedule_tasks(task, Source(4 * AT_ONCE, **{option: 2 * AT_ONCE + 7}))

    assert now() == 2
    assert await repository.keys() == {f"noop:{number:04}" for number in range(2 * AT_ONCE)}


@virtual
async def test_a_store_that_fails_is_what_is_told_if_the_next_ones_are_wrong_as_well() -> None:
    repository = WatchedRepository()
    repository.slow["write"] = 1
    repository.failing = {"write"}
    app = virtual_app(repository_factory=shared(repository))
    task = app.dynamic_task()(noop)

    async with app.create() as app_context:
        with pytest.raises(RepositoryError, match="the write failed"):
            await app_context.schedule_tasks(task, Source(2 * AT_ONCE, malformed=AT_ONCE))

    assert await repository.keys() == set()


@virtual
async def test_others_have_their_turn_meanwhile() -> None:
    app = virtual_app()
    task = app.dynamic_task()(noop)
    source = Source(AT_ONCE)
    seen: list[int] = []

    async def look() -> None:
        while source.taken < AT_ONCE:
            seen.append(source.taken)
            await anyio.lowlevel.checkpoint()

    async with app.create() as app_context, anyio.create_task_group() as group:
        group.start_soon(app_context.schedule_tasks, task, source)
        group.start_soon(look)

    assert len(set(seen)) >= 5


@virtual
async def test_cancelled_it_takes_no_more() -> None:
    repository = WatchedRepository()
    repository.slow["write"] = 1
    app = virtual_app(repository_factory=shared(repository))
    task = app.dynamic_task()(noop)
    source = Source(5 * AT_ONCE)

    async with app.create() as app_context:
        with anyio.move_on_after(1.5):
            await app_context.schedule_tasks(task, source)

    assert source.taken <= 3 * AT_ONCE
    assert len(await repository.keys()) in {AT_ONCE, 2 * AT_ONCE}


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()], ids=repr)
@virtual
async def test_whatever_the_source_raises_late_is_the_affair_of_the_body_that_asked(error: BaseException) -> None:
    app = virtual_app()
    task = app.dynamic_task()(noop)
    raised: list[BaseException] = []
    ticks = 0

    def source() -> Iterator[tuple[str, dict[str, Any]]]:
        for number in range(2 * AT_ONCE):
            yield str(number), {"execute_at": LATER}
        raise error

    @app.task(interval=timedelta(seconds=10))
    async def schedules(context: Context) -> None:
        try:
            await context.app_context.schedule_tasks(task, source())
        except BaseException as caught:
            raised.append(caught)
            raise

    @app.task(interval=timedelta(seconds=1))
    async def tick(context: Context) -> None:
        nonlocal ticks
        ticks += 1

    await run_for(app, 15.5)

    assert raised == [error]
    assert ticks == 15


@virtual
async def test_the_source_runs_in_the_context_of_whoever_schedules() -> None:
    app = virtual_app()
    task = app.dynamic_task()(noop)
    variable: ContextVar[str] = ContextVar("variable")

    def source() -> Iterator[tuple[str, dict[str, Any]]]:
        token = variable.set("tenant")
        for number in range(2 * AT_ONCE):
            assert variable.get() == "tenant"
            yield str(number), {"execute_at": LATER}
        variable.reset(token)

    async with app.create() as app_context:
        assert await app_context.schedule_tasks(task, source()) == 2 * AT_ONCE
