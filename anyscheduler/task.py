"""Tasks: what to run, when, and under which guarantees.

Knows: options, triggers, arguments, partitions. Must not know: stores, leases, JSON, the event loop.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from anyscheduler import arguments, options, partition, trigger, zones
from anyscheduler.clock import duration_micros, from_micros
from anyscheduler.errors import ConfigurationError
from anyscheduler.partition import PARTITION_OPTIONS, PartitionSelector, select_by_sha1
from anyscheduler.trigger import CronTrigger, IntervalTrigger, OnceTrigger, Trigger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from datetime import tzinfo
    from typing import TypeAlias

    TaskFunction: TypeAlias = Callable[[Any], Awaitable[None] | None]

DEFAULT_LEASE: Final = timedelta(seconds=60)
LEAST_LEASE: Final = timedelta(milliseconds=1)
MOST_LEASE: Final = timedelta(days=366)


class ExecutionMode(StrEnum):
    """How often an occurrence may be executed.

    AT_LEAST_ONCE: under a lease, again if an execution fails or its process dies. The default.
    AT_MOST_ONCE: the next occurrence is scheduled first, then the body runs; nothing brings a failed one back.
    """

    AT_LEAST_ONCE = "at_least_once"
    AT_MOST_ONCE = "at_most_once"


class FailureMode(StrEnum):
    """What happens to an at-least-once occurrence whose execution failed.

    NONE: it stays leased until the lease ends, then it is tried again. The default.
    UNLOCK: it is released, and tried again one poll interval later.
    COMMIT: it is settled as if it had succeeded.
    """

    NONE = "none"
    UNLOCK = "unlock"
    COMMIT = "commit"


_TRIGGER_OPTIONS: Final = ("schedule", "interval", "execute_at", "timezone")
GUARANTEE_OPTIONS: Final = ("fast_forward", "failure_mode", "execution_mode", "lease_duration", "heartbeat")
_TASK_OPTIONS: Final = ("name", "enabled", *_TRIGGER_OPTIONS, *GUARANTEE_OPTIONS)
_INSTANCE_OPTIONS: Final = ("name", "task", "force", *_TRIGGER_OPTIONS, *GUARANTEE_OPTIONS)


@dataclass(slots=True, eq=False, kw_only=True)
class Task:
    """A static task, a dynamic task, or one instance of a dynamic task; made by the decorators of the app.

    Only `enabled` and `enabled_partitions` are meant to be changed, and only before the app runs; the rest is fixed at
    the definition.

    Attributes:
        name: The name of the task, or of the instance.
        func: The body.
        dynamic: Whether instances of it can be scheduled.
        parent_task: The dynamic task that this is an instance of, else None.
        trigger: When it is due; None for a dynamic task without a default schedule.
        fast_forward: Whether missed occurrences are skipped, all but the one that is due.
        failure_mode: What happens when an execution fails.
        execution_mode: How often an occurrence may be executed.
        lease_duration: For how long a claim or an extension holds an occurrence.
        heartbeat: Whether the lease is extended for as long as the body runs.
        extra_args: The arguments; a body reads its own copy from `context.args`.
        enabled: Whether this app runs it. A disabled task stays in the store as it is.
        is_async: Whether the body is awaited; a plain function is run in a worker thread.
        partition_count: Over how many partitions the instances are spread; 0 for a task that has none.
        partition_selector: Tells which partition an instance belongs to.
        enabled_partitions: The partitions that this app runs; None for all. Instances can be scheduled in any.
    """

    name: str
    func: TaskFunction
    dynamic: bool = False
    parent_task: Task | None = None
    trigger: Trigger | None = None
    fast_forward: bool = False
    failure_mode: FailureMode = FailureMode.NONE
    execution_mode: ExecutionMode = ExecutionMode.AT_LEAST_ONCE
    lease_duration: timedelta = DEFAULT_LEASE
    heartbeat: bool = False
    extra_args: dict[str, Any] = field(repr=False)
    enabled: bool = True
    is_async: bool
    partition_count: int = 0
    partition_selector: PartitionSelector = select_by_sha1
    enabled_partitions: Sequence[int] | None = None

    def __call__(self, context: Any) -> Awaitable[None] | None:
        """Calls the body itself, without lease or middlewares; meant for its unit tests."""
        return self.func(context)

    def __str__(self) -> str:
        """Returns the display name, `task` or `task:instance`."""
        return self.name if self.parent_task is None else f"{self.parent_task.name}:{self.name}"

    @property
    def key(self) -> str:
        """The unique name of the schedule in the store."""
        return static_key(self.name) if self.parent_task is None else self.parent_task.instance_key(self.name)

    @property
    def column(self) -> str:
        """The `Row.task` of the schedule in the store."""
        return self.key.partition(":")[0]

    def instance_key(self, name: str) -> str:
        """Returns the key of an instance of this dynamic task: its column, a colon, and the name as it is.

        Raises:
            ConfigurationError: The partition selector does not return a partition.
        """
        own = static_key(self.name)
        if self.partition_count:
            own = partition.column(own, partition.select(self.partition_selector, self.partition_count, name))
        return f"{own}:{name}"

    def columns(self) -> list[str]:
        """Returns the `Row.task` values that this app claims for the task."""
        if not self.partition_count:
            return [static_key(self.name)]
        numbers = partition.check_enabled(self.enabled_partitions, self.partition_count)
        everything = self.all_columns()
        return everything if numbers is None else [everything[number] for number in numbers]

    def all_columns(self) -> list[str]:
        """Returns the `Row.task` values of all its schedules, by partition."""
        own = static_key(self.name)
        return [partition.column(own, number) for number in range(self.partition_count)] or [own]

    @property
    def schedule(self) -> str | None:
        """The cron expression, or None."""
        return self.trigger.expression if isinstance(self.trigger, CronTrigger) else None

    @property
    def interval(self) -> timedelta | None:
        """The time between two occurrences, or None."""
        return timedelta(microseconds=self.trigger.microseconds) if isinstance(self.trigger, IntervalTrigger) else None

    @property
    def execute_at(self) -> datetime | None:
        """When a once-off is due, aware, in UTC; or None."""
        return from_micros(self.trigger.at) if isinstance(self.trigger, OnceTrigger) else None

    @property
    def timezone(self) -> str | None:
        """The name of the time zone that the cron expression is read in; None means UTC."""
        return self.trigger.timezone if isinstance(self.trigger, CronTrigger) else None

    @property
    def zone(self) -> tzinfo:
        """The time zone that occurrences are shown in."""
        name = self.timezone
        return UTC if name is None else zones.resolve(name)

    @property
    def lease_micros(self) -> int:
        """The lease duration in microseconds."""
        return duration_micros(self.lease_duration)

    @property
    def is_static(self) -> bool:
        """Whether this is a schedule of its own, defined in code."""
        return not self.dynamic and self.parent_task is None


def static_key(name: str) -> str:
    """Returns the key of a static task. It holds no colon, so that it never meets the key of an instance."""
    return name.replace("%", "%25").replace(":", "%3A")


def display_name(key: str) -> str:
    """Returns what stands under a key in the store as `str(task)` shows it, `task` or `task:instance`."""
    column, colon, name = key.partition(":")
    return column.partition("%p")[0].replace("%3A", ":").replace("%25", "%") + colon + name


def define(
    func: object, given: dict[str, Any], *, size_limit: int, dynamic: bool = False, partitioned: bool = False
) -> Task:
    """Returns the task that a decorator defines; what is no option in `given` is an argument.

    Raises:
        ConfigurationError: The body, an option, the schedule or an argument can never work.
    """
    known = (*_TASK_OPTIONS, *PARTITION_OPTIONS)
    options.refuse_slips((name for name in given if name not in known), known)
    if not partitioned and (misplaced := [name for name in PARTITION_OPTIONS if name in given]):
        raise ConfigurationError(f"{misplaced[0]}= is an option of @app.partitioned_task()")
    body = func.func if isinstance(func, Task) else func
    _check_body(body)
    name = given.get("name")
    if name is None:
        name = getattr(body, "__name__", None)
    if name is None:
        options.refuse("name", None, "a name; this callable has none of its own, so give one with name=")
    options.schedule_name("name", name)
    if given.get("execute_at") is not None:
        options.refuse("execute_at", given["execute_at"], "given to schedule_task, for an instance of a dynamic task")
    task = Task(
        name=name,
        func=body,  # type: ignore[arg-type]  # _check_body has seen that it is callable
        dynamic=dynamic,
        is_async=is_async(body),
        extra_args=arguments.check({key: given[key] for key in given if key not in known}, size_limit),
        enabled=options.flag("enabled", given.get("enabled", True)),
        **_guarantees(given),
        **(_partitions(given) if partitioned else {}),
    )
    task.trigger = _trigger(given, static_key(name))
    if task.trigger is None and not dynamic:
        raise ConfigurationError(f"task {name!r} needs one of schedule=, interval=")
    _check_modes(task)
    return task


def instantiate(template: Task, name: str, given: dict[str, Any], *, size_limit: int) -> Task:
    """Returns the instance `name` of a dynamic task; what is no option in `given` is an argument.

    Raises:
        ConfigurationError: The name, an option, the schedule or an argument can never work, or `template` is static.
    """
    if not template.dynamic:
        raise ConfigurationError(f"task {template.name!r} is not dynamic; define it with @app.dynamic_task()")
    options.schedule_name("name", name)
    for option in ("name", "task", "force"):
        if option in given:
            options.refuse(option, given[option], "given once for the call, and not for an instance")
    own_args = {key: given[key] for key in given if key not in _INSTANCE_OPTIONS}
    options.refuse_slips(own_args, _INSTANCE_OPTIONS)
    task = instance_of(template, name, arguments.check(own_args, size_limit), _guarantees(given))
    if given.get("timezone") is not None and all(given.get(key) is None for key in ("schedule", "interval")):
        given = {**given, "schedule": template.schedule}
    default = template.trigger
    if isinstance(default, CronTrigger):  # Its H fields are hashed on the instance, so that instances are spread.
        default = trigger.cron(default.expression, default.timezone, task.key)
    task.trigger = _trigger(given, task.key) or default
    if task.trigger is None:
        raise ConfigurationError(f"schedule_task({template.name!r}) needs one of schedule=, interval=, execute_at=")
    _check_modes(task)
    return task


def fingerprint(task_trigger: Trigger) -> str:
    """Returns a text that is equal for equal triggers, by which a changed schedule in code is noticed."""
    return trigger.describe(task_trigger)


def instance_of(template: Task, name: str, own_args: dict[str, Any], guarantees: Mapping[str, Any]) -> Task:
    """Returns an instance of a dynamic task, without a trigger: what it is not given it has from the task."""
    inherited = template.extra_args
    instance = Task(
        name=name,
        func=template.func,
        is_async=template.is_async,
        parent_task=template,
        fast_forward=template.fast_forward,
        failure_mode=template.failure_mode,
        execution_mode=template.execution_mode,
        lease_duration=template.lease_duration,
        heartbeat=template.heartbeat,
        extra_args={**inherited, **own_args} if inherited else own_args,
    )
    return replace(instance, **guarantees) if guarantees else instance


def _guarantees(given: Mapping[str, Any]) -> dict[str, Any]:
    checked: dict[str, Any] = {}
    for option in ("fast_forward", "heartbeat"):
        if option in given:
            checked[option] = options.flag(option, given[option])
    if "failure_mode" in given:
        checked["failure_mode"] = options.choice("failure_mode", given["failure_mode"], FailureMode)
    if "execution_mode" in given:
        checked["execution_mode"] = options.choice("execution_mode", given["execution_mode"], ExecutionMode)
    if "lease_duration" in given:
        checked["lease_duration"] = options.duration("lease_duration", given["lease_duration"], LEAST_LEASE, MOST_LEASE)
    return checked


def _partitions(given: Mapping[str, Any]) -> dict[str, Any]:
    count = partition.check_count(given.get("partition_count"))
    selector = given.get("partition_selector", select_by_sha1)
    if not callable(selector):
        options.refuse("partition_selector", selector, "a function of the number of partitions and a name")
    enabled = partition.check_enabled(given.get("enabled_partitions"), count)
    return {"partition_count": count, "partition_selector": selector, "enabled_partitions": enabled}


def _trigger(given: Mapping[str, Any], hash_id: str) -> Trigger | None:
    kinds = [option for option in ("schedule", "interval", "execute_at") if given.get(option) is not None]
    if len(kinds) > 1:
        raise ConfigurationError(f"{' and '.join(f'{kind}=' for kind in kinds)} exclude each other; give one")
    timezone = given.get("timezone")
    if timezone is not None and kinds != ["schedule"]:
        options.refuse("timezone", timezone, "given together with schedule= only")
    match kinds:
        case ["schedule"]:
            return trigger.cron(given["schedule"], timezone, hash_id)
        case ["interval"]:
            return trigger.interval(given["interval"])
        case ["execute_at"]:
            return trigger.once(given["execute_at"])
        case _:
            return None


def _check_modes(task: Task) -> None:
    if task.execution_mode is ExecutionMode.AT_MOST_ONCE and task.failure_mode is not FailureMode.NONE:
        options.refuse("failure_mode", task.failure_mode, "none with AT_MOST_ONCE, which never tries anything again")


def _check_body(body: object) -> None:
    called = body if inspect.isroutine(body) or inspect.isclass(body) else getattr(body, "__call__", None)  # noqa: B004
    if inspect.isclass(body) or not callable(body):
        options.refuse("the body", body, "an async function or a plain function that takes the context")
    within = getattr(body, "__func__", None)  # of a staticmethod
    if any(inspect.isgeneratorfunction(part) or inspect.isasyncgenfunction(part) for part in (body, called, within)):
        options.refuse("the body", body, "a function that returns; a generator would never be run")
    try:
        signature = inspect.signature(body)
    except (TypeError, ValueError):
        return  # Some callables that are not written in Python do not tell.
    try:
        signature.bind(None)
    except TypeError:
        options.refuse("the body", body, "a function that can be called with the context as its only argument")


def is_async(body: object) -> bool:
    """Tells whether calling `body` gives something to await; a plain function is run in a worker thread."""
    return inspect.iscoroutinefunction(body) or inspect.iscoroutinefunction(getattr(type(body), "__call__", None))  # noqa: B004
