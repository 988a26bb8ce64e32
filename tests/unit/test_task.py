"""Tasks: their definition, their instances, their keys."""

from __future__ import annotations

import functools
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from anyscheduler import task
from anyscheduler.clock import check_instant
from anyscheduler.errors import ConfigurationError
from anyscheduler.spec import dump_spec, load_spec, placeholder
from anyscheduler.task import ExecutionMode, FailureMode
from anyscheduler.trigger import CronTrigger, IntervalTrigger, OnceTrigger
from tests.unit.definitions import AT, INSTANCES, SECOND, body, define, instance, template

names = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1, max_size=20)
# Mostly made of what the encoding of keys has to tell apart.
tricky_names = st.text(":%23A5a", min_size=1, max_size=6) | names


def plain(context: Any) -> None:
    """A body that would run in a thread."""


# --- definition -------------------------------------------------------------------------------------------------------


def test_a_task_is_called_like_its_function_and_has_the_documented_defaults() -> None:
    defined = define(interval=SECOND)

    assert (defined.name, defined.key, str(defined)) == ("body", "body", "body")
    assert defined.trigger == IntervalTrigger(1_000_000)
    assert (defined.interval, defined.schedule, defined.execute_at, defined.timezone) == (SECOND, None, None, None)
    assert defined.zone is UTC
    assert defined.lease_duration == timedelta(seconds=60)
    assert defined.lease_micros == 60_000_000
    assert (defined.failure_mode, defined.execution_mode) == (FailureMode.NONE, ExecutionMode.AT_LEAST_ONCE)
    assert (defined.fast_forward, defined.heartbeat, defined.enabled) == (False, False, True)
    assert (defined.dynamic, defined.parent_task, defined.is_static) == (False, None, True)
    assert defined.extra_args == {}


def test_every_option_is_taken_over_and_what_is_no_option_is_an_argument() -> None:
    defined = define(
        name="own name",
        schedule="0 12 * * *",
        timezone="Europe/Dublin",
        fast_forward=True,
        failure_mode=FailureMode.UNLOCK,
        lease_duration=timedelta(minutes=5),
        heartbeat=True,
        enabled=False,
        user="mira",
        depth=[1, {"a": None}],
    )

    assert defined.name == "own name"
    assert (defined.schedule, defined.timezone, defined.zone) == (
        "0 12 * * *",
        "Europe/Dublin",
        ZoneInfo("Europe/Dublin"),
    )
    assert (defined.fast_forward, defined.failure_mode, defined.heartbeat) == (True, FailureMode.UNLOCK, True)
    assert defined.lease_duration == timedelta(minutes=5)
    assert not defined.enabled
    assert defined.extra_args == {"user": "mira", "depth": [1, {"a": None}]}


def test_the_arguments_are_copied_when_the_task_is_defined() -> None:
    shared = [1]
    defined = define(interval=SECOND, values=shared)
    shared.append(2)

    assert defined.extra_args == {"values": [1]}


def test_a_task_can_be_stacked_on_the_function_of_another_one() -> None:
    inner = define(name="inner", interval=SECOND)
    outer = define(inner, name="outer", schedule="* * * * *")

    assert outer.func is inner.func is body
    assert define(inner, interval=SECOND).name == "body"


class _Callable:
    async def __call__(self, context: Any) -> None:
        """A body with state."""


@pytest.mark.parametrize(
    ("func", "is_async"),
    [
        (body, True),
        (plain, False),
        (functools.partial(body), True),
        (functools.partial(plain), False),
        (_Callable(), True),
        (print, False),
    ],
)
def test_a_body_is_an_async_function_or_a_plain_one(func: Any, is_async: bool) -> None:
    assert define(func, name="x", interval=SECOND).func is func
    assert task.is_async(func) is is_async


def test_at_most_once_goes_without_a_failure_mode() -> None:
    defined = define(interval=SECOND, execution_mode=ExecutionMode.AT_MOST_ONCE, failure_mode=FailureMode.NONE)

    assert defined.execution_mode is ExecutionMode.AT_MOST_ONCE


def test_a_dynamic_task_needs_no_schedule_and_may_have_one_by_default() -> None:
    assert template().trigger is None
    assert template(interval=SECOND).interval == SECOND
    assert not template().is_static


def test_calling_a_task_calls_its_body() -> None:
    seen: list[object] = []
    defined = define(seen.append, name="x", interval=SECOND)

    defined("context")

    assert seen == ["context"]


# --- instances --------------------------------------------------------------------------------------------------------


def test_an_instance_has_the_options_of_its_task_unless_it_has_its_own() -> None:
    parent = template(
        lease_duration=timedelta(minutes=5),
        fast_forward=True,
        heartbeat=True,
        failure_mode=FailureMode.UNLOCK,
        user="a",
        n=1,
    )

    inherited = instance(parent, interval=SECOND)
    own = instance(
        parent,
        interval=SECOND,
        lease_duration=SECOND,
        fast_forward=False,
        heartbeat=False,
        failure_mode=FailureMode.COMMIT,
        user="b",
    )

    assert inherited.lease_duration == timedelta(minutes=5)
    assert (inherited.fast_forward, inherited.heartbeat, inherited.failure_mode) == (True, True, FailureMode.UNLOCK)
    assert inherited.extra_args == {"user": "a", "n": 1}
    assert own.lease_duration == SECOND
    assert (own.fast_forward, own.heartbeat, own.failure_mode) == (False, False, FailureMode.COMMIT)
    assert own.extra_args == {"user": "b", "n": 1}
    assert (own.parent_task, own.func, own.dynamic, own.is_static) == (parent, body, False, False)
    assert str(own) == "body:x"


def test_an_instance_may_be_due_by_cron_interval_or_once() -> None:
    parent = template()

    assert instance(parent, schedule="0 12 * * *", timezone="Europe/Dublin").trigger == CronTrigger(
        "0 12 * * *", "Europe/Dublin", ""
    )
    assert instance(parent, interval=SECOND).trigger == IntervalTrigger(1_000_000)
    once = instance(parent, execute_at=AT.astimezone(timezone(timedelta(hours=-5))))
    assert once.trigger == OnceTrigger(int(AT.timestamp()) * 1_000_000)
    assert once.execute_at == AT


def test_a_naive_execute_at_is_local_time_from_then_on() -> None:
    naive = datetime(2026, 7, 1, 12)

    assert instance(template(), execute_at=naive).execute_at == naive.astimezone(UTC)


def test_an_instance_without_a_schedule_gets_that_of_its_task() -> None:
    assert instance(template(interval=SECOND)).interval == SECOND
    assert instance(template(interval=SECOND), schedule="* * * * *").schedule == "* * * * *"
    with pytest.raises(ConfigurationError, match="needs one of schedule=, interval=, execute_at="):
        instance(template())


def test_an_instance_may_have_the_schedule_of_its_task_in_a_zone_of_its_own() -> None:
    moved = instance(template(schedule="0 12 * * *"), timezone="Asia/Kathmandu")

    assert (moved.schedule, moved.timezone) == ("0 12 * * *", "Asia/Kathmandu")
    with pytest.raises(ConfigurationError, match="timezone="):
        instance(template(interval=SECOND), timezone="Asia/Kathmandu")


@pytest.mark.parametrize("moment", [datetime.min, datetime.max])
def test_an_instant_that_is_accepted_is_one_that_the_loop_will_execute(moment: datetime) -> None:
    # The loop sets a row aside whose due time `check_instant` refuses: it would be registered, and never run.
    try:
        trigger = instance(template(), execute_at=moment.replace(tzinfo=UTC)).trigger
    except ConfigurationError:
        trigger = OnceTrigger(0)
    assert isinstance(trigger, OnceTrigger)
    check_instant(trigger.at)


# --- keys -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task_name", "name", "key"),
    [
        ("a", None, "a"),
        ("a", "b", "a:b"),
        ("a:", "b", "a%3A:b"),
        ("a", ":b", "a::b"),
        ("a:b", None, "a%3Ab"),
        ("a%3A", "b", "a%253A:b"),
        ("a", "%3Ab", "a:%3Ab"),
        ("\u00e9", "\U0001f600", "\u00e9:\U0001f600"),
    ],
)
def test_a_key_is_the_encoded_task_and_behind_the_first_colon_the_name_as_it_is(
    task_name: str, name: str | None, key: str
) -> None:
    if name is None:
        assert define(name=task_name, interval=SECOND).key == key
    else:
        assert instance(template(name=task_name), name, interval=SECOND).key == key


@given(tricky_names, st.none() | tricky_names, tricky_names, st.none() | tricky_names)
@example("a:", "b", "a", ":b")
@example("a:b", None, "a", "b")
@example("a%3A", "b", "a:", "b")
@example("a%3Ab", None, "a:b", None)
@example("\u00e9", "x", "e\u0301", "x")
@example("A", None, "a", None)
def test_two_different_pairs_of_task_and_name_never_meet(
    one_task: str, one_name: str | None, other_task: str, other_name: str | None
) -> None:
    def key(task_name: str, name: str | None) -> str:
        return task.static_key(task_name) if name is None else template(name=task_name).instance_key(name)

    same = (one_task, one_name) == (other_task, other_name)
    assert (key(one_task, one_name) == key(other_task, other_name)) is same


@given(tricky_names, tricky_names)
def test_the_name_is_found_again_in_the_key(task_name: str, name: str) -> None:
    parent = template(name=task_name)
    stored = instance(parent, name, interval=SECOND)

    assert load_spec(parent, stored.key, dump_spec(parent, stored)).name == name
    assert placeholder(parent, stored.key).name == name


# --- fingerprints -----------------------------------------------------------------------------------------------------


def test_fingerprints_are_equal_for_equal_triggers_and_only_for_those() -> None:
    triggers = [
        *(
            define(**given_options).trigger
            for given_options in INSTANCES
            if "execute_at" not in given_options and "args" not in given_options
        ),
        *(define(schedule="0 12 * * *", timezone=zone).trigger for zone in ("Europe/London", "utc+12", None)),
        *(define(interval=timedelta(microseconds=micros)).trigger for micros in (1_001, 1_000_001, 86_400_000_001)),
    ]
    distinct = {trigger for trigger in triggers if trigger is not None}

    assert len({task.fingerprint(trigger) for trigger in distinct}) == len(distinct)
    assert task.fingerprint(IntervalTrigger(5_000)) == task.fingerprint(IntervalTrigger(5_000))
