"""Options of apps, tasks and instances: of another kind, out of bounds, misspelt, or not to be had together."""

from __future__ import annotations

import datetime as dt
import enum
import math
from datetime import timedelta
from typing import Any

import pytest

from anyscheduler import ExecutionMode, FailureMode, Scheduler, with_heartbeat
from tests.bad_inputs.refusals import (
    DAILY,
    NewApp,
    as_shown,
    body,
    label,
    refused,
    refused_for_an_instance,
    refused_wherever_it_is_given,
)

ENDLESS = 10**5_000


class Unequal:
    """A value that can be compared with nothing, and not even be shown."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no")

    def __repr__(self) -> str:
        raise RuntimeError("no")


class Mode(enum.StrEnum):
    NONE = "none"


NO_DURATIONS: list[Any] = ["60", "", True, None, math.nan, math.inf, b"5", (5,), dt.date.min, "\0\U0001f600", Unequal()]
NO_WHOLE_NUMBERS: list[Any] = [0, -1, 1.5, True, False, 5.0, "5", None, math.nan, math.inf, -ENDLESS, ENDLESS, 5j, [5]]
NO_FLAGS: list[Any] = [0, 1, None, "", "yes", "True", 0.0, math.nan, [], Unequal()]


def labelled(*groups: tuple[str, list[Any], str]) -> list[Any]:
    """Returns a case for each value of each option, with what its refusal has to hold."""
    return [
        pytest.param(option, value, allowed, id=f"{option}-{label_of(value)}-{number}")
        for option, values, allowed in groups
        for number, value in enumerate(values)
    ]


def label_of(value: object) -> str:
    return type(value).__name__ if isinstance(value, Unequal) else label(value)


# --- of an app --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    labelled(
        ("poll_interval", NO_DURATIONS, "timedelta(seconds=5)"),
        ("poll_interval", [1, 0.5, 10**9], "a datetime.timedelta, such as timedelta(seconds="),
        (
            "poll_interval",
            [timedelta(0), timedelta(seconds=-1), timedelta(microseconds=999), timedelta(hours=1, microseconds=1)],
            "a timedelta from 0:00:00.001000 to 1:00:00",
        ),
        ("poll_interval", [timedelta.max, timedelta.min], "a timedelta from 0:00:00.001000 to 1:00:00"),
        ("concurrency_limit", [*NO_WHOLE_NUMBERS, 1_000_001, Unequal()], "a whole number from 1 to 1000000"),
        ("batch_size", [*NO_WHOLE_NUMBERS, 1_000_001, Unequal()], "a whole number from 1 to 1000000"),
        ("args_size_limit", [*NO_WHOLE_NUMBERS, 2**40], "a whole number from 1 to 67108864"),
        ("shutdown_timeout", [value for value in NO_DURATIONS if value is not None], "timedelta(seconds=5)"),
        ("shutdown_timeout", [5, 0, -1.5], "a datetime.timedelta, such as timedelta(seconds="),
        (
            "shutdown_timeout",
            [timedelta(microseconds=-1), timedelta(days=367), timedelta.max],
            "a timedelta from 0:00:00 to 366 days",
        ),
        ("clock", [None, 5, "now", dt.datetime.max, Unequal()], "a callable that returns an aware datetime"),
        ("repository_factory", [5, "sqlite", object(), int, dict, [], Scheduler], "repository_factory"),
        ("repository_factory", [lambda: None, lambda: 5, lambda: "x"], "returns an async context manager"),
    ),
)
def test_an_option_of_an_app_is_refused_when_the_app_is_made(option: str, value: Any, allowed: str) -> None:
    given: dict[str, Any] = {option: value}
    with refused(option, allowed):
        Scheduler(**given)


@pytest.mark.parametrize(
    "clock",
    [lambda: None, lambda: 5, dt.datetime.now, lambda: dt.date(2026, 1, 1), lambda later: later],
    ids=["none", "a number", "naive", "a date", "an argument"],
)
@pytest.mark.anyio
async def test_a_clock_that_shows_no_aware_datetime_is_refused_before_the_app_runs(clock: Any) -> None:
    with refused("clock=", "a callable that returns an aware datetime"):
        async with Scheduler(clock=clock).create():
            raise AssertionError("unreachable")


# --- of tasks and instances -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    labelled(
        ("lease_duration", NO_DURATIONS, "timedelta(seconds=5)"),
        ("lease_duration", [60, 0.5, -1], "a datetime.timedelta, such as timedelta(seconds="),
        (
            "lease_duration",
            [timedelta(0), timedelta(seconds=-60), timedelta(microseconds=999), timedelta(days=367), timedelta.max],
            "a timedelta from 0:00:00.001000 to 366 days",
        ),
        ("fast_forward", NO_FLAGS, "True or False"),
        ("heartbeat", NO_FLAGS, "True or False"),
        (
            "failure_mode",
            ["unlock", "NONE", "", None, 0, True, FailureMode, ExecutionMode.AT_LEAST_ONCE, Mode.NONE, [], Unequal()],
            "one of FailureMode.NONE, FailureMode.UNLOCK, FailureMode.COMMIT",
        ),
        (
            "execution_mode",
            ["at_most_once", "", None, 1, ExecutionMode, FailureMode.NONE, "AT_MOST_ONCE", b"x", Unequal()],
            "one of ExecutionMode.AT_LEAST_ONCE, ExecutionMode.AT_MOST_ONCE",
        ),
    ),
)
def test_an_option_of_a_task_is_refused_wherever_it_is_given(option: str, value: Any, allowed: str) -> None:
    refused_wherever_it_is_given({**DAILY, option: value}, f"{option}=", allowed)


@pytest.mark.parametrize("value", NO_FLAGS, ids=label_of)
def test_a_task_is_enabled_or_not(value: Any) -> None:
    app = Scheduler()
    for define in (app.task, app.dynamic_task):
        with refused("enabled=", "True or False"):
            define(**DAILY, enabled=value)(body)
    assert app._tasks == {}


@pytest.mark.parametrize("mode", [FailureMode.UNLOCK, FailureMode.COMMIT])
def test_what_runs_at_most_once_has_no_failure_mode(mode: FailureMode) -> None:
    given = {**DAILY, "execution_mode": ExecutionMode.AT_MOST_ONCE, "failure_mode": mode}
    refused_wherever_it_is_given(given, "failure_mode=", "none with AT_MOST_ONCE, which never tries anything again")


@pytest.mark.anyio
async def test_modes_that_do_not_go_together_are_refused_also_when_one_is_inherited() -> None:
    app = Scheduler()
    unlocks = app.dynamic_task(name="unlocks", failure_mode=FailureMode.UNLOCK)(body)
    async with app.create() as app_context:
        with refused("failure_mode=", "none with AT_MOST_ONCE"):
            await app_context.schedule_task(unlocks, "x", **DAILY, execution_mode=ExecutionMode.AT_MOST_ONCE)
        assert (await app_context.list_tasks(unlocks)).tasks == []


@pytest.mark.parametrize("ratio", [0, 1, -1, 1.5, 0.0, math.nan, math.inf, True, "0.5", None, 0.5j, ENDLESS], ids=label)
def test_a_heartbeat_ratio_lies_between_0_and_1(ratio: Any) -> None:
    with refused("lease_remaining_ratio=", "a number between 0 and 1, both excluded"):
        with_heartbeat(lease_remaining_ratio=ratio)


@pytest.mark.parametrize("value", NO_FLAGS, ids=label_of)
def test_a_body_is_cancelled_when_its_lease_is_lost_or_not(value: Any) -> None:
    with refused("cancel_on_lease_lost=", "True or False"):
        with_heartbeat(cancel_on_lease_lost=value)


@pytest.mark.anyio
async def test_scheduling_is_forced_or_not_on_every_store(new_app: NewApp) -> None:
    app = new_app()
    task = app.dynamic_task()(body)
    async with app.create() as app_context:
        for value in NO_FLAGS:
            with refused("force=", "True or False"):
                await app_context.schedule_task(task, "x", force=value, **DAILY)
            with refused("force=", "True or False"):
                await app_context.schedule_tasks(task, [("x", DAILY)], force=value)
        assert (await app_context.list_tasks(task)).tasks == []


@pytest.mark.parametrize("option", ["name", "task", "force"])
@pytest.mark.anyio
async def test_what_is_said_once_for_many_instances_is_refused_for_one_of_them(option: str) -> None:
    app = Scheduler()
    task = app.dynamic_task()(body)
    async with app.create() as app_context:
        with refused(f"{option}=True", "given once for the call"):
            await app_context.schedule_tasks(task, [("x", {**DAILY, option: True})])
        assert (await app_context.list_tasks(task)).tasks == []


NO_PAIRS: list[Any] = [5, None, "xy", b"xy", "x", (), ("x",), ("x", {}, {}), ("x", None), ("x", "{}"), {"x": {}},
                       ("x", [("schedule", "@daily")]), ("x", {1: 2}), ("x", {None: 2}), {5, 6}, object()]  # fmt: skip


@pytest.mark.anyio
async def test_what_is_no_pair_of_a_name_and_keywords_is_refused_among_many_on_every_store(new_app: NewApp) -> None:
    app = new_app()
    task = app.dynamic_task()(body)
    async with app.create() as app_context:
        for item in NO_PAIRS:
            with refused("instances=", as_shown(item), "pairs of a name and a mapping"):
                await app_context.schedule_tasks(task, [("good", DAILY), item])
        for instances in (None, 5, math.nan, task):
            with refused("instances=", as_shown(instances), "pairs of a name and a mapping"):
                await app_context.schedule_tasks(task, instances)  # type: ignore[arg-type]
        names: list[Any] = [["x"], {}, ("x",)]
        for name in names:
            with refused("name="):
                await app_context.schedule_tasks(task, [(name, DAILY)])
        assert (await app_context.list_tasks(task)).tasks == []


@pytest.mark.parametrize("option", ["partition_count", "partition_selector", "enabled_partitions"])
def test_options_of_partitions_are_refused_for_a_task_that_has_none(option: str) -> None:
    app = Scheduler()
    for define in (app.task, app.dynamic_task):
        with refused(f"{option}= is an option of @app.partitioned_task()"):
            define(**{**DAILY, option: 5})(body)
    assert app._tasks == {}


# --- misspelt ---------------------------------------------------------------------------------------------------------

SLIPS = {
    "lease_durations": "lease_duration",
    "lease_duratoin": "lease_duration",
    "leaseduration": "lease_duration",
    "fastforward": "fast_forward",
    "faliure_mode": "failure_mode",
    "failure_Mode": "failure_mode",
    "execution_mod": "execution_mode",
    "heart_beat": "heartbeat",
    "nam": "name",
    "names": "name",
    "schedules": "schedule",
    "shedule": "schedule",
    "interva": "interval",
    "interval\n": "interval",
    "Interval": "interval",
    "time_zone": "timezone",
    "timezon\u0435": "timezone",
    "execute_ai": "execute_at",
}


@pytest.mark.parametrize(("slip", "meant"), SLIPS.items(), ids=label)
def test_a_keyword_one_slip_away_from_an_option_is_refused(slip: str, meant: str) -> None:
    refused_wherever_it_is_given({**DAILY, slip: 5}, as_shown(slip), f"did you mean '{meant}'")


@pytest.mark.parametrize("slip", ["forse", "task_", "forc"])
def test_a_slip_in_what_only_instances_take_is_refused_there(slip: str) -> None:
    refused_for_an_instance({**DAILY, slip: True}, f"'{slip}' is not an option; did you mean")


@pytest.mark.parametrize(
    "name",
    ["poll_intervall", "Poll_interval", "concurency_limit", "batchsize", "clocks", "sqlite_databas", "redis_uri"],
)
def test_a_slip_in_an_option_of_an_app_is_refused(name: str) -> None:
    given: dict[str, Any] = {name: 5}
    with refused(f"{name!r} is not an option; did you mean"):
        Scheduler(**given)


@pytest.mark.parametrize(
    "name", ["colour", "", "\0", "a\nb", "\ud800", "\U0001f600", "self_", "x" * 5_000, "redis_namespace"], ids=label
)
def test_an_option_that_there_is_not_is_refused_on_one_short_line(name: str) -> None:
    given: dict[str, Any] = {name: 5}
    with refused("has no option", as_shown(name), "its options are: args_size_limit, batch_size"):
        Scheduler(**given)


@pytest.mark.parametrize(
    "given",
    [
        {"postgres_url": "postgresql://h/d", "redis_url": "redis://h"},
        {"sqlite_database": "x.db", "redis_url": "redis://h"},
        {"sqlite_database": "x.db", "postgres_url": "postgresql://h/d"},
    ],
    ids=label,
)
def test_two_stores_at_once_are_refused_by_name(given: dict[str, Any]) -> None:
    with refused(*given, "are two stores; give one"):
        Scheduler(**given)
