"""The face of an app: the decorators and options that define it, and `create()`, which freezes it.

Knows: what users write. Must not know: how anything is executed or stored.
"""

from __future__ import annotations

import inspect
import warnings
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import anyio

from anyscheduler import arguments, options, task, trigger
from anyscheduler.app_context import AppContext
from anyscheduler.backoff import Backoff, Outage
from anyscheduler.clock import Clock, system_clock
from anyscheduler.context import check_attribute_name
from anyscheduler.errors import ConfigurationError, RepositoryError, ScheduleWarning
from anyscheduler.fixture import Fixture, check_fixture, set_up
from anyscheduler.memory import memory_repository
from anyscheduler.plan import Plan
from anyscheduler.sqlite import sqlite_repository
from anyscheduler.timekeeper import Timekeeper, steady

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from anyscheduler.events import Event
    from anyscheduler.execution import Middleware
    from anyscheduler.repository import Repository, RepositoryFactory
    from anyscheduler.task import Task

    FixtureFunction = TypeVar("FixtureFunction", bound=Callable[[AppContext], AsyncIterator[Any]])
    MiddlewareFunction = TypeVar("MiddlewareFunction", bound=Middleware)

_LEAST_INTERVAL: Final = timedelta(milliseconds=1)
_MOST_POLL_INTERVAL: Final = timedelta(hours=1)
_MOST_SHUTDOWN: Final = timedelta(days=366)
_MOST_AT_A_TIME: Final = 1_000_000
_MOST_ARGS: Final = 64 * 1024 * 1024


class Scheduler:
    """An app: its tasks, middlewares and fixtures, and where its schedules are stored.

    Args:
        repository_factory: Opens the store, such as `sqlite_repository`; by default the one that `sqlite_database`,
            `postgres_url` or `redis_url` belongs to, whichever is given, else `memory_repository`.
        poll_interval: The longest time between two looks at the store, over 0 and up to an hour. What this process
            knows to be due starts on time whatever it is; it bounds how late something starts that another process has
            scheduled, and is the wait before another attempt under `FailureMode.UNLOCK`.
        concurrency_limit: How many executions this process runs at a time; it claims nothing beyond that.
        batch_size: How many due schedules this process claims at a time, and the default page of `list_tasks`.
        clock: A callable that returns the current time as an aware datetime, in place of the system's clock.
        shutdown_timeout: How long a graceful stop may take before it becomes a hard one; None for no limit.
        args_size_limit: How many bytes the arguments of one schedule may take as JSON.
        on_event: Called in the event loop with an `Event` for all that happens to each occurrence; it has to return at
            once, and what it raises is logged.
        **store_options: The options of the repository factory.

    Raises:
        ConfigurationError: An option is unknown, malformed or missing.
    """

    def __init__(
        self,
        *,
        repository_factory: RepositoryFactory | None = None,
        poll_interval: timedelta = timedelta(seconds=1),
        concurrency_limit: int = 100,
        batch_size: int = 100,
        clock: Clock = system_clock,
        shutdown_timeout: timedelta | None = None,
        args_size_limit: int = arguments.DEFAULT_SIZE_LIMIT,
        on_event: Callable[[Event], object] | None = None,
        **store_options: Any,
    ) -> None:
        if repository_factory is None:
            repository_factory = _factory_for(store_options)
        _check_callable("clock", clock, "a callable that returns an aware datetime")
        if on_event is not None:
            _check_callable("on_event", on_event, "a callable that takes an Event")
        self._poll_interval = options.duration("poll_interval", poll_interval, _LEAST_INTERVAL, _MOST_POLL_INTERVAL)
        self._concurrency_limit = options.whole_number("concurrency_limit", concurrency_limit, 1, _MOST_AT_A_TIME)
        self._batch_size = options.whole_number("batch_size", batch_size, 1, _MOST_AT_A_TIME)
        self._clock = clock
        self._created = 0
        self.set_shutdown_timeout(shutdown_timeout)
        self._args_size_limit = options.whole_number("args_size_limit", args_size_limit, 1, _MOST_ARGS)
        self._on_event = on_event
        self._factory = repository_factory
        self._store_options = store_options
        self._check_store_options()
        self._tasks: dict[str, Task] = {}
        self._middlewares: list[Middleware] = []
        self._fixtures: list[Fixture] = []

    def task(self, **given: Any) -> Callable[[Callable[..., Any] | Task], Task]:
        """Defines a static task: the decorated function runs by a schedule that stands in the code.

        Args:
            **given: `schedule` (cron, with `timezone`) or `interval`; `name` (that of the function if it is left out),
                `enabled`, `fast_forward`, `failure_mode`, `execution_mode`, `lease_duration`, `heartbeat`, as
                described at `Task`. Anything else is an argument, which has to be JSON.

        Raises:
            ConfigurationError: The body, an option, the schedule, the name or an argument can never work.
        """
        return self._decorator(given)

    def dynamic_task(self, **given: Any) -> Callable[[Callable[..., Any] | Task], Task]:
        """Defines a dynamic task, whose instances `AppContext.schedule_task` adds while the app runs.

        Args:
            **given: As for `task`; the schedule may be left out, and is otherwise the default of the instances.

        Raises:
            ConfigurationError: The body, an option, the schedule, the name or an argument can never work.
        """
        return self._decorator(given, dynamic=True)

    def partitioned_task(self, **given: Any) -> Callable[[Callable[..., Any] | Task], Task]:
        """Defines a dynamic task whose instances are spread over partitions, each of which is claimed by itself.

        So they spread over the nodes of a Redis Cluster, or over groups of processes of which each runs some.

        Args:
            **given: As for `dynamic_task`, and `partition_count` (1 to 10,000), `partition_selector` (called with the
                count and the name of an instance, returns its number from 0 on; by SHA-1 if it is left out) and
                `enabled_partitions` (the numbers that this app runs; all if it is left out). Neither the count nor the
                selector is to be changed while instances are stored: those would not be found by their names any more.

        Raises:
            ConfigurationError: The body, an option, the schedule, the name or an argument can never work.
        """
        return self._decorator(given, dynamic=True, partitioned=True)

    def middleware(self, func: MiddlewareFunction) -> MiddlewareFunction:
        """Defines a middleware: an async function of the context and `next`. The first one defined is outermost."""
        self.use_middleware(func)
        return func

    def use_middleware(self, func: Middleware) -> None:
        """Adds a middleware, as the decorator `middleware` does.

        Raises:
            ConfigurationError: It cannot be called with a context and `next`.
        """
        self._check_not_created()
        _check_callable("middleware", func, "an async function of the context and next")
        if inspect.isgeneratorfunction(func) or inspect.isasyncgenfunction(func):
            options.refuse("middleware", func, "an async function that awaits next(); not a generator")
        try:
            inspect.signature(func).bind(None, None)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"middleware {options.shown(func)} does not take a context and next") from error
        self._middlewares.append(func)

    def fixture(self, name: str | None = None) -> Callable[[FixtureFunction], FixtureFunction]:
        """Defines a fixture: an async generator of the `AppContext` that sets up, yields once, and tears down.

        Args:
            name: The attribute of the context that holds what it yields; the function's name if it is left out.

        Raises:
            ConfigurationError: It is no async generator function, or the name cannot be had.
        """
        if callable(name):
            options.refuse("fixture name", name, "a string; write @app.fixture() with its parentheses")

        def decorate(func: FixtureFunction) -> FixtureFunction:
            self.use_fixture(name if name is not None else getattr(func, "__name__", ""), func)
            return func

        return decorate

    def use_fixture(self, name: str, func: Callable[[AppContext], AsyncIterator[Any]]) -> None:
        """Adds a fixture under a name, as the decorator `fixture` does.

        Raises:
            ConfigurationError: It is no async generator function, or the name cannot be had.
        """
        self._check_not_created()
        check_fixture(func)
        check_attribute_name("fixture name", name, [fixture.name for fixture in self._fixtures])
        self._fixtures.append(Fixture(name, func))

    @asynccontextmanager
    async def create(self) -> AsyncIterator[AppContext]:
        """Opens the store and sets the fixtures up; at the end tears them down and closes the store.

        Raises:
            ConfigurationError: The store cannot be used as it was given.
            RepositoryError: The store failed.
        """
        plan = Plan(
            defined=tuple(self._tasks.values()),
            middlewares=tuple(self._middlewares),
            poll_interval=self._poll_interval,
            concurrency_limit=self._concurrency_limit,
            batch_size=self._batch_size,
            shutdown_timeout=self._shutdown_timeout,
            on_event=self._on_event,
        )
        self._created += 1
        try:
            async with self._open_store() as repository:
                app_context = AppContext(plan, repository, await self._timekeeper(repository), self._args_size_limit)
                try:
                    async with set_up(self._fixtures, app_context):
                        try:
                            yield app_context
                        finally:
                            await app_context.end_run()
                finally:
                    app_context.close()
        finally:
            self._created -= 1

    def main(self, *, backend: Literal["asyncio", "trio"] = "asyncio", use_uvloop: bool = False) -> None:
        """Runs the app as a program: logging to standard output at `LOG_LEVEL`, signals, exit codes.

        The first SIGINT or SIGTERM stops gracefully, the second cancels, the third ends the process.

        Args:
            backend: The event loop to run on; `trio` needs the extra `trio`.
            use_uvloop: Whether to run asyncio on uvloop; needs the extra `uvloop`.

        Raises:
            SystemExit: It did not end gracefully: 1 if it failed, 128 plus the signal's number after a hard stop.
        """
        from anyscheduler import runner  # noqa: PLC0415  # only programs need what it imports

        try:
            runner.configure_logging()
        except ConfigurationError as error:
            raise SystemExit(f"anyscheduler: {error}") from None
        code = runner.run(self, backend=backend, use_uvloop=use_uvloop)
        if code:
            raise SystemExit(code)

    def set_shutdown_timeout(self, timeout: timedelta | None) -> None:
        """Replaces the option `shutdown_timeout` before the app is created; the command line does.

        Raises:
            ConfigurationError: It is neither None nor a timedelta from zero to 366 days.
        """
        self._check_not_created()
        if timeout is not None:
            options.duration("shutdown_timeout", timeout, timedelta(0), _MOST_SHUTDOWN)
        self._shutdown_timeout = timeout

    def _decorator(self, given: dict[str, Any], **kind: bool) -> Callable[[Callable[..., Any] | Task], Task]:
        def decorate(func: Callable[..., Any] | Task) -> Task:
            self._check_not_created()
            defined = task.define(func, given, **kind, size_limit=self._args_size_limit)
            if defined.name in self._tasks:
                options.refuse("name", defined.name, "a name that no other task of the app has; give one with name=")
            trap = trigger.seconds_trap(defined.trigger) if defined.trigger is not None else None
            if trap is not None:
                warnings.warn(f"task {defined.name!r}: {trap}", ScheduleWarning, stacklevel=2)
            self._tasks[defined.name] = defined
            return defined

        return decorate

    async def _timekeeper(self, repository: Repository) -> Timekeeper:
        timekeeper = Timekeeper(self._clock)
        backoff = Backoff("asking for the time", Outage())
        while timekeeper.may_follow:
            asked = steady()
            try:
                shown = await repository.time()
            except RepositoryError as error:
                await anyio.sleep(backoff.failed(error))
            else:
                backoff.succeeded()
                if shown is not None:
                    timekeeper.learn(shown, asked)
                break
        return timekeeper

    def _open_store(self) -> AbstractAsyncContextManager[Repository]:
        return self._factory(**self._store_options)

    def _check_store_options(self) -> None:
        _check_callable("repository_factory", self._factory, "a callable such as sqlite_repository")
        try:
            parameters = inspect.signature(self._factory).parameters.values()
        except (TypeError, ValueError):
            options.refuse("repository_factory", self._factory, "a callable such as sqlite_repository")
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            known = [parameter.name for parameter in parameters]
            own = [name for name in inspect.signature(Scheduler).parameters if name != "store_options"]
            options.refuse_unknown(self._store_options, [*own, *known], "Scheduler with this repository_factory")
            required = [parameter.name for parameter in parameters if parameter.default is parameter.empty]
            for name in required:
                if name not in self._store_options:
                    raise ConfigurationError(f"this repository_factory needs {name}=")
        # It validates the options, and opens nothing until it is entered.
        if not isinstance(self._open_store(), AbstractAsyncContextManager):
            options.refuse("repository_factory", self._factory, "a callable that returns an async context manager")

    def _check_not_created(self) -> None:
        if self._created:
            raise RuntimeError("the app has been created; define its tasks, middlewares and fixtures before that")


def _factory_for(store_options: Mapping[str, Any]) -> RepositoryFactory:
    options.refuse_slips(store_options, [*inspect.signature(sqlite_repository).parameters, "postgres_url", "redis_url"])
    given = [name for name in ("sqlite_database", "postgres_url", "redis_url") if name in store_options]
    if len(given) > 1:
        raise ConfigurationError(f"{' and '.join(given)} are two stores; give one")
    if "postgres_url" in store_options:
        from anyscheduler.postgres import postgres_repository  # noqa: PLC0415  # its driver is an extra

        return postgres_repository
    if "redis_url" in store_options:
        from anyscheduler.redis import redis_repository  # noqa: PLC0415  # its driver is an extra

        return redis_repository
    return sqlite_repository if "sqlite_database" in store_options else memory_repository


def _check_callable(option: str, value: object, allowed: str) -> None:
    if not callable(value):
        options.refuse(option, value, allowed)
