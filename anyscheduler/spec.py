"""The stored form of an instance of a dynamic task: what differs from the task in the code, as JSON.

Knows: tasks, triggers, JSON. Must not know: stores, leases, the event loop.
"""

from __future__ import annotations

import json
import re
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from anyscheduler import options, trigger
from anyscheduler.clock import LAST_MICROS, check_instant, duration_micros
from anyscheduler.lease import load_object
from anyscheduler.task import (
    GUARANTEE_OPTIONS,
    LEAST_LEASE,
    MOST_LEASE,
    ExecutionMode,
    FailureMode,
    Task,
    instance_of,
)
from anyscheduler.trigger import CronTrigger, IntervalTrigger, OnceTrigger, Trigger

if TYPE_CHECKING:
    from collections.abc import Mapping

SPEC_VERSION: Final = 1
"""The version of the stored spec. A later one also gets other values of `Row.task`, so that claims of this version do
not even lease its rows."""


_REMEMBERED_LENGTH: Final = 1_000
"""Up to how many characters a text is remembered, with what it says: there are 4,096 of them."""

_ONCE: Final = re.compile(rf'{{"v":{SPEC_VERSION},"execute_at":([1-9][0-9]{{0,17}})}}')
"""What most once-offs are stored as: an instance is made in 2.0 µs by this, and in 3.3 by a parser."""

_GUARANTEES: Final = frozenset(GUARANTEE_OPTIONS)

# json.dumps with separators would build an encoder for each call, which takes longer than the encoding.
_encode = json.JSONEncoder(separators=(",", ":")).encode


def dump_spec(template: Task, task: Task) -> str:
    """Returns an instance as it is stored: what differs from its dynamic task, as JSON."""
    # Put together by hand: most have one field beside the version, and an encoder takes longer for an object than for
    # the values in it.
    fields = [f'"v":{SPEC_VERSION}']
    match task.trigger:
        case CronTrigger(expression, timezone, _):
            fields.append(f'"schedule":{_encode(expression)}')
            if timezone is not None:
                fields.append(f'"timezone":{_encode(timezone)}')
        case IntervalTrigger(microseconds):
            fields.append(f'"interval":{microseconds}')
        case OnceTrigger(at):
            fields.append(f'"execute_at":{at}')
        case None:
            pass
    for option in GUARANTEE_OPTIONS:
        value = getattr(task, option)
        if value != getattr(template, option):
            written = _encode(duration_micros(value) if isinstance(value, timedelta) else value)
            fields.append(f'"{option}":{written}')
    inherited = template.extra_args
    # Compared as JSON, where 1, 1.0 and True differ.
    args = {
        key: value
        for key, value in task.extra_args.items()
        if key not in inherited or json.dumps(inherited[key]) != json.dumps(value)
    }
    if args:
        fields.append(f'"args":{_encode(args)}')
    return f"{{{','.join(fields)}}}"


class _Spec(NamedTuple):
    """What a stored text says.

    Attributes:
        args: The instance's own arguments.
        guarantees: The guarantee options that it has of its own.
        trigger: Its trigger; None for a cron, whose `H` fields depend on the name as well.
        schedule: The cron expression, as it is stored.
        timezone: The zone of the cron, as it is stored.
    """

    args: dict[str, Any]
    guarantees: dict[str, Any]
    trigger: Trigger | None
    schedule: object
    timezone: object


def load_spec(template: Task, key: str, text: str) -> Task:
    """Returns the instance that was stored under `key`.

    Nothing in a stored row selects code: the body is that of `template`, whatever the row says.

    Raises:
        ValueError: The row was damaged, or written by a later version of this package.
    """
    if not isinstance(text, str):
        raise ValueError("it is not text")
    name = options.schedule_name("name", key.partition(":")[2])
    if once := _ONCE.fullmatch(text):
        task = instance_of(template, name, {}, {})
        task.trigger = _load_once(int(once[1]))
        return task
    # Not what runs once, which would only push out what recurs. Arguments are this execution's own, and are read sooner
    # than copied.
    is_shared = '"execute_at"' not in text and '"args"' not in text and len(text) <= _REMEMBERED_LENGTH
    args, guarantees, task_trigger, schedule, timezone = _remembered(text) if is_shared else _read(text)
    task = instance_of(template, name, {**args}, guarantees)
    task.trigger = trigger.cron(schedule, timezone, key) if task_trigger is None else task_trigger
    return task


def _read(text: str) -> _Spec:
    spec = load_object(text)
    version = spec.get("v")
    if type(version) is not int or version != SPEC_VERSION:
        raise ValueError(f"the spec has version {options.shown(version)}, and this release reads {SPEC_VERSION}")
    args = spec.get("args", {})
    if not isinstance(args, dict):
        raise ValueError("the arguments are not a JSON object")
    guarantees: dict[str, Any] = {}
    if not _GUARANTEES.isdisjoint(spec):
        guarantees = {option: _load_guarantee(option, spec[option]) for option in _GUARANTEES.intersection(spec)}
    return _Spec(args, guarantees, _load_trigger(spec), spec.get("schedule"), spec.get("timezone"))


# One is read for every row that is executed: the same each time that an instance recurs, and one for all those that
# recur alike.
_remembered = lru_cache(maxsize=4096)(_read)


def placeholder(template: Task, key: str) -> Task:
    """Returns an instance that stands in for a stored row that cannot be read: it has a name, and no trigger."""
    return instance_of(template, key.partition(":")[2] or template.name, {}, {})


def _load_guarantee(option: str, value: object) -> object:
    match option:
        case "failure_mode":
            return FailureMode(str(value))
        case "execution_mode":
            return ExecutionMode(str(value))
        case "lease_duration":
            return options.duration(option, timedelta(microseconds=_load_microseconds(value)), LEAST_LEASE, MOST_LEASE)
        case _:
            return options.flag(option, value)


def _load_trigger(spec: Mapping[str, Any]) -> Trigger | None:
    if ("schedule" in spec) + ("interval" in spec) + ("execute_at" in spec) > 1:
        raise ValueError("the spec holds more than one of schedule, interval and execute_at")
    if "schedule" in spec:
        return None
    if "interval" in spec:
        return _load_interval(_load_microseconds(spec["interval"]))
    if "execute_at" in spec:
        return _load_once(spec["execute_at"])
    raise ValueError("the spec holds no schedule, interval or execute_at")


def _load_once(micros: int) -> OnceTrigger:
    check_instant(micros)
    return OnceTrigger(micros)


@lru_cache(maxsize=1024)
def _load_interval(microseconds: int) -> IntervalTrigger:
    return trigger.interval(timedelta(microseconds=microseconds))


def _load_microseconds(value: object) -> int:
    # Compared before it is converted: timedelta answers a number that is too large with an OverflowError.
    if type(value) is not int or not 0 < value < LAST_MICROS:
        raise ValueError(f"{options.shown(value)} is no duration in microseconds")
    return value
