"""Tasks: what to run, when, and under which guarantees; and how an instance of a dynamic task is stored.

Knows: options, triggers, arguments, JSON. Must not know: stores, leases, the event loop.
"""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from anyscheduler import arguments, options, trigger, zones
from anyscheduler.clock import LAST_MICROS, check_instant, duration_micros, from_micros
from anyscheduler.errors import ConfigurationError
from anyscheduler.lease import load_object
from anyscheduler.trigger import CronTrigger, IntervalTrigger, OnceTrigger, Trigger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from datetime import tzinfo
    from typing import TypeAlias

    TaskFunction: TypeAlias = Callable[[Any], Awaitable[None] | None]

DEFAULT_LEASE: Final = timedelta(seconds=60)
_LEAST_LEASE: Final = timedelta(milliseconds=1)
_MOST_LEASE: Final = timedelta(days=366)

SPEC_VERSION: Final = 1
"""The version of the stored spec. A later one also gets other values of `Row.task`, so that claims of this version do
not even lease its rows."""


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
_GUARANTEE_OPTIONS: Final = ("fast_forward", "failure_mode", "execution_mode", "lease_duration", "heartbeat")
TASK_OPTIONS: Final = ("name", "enabled", *_TRIGGER_OPTIONS, *_GUARANTEE_OPTIONS)
INSTANCE_OPTIONS: Final = ("name", "task", "force", *_TRIGGER_OPTIONS, *_GUARANTEE_OPTIONS)


@dataclass(slots=True, eq=False, kw_only=True)
class Task:
    """A static task, a dynamic task, or one instance of a dynamic task; made by the decorators of the app.

    Only `enabled` is meant to be changed, and only before the app runs; the rest is fixed at the definition.

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

    def __call__(self, context: Any) -> Awaitable[None] | None:
        """Calls the body itself, without lease or middlewares; meant for its unit tests."""
        return self.func(context)

    def __str__(self) -> str:
        """Returns the display name, `task` or `task:instance`."""
        return self.name if self.parent_task is None else f"{self.parent_task.name}:{self.name}"

    @property
    def key(self) -> str:
        """The unique name of the schedule in the store."""
        return static_key(self.name) if self.parent_task is None else instance_key(self.parent_task, self.name)

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


def instance_key(template: Task, name: str) -> str:
    """Returns the key of an instance: the first colon ends the task's part, the rest is the name as it is."""
    return f"{static_key(template.name)}:{name}"


def define(func: object, given: dict[str, Any], *, dynamic: bool, size_limit: int) -> Task:
    """Returns the task that a decorator defines; what is no option in `given` is an argument.

    Raises:
        ConfigurationError: The body, an option, the schedule or an argument can never work.
    """
    options.refuse_slips((name for name in given if name not in TASK_OPTIONS), TASK_OPTIONS)
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
        extra_args=arguments.check({key: given[key] for key in given if key not in TASK_OPTIONS}, size_limit),
        enabled=options.flag("enabled", given.get("enabled", True)),
        **_guarantees(given),
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
    options.refuse_slips((key for key in given if key not in INSTANCE_OPTIONS), INSTANCE_OPTIONS)
    own_args = {key: given[key] for key in given if key not in INSTANCE_OPTIONS}
    task = _instance_of(template, name, arguments.check(own_args, size_limit), _guarantees(given))
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


def dump_spec(template: Task, task: Task) -> str:
    """Returns an instance as it is stored: what differs from its dynamic task, as JSON."""
    spec: dict[str, Any] = {"v": SPEC_VERSION}
    match task.trigger:
        case CronTrigger(expression, timezone, _):
            spec["schedule"] = expression
            if timezone is not None:
                spec["timezone"] = timezone
        case IntervalTrigger(microseconds):
            spec["interval"] = microseconds
        case OnceTrigger(at):
            spec["execute_at"] = at
        case None:
            pass
    for option in _GUARANTEE_OPTIONS:
        value = getattr(task, option)
        if value != getattr(template, option):
            spec[option] = duration_micros(value) if isinstance(value, timedelta) else value
    inherited = template.extra_args
    # Compared as JSON, where 1, 1.0 and True differ.
    args = {
        key: value
        for key, value in task.extra_args.items()
        if key not in inherited or json.dumps(inherited[key]) != json.dumps(value)
    }
    if args:
        spec["args"] = args
    return json.dumps(spec, separators=(",", ":"))


def load_spec(template: Task, key: str, text: str) -> Task:
    """Returns the instance that was stored under `key`.

    Nothing in a stored row selects code: the body is that of `template`, whatever the row says.

    Raises:
        ValueError: The row was damaged, or written by a later version of this package.
    """
    spec = load_object(text)
    version = spec.get("v")
    if version != SPEC_VERSION:
        raise ValueError(f"the spec has version {options.shown(version)}, and this release reads {SPEC_VERSION}")
    own_args = spec.get("args", {})
    if not isinstance(own_args, dict):
        raise ValueError("the arguments are not a JSON object")
    guarantees: dict[str, Any] = {}
    for option in _GUARANTEE_OPTIONS:
        if option in spec:
            guarantees[option] = _load_guarantee(option, spec[option])
    name = options.schedule_name("name", key[len(static_key(template.name)) + 1 :])
    task = _instance_of(template, name, own_args, guarantees)
    task.trigger = _load_trigger(spec, key)
    return task


def placeholder(template: Task, key: str) -> Task:
    """Returns an instance that stands in for a stored row that cannot be read: it has a name, and no trigger."""
    return _instance_of(template, key[len(static_key(template.name)) + 1 :] or template.name, {}, {})


def fingerprint(task_trigger: Trigger) -> str:
    """Returns a text that is equal for equal triggers, by which a changed schedule in code is noticed."""
    return trigger.describe(task_trigger)


def _instance_of(template: Task, name: str, own_args: dict[str, Any], guarantees: Mapping[str, Any]) -> Task:
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
        checked["lease_duration"] = options.duration(
            "lease_duration", given["lease_duration"], _LEAST_LEASE, _MOST_LEASE
        )
    return checked


def _load_guarantee(option: str, value: object) -> object:
    match option:
        case "failure_mode":
            return FailureMode(str(value))
        case "execution_mode":
            return ExecutionMode(str(value))
        case "lease_duration":
            return options.duration(option, _load_duration(value), _LEAST_LEASE, _MOST_LEASE)
        case _:
            return options.flag(option, value)


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


def _load_trigger(spec: Mapping[str, Any], key: str) -> Trigger:
    match spec:
        case {"schedule": str(expression)}:
            return trigger.cron(expression, spec.get("timezone"), key)
        case {"interval": microseconds}:
            return trigger.interval(_load_duration(microseconds))
        case {"execute_at": int(at)}:
            check_instant(at)
            return OnceTrigger(at)
        case _:
            raise ValueError("the spec holds no schedule, interval or execute_at that can be read")


def _load_duration(value: object) -> timedelta:
    # Compared before it is converted: timedelta answers a number that is too large with an OverflowError.
    if type(value) is not int or not 0 < value < LAST_MICROS:
        raise ValueError(f"{options.shown(value)} is no duration in microseconds")
    return timedelta(microseconds=value)


def _check_modes(task: Task) -> None:
    if task.execution_mode is ExecutionMode.AT_MOST_ONCE and task.failure_mode is not FailureMode.NONE:
        options.refuse("failure_mode", task.failure_mode, "none with AT_MOST_ONCE, which never tries anything again")


def _check_body(body: object) -> None:
    called = body if inspect.isroutine(body) or inspect.isclass(body) else getattr(body, "__call__", None)  # noqa: B004
    if inspect.isclass(body) or not callable(body):
        options.refuse("the body", body, "an async function or a plain function that takes the context")
    if any(inspect.isgeneratorfunction(part) or inspect.isasyncgenfunction(part) for part in (body, called)):
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
