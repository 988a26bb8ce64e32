"""The running app: what a user holds between `create()` and its end.

Knows: one plan, an open repository, fixtures that are up. Must not know: decorators, signals.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel

from anyscheduler import options, trigger
from anyscheduler.backoff import Backoff, Outage
from anyscheduler.bulk import store_all
from anyscheduler.clock import from_micros
from anyscheduler.context import Context, Execution, check_attribute_name
from anyscheduler.errors import ConfigurationError, RepositoryError, TaskNotFoundError
from anyscheduler.events import Reporter
from anyscheduler.logs import get_logger
from anyscheduler.loop import Loop
from anyscheduler.registry import ListTasksResponse, Registry, TaskState
from anyscheduler.task import Task, instantiate
from anyscheduler.tokens import TokenSource

if TYPE_CHECKING:
    from anyio.abc import TaskStatus

    from anyscheduler.plan import Plan
    from anyscheduler.repository import Repository
    from anyscheduler.timekeeper import Timekeeper

logger = get_logger(__name__)

_MOST_PAGE = 10_000
_AT_ONCE = 500
_BEFORE_OTHERS = 50
"""How many of them are prepared before others have their turn: the one who is to store those before, first of all."""

_MOST_ANNOUNCED = 30

_PAIRS = "pairs of a name and a mapping with what schedule_task takes by keyword"

_RESTORE_SECONDS = 60.0
"""For how long at most static tasks are missing that were in the store before."""


class AppContext:
    """An app that has been created: its store is open and its fixtures are up. Made by `Scheduler.create()`.

    Its methods may be called from anywhere in the event loop that created it, from inside bodies as well.
    """

    def __init__(self, plan: Plan, repository: Repository, now: Timekeeper, args_size_limit: int) -> None:
        self._plan = plan
        self._repository = repository
        self._outage = Outage()
        self._now = now
        self._args_size_limit = args_size_limit
        self._new_token = TokenSource(self._now)
        self._reporter = None if plan.on_event is None else Reporter(plan.on_event, self._now)
        self._registry = Registry(repository, self._now, self._new_token, self._reporter)
        self._shared: dict[str, Any] = {}
        self._loop: Loop | None = None
        self._run_scope = anyio.CancelScope()
        self._run_ended = anyio.Event()
        self._stopping = False
        self._closed = False
        self.stopped_hard = False
        """Whether `run` has ended before its executions did, because `shutdown_timeout` was over."""
        self.thread_limiter = anyio.CapacityLimiter(plan.concurrency_limit)
        """Bounds the worker threads in which plain functions run, apart from those of other code."""

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Runs the tasks until `shutdown` is called, or until it is cancelled.

        It can be started with `task_group.start_soon(app_context.run)`, and with `await
        task_group.start(app_context.run)`, which returns when the static tasks are registered and polling has begun.

        After `shutdown` it returns when what is running has finished and is settled. Cancelled, it ends the bodies and
        releases what they held. Two leases are left to end by themselves: that of an execution that failed under
        `FailureMode.NONE`, and that of a plain function which goes on in its thread after a cancellation.

        Raises:
            RuntimeError: It is running already, or the context is closed.
        """
        self._check_open()
        if self._loop is not None:
            raise RuntimeError("run() was called while it is running already")
        tasks = self._plan.enabled()
        self._run_scope, self._run_ended = anyio.CancelScope(), anyio.Event()
        self._loop = loop = Loop(
            self._plan,
            tasks,
            self._repository,
            now=self._now,
            outage=self._outage,
            new_token=self._new_token,
            make_context=self._make_context,
            reporter=self._reporter,
            look_after=self._restore_static,
        )
        try:
            with self._run_scope:
                await self._register_static(loop, tasks)
                if self._stopping:
                    loop.stop()
                await loop.run(task_status)
        finally:
            self._loop = None
            self._run_ended.set()
        logger.info("stopped%s", " hard: the shutdown timeout was over" if loop.stopped_hard else "")
        self.stopped_hard = loop.stopped_hard

    def shutdown(self) -> None:
        """Begins a graceful stop: polling ends at once, and `run` returns when what is running has finished.

        Calling it again has no further effect. Called before `run`, it makes that return at once. A plain function,
        which runs in a thread, calls it as `anyio.from_thread.run_sync(context.app_context.shutdown)`.
        """
        if not self._stopping:
            logger.info("stopping: no more executions are started")
        self._stopping = True
        if self._loop is not None:
            self._loop.stop()

    async def schedule_task(self, task: Task, name: str, *, force: bool = False, **given: Any) -> Task:
        """Schedules the instance `name` of a dynamic task, and returns it.

        Scheduling a name again replaces the arguments and options. With the same trigger the next run stays where it
        is; with another trigger the new one counts from now on.

        Args:
            task: The dynamic task.
            name: The name of the instance: 1 to 255 bytes in UTF-8, no control characters.
            force: Replaces everything, the next run and a lease included; the result of a running execution will be
                refused.
            **given: One of `schedule` (cron, with `timezone`), `interval` and `execute_at`, unless the dynamic task
                has a default schedule; `fast_forward`, `failure_mode`, `execution_mode`, `lease_duration` and
                `heartbeat` to override those of the task; anything else is an argument, which has to be JSON.

        Raises:
            ConfigurationError: The name, an option, the schedule or an argument can never work; nothing is stored.
            TaskNotFoundError: The task is not one of this app's.
            TaskLockedError: The instance is being executed, and `force` was not given.
            RepositoryError: The store failed.
        """
        self._check_open()
        self._check_known(task)
        options.flag("force", force)
        instance = self._instantiate(task, name, given)
        row = await self._registry.register(task, instance, force=force)
        if self._loop is not None:
            self._loop.wake_at(row.claimable_at)
        return instance

    async def schedule_tasks(
        self, task: Task, instances: Iterable[tuple[str, Mapping[str, Any]]], *, force: bool = False
    ) -> int:
        """Schedules many instances of a dynamic task, 500 in a round trip, and returns how many.

        The next 500 are taken and worked out while the store writes those before.
        Each is scheduled as `schedule_task` does it. When an error is raised, the instances before the 500 that it
        lies in are stored; of those 500, none if what is given is wrong, and all others if one is being executed.

        Args:
            task: The dynamic task.
            instances: The name of each, and what `schedule_task` takes by keyword: its schedule, options and
                arguments. They are taken one by one, so a generator of a million costs no memory. Of a name that comes
                several times the last one counts.
            force: See `schedule_task`.

        Raises:
            ConfigurationError: A name, an option, a schedule or an argument can never work.
            TaskNotFoundError: The task is not one of this app's.
            TaskLockedError: An instance is being executed, and `force` was not given.
            RepositoryError: The store failed.
        """
        self._check_open()
        self._check_known(task)
        options.flag("force", force)
        if not isinstance(instances, Iterable):
            options.refuse("instances", instances, _PAIRS)
        remaining = iter(instances)

        async def prepare() -> dict[str, Task]:
            wanted: dict[str, Task] = {}
            for number, (name, given) in enumerate(map(_pair, islice(remaining, _AT_ONCE))):
                wanted[name] = self._instantiate(task, name, given)
                if number % _BEFORE_OTHERS == 0:
                    await anyio.lowlevel.checkpoint()
            return wanted

        async def store(wanted: dict[str, Task]) -> None:
            earliest, refusal = await self._registry.register_all(task, list(wanted.values()), force=force)
            if self._loop is not None and earliest is not None:
                self._loop.wake_at(earliest)
            if refusal is not None:
                raise refusal

        return await store_all(prepare, store)

    async def unschedule_task(self, task: Task, name: str | None = None) -> None:
        """Removes an instance of a dynamic task, also while it is being executed; its result is then refused.

        Args:
            task: The dynamic task, or the instance itself.
            name: The name of the instance, unless `task` is one. A name that is not there does nothing.

        Raises:
            ConfigurationError: The task is static, or it is not clear which instance is meant.
            TaskNotFoundError: The task is not one of this app's.
            RepositoryError: The store failed.
        """
        self._check_open()
        await self._registry.unregister(self._instance_key(task, name))

    async def get_task(self, task: Task, name: str | None = None) -> TaskState | None:
        """Returns how a schedule is stored at the moment, or None if it is not.

        Args:
            task: A static task, a dynamic task together with `name`, or an instance.
            name: The name of the instance, unless `task` is one or is static.

        Raises:
            ConfigurationError: It is not clear which instance is meant.
            TaskNotFoundError: The task is not one of this app's.
            RepositoryError: The store failed.
        """
        self._check_open()
        self._check_known(task)
        if task.is_static and name is None:
            return await self._registry.state(task, task.key)
        return await self._registry.state(task.parent_task or task, self._instance_key(task, name))

    async def list_tasks(
        self, task: Task, limit: int | None = None, continuation_token: str | None = None
    ) -> ListTasksResponse:
        """Returns a page of the instances of a dynamic task, ordered by name (and by partition before that).

        Paging shows every instance that was there throughout, whatever changes meanwhile.

        Args:
            task: The dynamic task.
            limit: The size of the page, 1 to 10,000; the app's `batch_size` if it is None.
            continuation_token: That of the page before; None for the first page.

        Raises:
            ConfigurationError: The task is not dynamic, or the limit or the token is malformed.
            TaskNotFoundError: The task is not one of this app's.
            RepositoryError: The store failed.
        """
        self._check_open()
        self._check_known(task)
        if not task.dynamic:
            raise ConfigurationError(f"task {str(task)!r} is not dynamic and has no instances")
        limit = self._plan.batch_size if limit is None else options.whole_number("limit", limit, 1, _MOST_PAGE)
        if continuation_token is not None:
            options.schedule_key("continuation_token", continuation_token)
        return await self._registry.states(task, limit, continuation_token)

    def add_to_context(self, name: str, value: Any) -> None:
        """Adds a value that every later execution finds as an attribute of its context.

        Raises:
            ConfigurationError: The name is no identifier, begins with an underscore, is one of the context's own, or
                is taken by a fixture or another value.
        """
        self._check_open()
        self._shared[check_attribute_name("name", name, self._shared)] = value

    def close(self) -> None:
        """Makes every later use an error; called by `create()` when it has ended."""
        self._closed = True

    async def end_run(self) -> None:
        """Ends `run` if it still goes on; called by `create()` before the fixtures are torn down."""
        if self._loop is not None:
            logger.warning("create() is left while run() goes on, which is therefore cancelled")
            self._run_scope.cancel()
            # Shielded, since fixtures and the store have to outlive every execution, however this end came about.
            with anyio.CancelScope(shield=True):
                await self._run_ended.wait()

    def _make_context(self, execution: Execution) -> Context:
        return Context(self, execution, self._shared)

    def _instantiate(self, task: Task, name: str, given: dict[str, Any]) -> Task:
        instance = instantiate(task, name, given, size_limit=self._args_size_limit)
        trap = trigger.seconds_trap(instance.trigger) if instance.trigger is not None else None
        if trap is not None:
            logger.warning("%s: %s", instance, trap)
        return instance

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("this app context is closed; use it inside `async with app.create()`")

    def _check_known(self, task: Task) -> None:
        if not isinstance(task, Task):
            options.refuse("task", task, "a task that was defined with a decorator of this app")
        root = task.parent_task or task
        if root not in self._plan.defined:
            raise TaskNotFoundError(f"task {str(task)!r} was not defined by this app")

    def _instance_key(self, task: Task, name: str | None) -> str:
        self._check_known(task)
        if task.parent_task is not None:
            if name is not None:
                options.refuse("name", name, f"nothing, since {str(task)!r} is an instance already")
            return task.key
        if not task.dynamic:
            raise ConfigurationError(f"task {str(task)!r} is not dynamic and has no instances")
        return task.instance_key(options.schedule_name("name", name))

    async def _register_static(self, loop: Loop, tasks: dict[str, Task]) -> None:
        static = [task for task in tasks.values() if task.is_static]
        backoff = Backoff("registering the tasks of the app", self._outage)
        while not self._stopping:
            try:
                due = await self._registry.sync_static(static)
                await self._registry.report_unknown(self._plan.columns())
            except RepositoryError as error:
                await loop.pause(backoff.failed(error))
            else:
                backoff.succeeded()
                self._announce(tasks, due)
                return

    async def _restore_static(self, loop: Loop) -> None:
        """Puts static tasks back whose rows have vanished: a store was emptied, or came back without its data."""
        static = [task for task in self._plan.enabled().values() if task.is_static]
        while True:
            await anyio.sleep(_RESTORE_SECONDS * random.uniform(0.75, 1.0))  # noqa: S311  # not a secret
            with suppress(RepositoryError):  # whoever claims says so
                for at in await self._registry.restore_static(static):
                    loop.wake_at(at)

    def _announce(self, tasks: dict[str, Task], due: dict[str, int]) -> None:
        logger.info("running %s on %s", options.counted(len(tasks), "task"), self._repository.description)
        for task in list(tasks.values())[:_MOST_ANNOUNCED]:
            if task.dynamic:
                logger.info("task %s: dynamic, its instances are in the store", task)
            elif task.name in due:
                assert task.trigger is not None
                at = from_micros(due[task.name], task.zone).isoformat(sep=" ", timespec="seconds")
                when = "next due" if due[task.name] > self._now() else "overdue since"
                logger.info("task %s: %s, %s %s", task, trigger.describe(task.trigger), when, at)
        if len(tasks) > _MOST_ANNOUNCED:
            logger.info("and %s more", options.counted(len(tasks) - _MOST_ANNOUNCED, "task"))


def _pair(item: object) -> tuple[Any, dict[str, Any]]:
    """Returns the name, whatever it is, and the keywords of one instance that is to be scheduled.

    Raises:
        ConfigurationError: It is something else.
    """
    match item:
        case (name, Mapping() as given) if all(isinstance(keyword, str) for keyword in given):
            return name, dict(given)
    return options.refuse("instances", item, _PAIRS)
