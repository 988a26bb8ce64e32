"""The spec that an instance is stored as, also when it was damaged."""

from __future__ import annotations

import json
from datetime import UTC, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyscheduler.spec import dump_spec, load_spec, placeholder
from tests.unit.definitions import INSTANCES, SECOND, body, instance, properties, template


def test_a_spec_holds_what_differs_from_the_task() -> None:
    parent = template(lease_duration=timedelta(minutes=5), user="a", n=1)

    stored = instance(parent, interval=SECOND, user="b", n=1, heartbeat=True, lease_duration=timedelta(minutes=5))

    assert json.loads(dump_spec(parent, stored)) == {
        "v": 1,
        "interval": 1_000_000,
        "heartbeat": True,
        "args": {"user": "b"},
    }


@pytest.mark.parametrize(
    "given_options", INSTANCES, ids=lambda given_options: json.dumps(given_options, default=str)[:50]
)
@pytest.mark.parametrize("name", ["x", "a:b", "\U0001f600", "%3A"])
def test_an_instance_comes_back_from_its_spec_as_it_was(given_options: dict[str, Any], name: str) -> None:
    if "schedules" in given_options:  # one slip away from an option
        given_options = {**given_options, "schedules_": given_options["schedules"]}
        del given_options["schedules"]
    parent = template(name="task:1")
    stored = instance(parent, name, **given_options)

    loaded = load_spec(parent, stored.key, dump_spec(parent, stored))

    assert properties(loaded) == properties(stored)
    assert loaded.parent_task is parent


@pytest.mark.parametrize(
    "default",
    [{"schedule": "0 12 * * *", "timezone": "Asia/Kathmandu"}, {"interval": SECOND}, {"schedule": "H H * * *"}],
)
def test_an_instance_with_the_default_schedule_comes_back_from_its_spec_as_it_was(default: dict[str, Any]) -> None:
    # What comes back unequal counts as another trigger: registering it at every start would postpone its next run.
    parent = template(**default)
    stored = instance(parent, "x")

    assert load_spec(parent, stored.key, dump_spec(parent, stored)).trigger == stored.trigger


def test_hashed_fields_are_hashed_on_the_instance_so_that_instances_are_spread() -> None:
    parent = template(schedule="H H * * *")

    triggers = {instance(parent, f"x{number}").trigger for number in range(5)}

    assert len(triggers) == 5


@pytest.mark.parametrize(
    ("inherited", "own"),
    [(1, True), (True, 1), (0, False), (1, 1.0), (1.0, 1), (0.0, -0.0), ([1], [True]), ({"a": 0}, {"a": False})],
)
def test_an_argument_that_only_compares_equal_to_that_of_the_task_comes_back_as_it_was_given(
    inherited: Any, own: Any
) -> None:
    parent = template(value=inherited)
    stored = instance(parent, interval=SECOND, value=own)

    loaded = load_spec(parent, stored.key, dump_spec(parent, stored))

    assert repr(loaded.extra_args["value"]) == repr(own)


def test_an_option_that_is_not_the_instance_s_own_follows_the_code() -> None:
    before, after = template(lease_duration=SECOND, user="a"), template(lease_duration=timedelta(hours=1), user="b")
    stored = instance(before, interval=SECOND)

    loaded = load_spec(after, stored.key, dump_spec(before, stored))

    assert loaded.lease_duration == timedelta(hours=1)
    assert loaded.extra_args == {"user": "b"}


def test_nothing_in_a_spec_selects_code() -> None:
    parent = template()
    text = '{"v":1,"interval":1000000,"func":"os.system","parent_task":"x","name":"y","enabled":false,"dynamic":true}'

    loaded = load_spec(parent, "body:x", text)

    assert loaded.func is body
    assert (loaded.name, loaded.enabled, loaded.dynamic) == ("x", True, False)
    assert loaded.extra_args == {}


GOOD: dict[str, Any] = {"v": 1, "interval": 1_000_000}
HUGE = 10**30
DAMAGED_TRIGGERS: dict[str, tuple[Any, ...]] = {
    "interval": (0, -1, 999, 1.5, "5", None, True, [], {}, HUGE, -HUGE, 2**63, 36_525 * 86_400_000_000 + 1),
    "execute_at": (1.5, "5", None, True, False, [], {}, HUGE, -HUGE, 2**63, -(2**63)),
    "schedule": (5, None, [], {}, True, "", "* * * *", "61 * * * *", "0 0 31 2 *", "R * * * *", "* " * 200),
}
DAMAGED_TIMEZONES: tuple[Any, ...] = (
    5,
    True,
    [],
    {},
    "",
    "Mars/Base",
    "/etc/passwd",
    "UTC+25",
    "x" * 300,
    "\0",
    "\ud800",
)
DAMAGED_OPTIONS: dict[str, tuple[Any, ...]] = {
    "lease_duration": (0, -1, 1.5, "60", None, True, [], HUGE, -HUGE, 2**63),
    "failure_mode": (0, None, "", "UNLOCK", "retry", ["none"], {}, True),
    "execution_mode": (0, None, "", "twice", ["at_most_once"], {}, True),
    "heartbeat": (0, 1, None, "true", [], {}),
    "fast_forward": (0, 1, None, "true", [], {}),
    "args": (0, None, "", [], "{}", True, [["a", 1]]),
}
DAMAGED: dict[str, str | bytes] = {
    "empty": "",
    "cut off": '{"v":1,"inter',
    "not JSON": "\x80\x04\x95pickle",
    "bytes": b"\xff\xfe",
    "null": "null",
    "a number": "5",
    "a text": '"v"',
    "a list": "[1]",
    "empty object": "{}",
    "deep lists": "[" * 100_000,
    "deep objects": '{"v":' * 100_000,
    "deep arguments": '{"v":1,"interval":1000000,"args":{"a":' + "[" * 100_000 + "]" * 100_000 + "}}",
    "endless number": '{"v":1,"interval":' + "9" * 5_000 + "}",
    **{
        f"version {version}": json.dumps({**GOOD, "v": version})
        for version in (0, 2, 1.5, "1", None, [1], {"v": 1}, float("nan"), HUGE)
    },
    **{
        f"{option}={value!r}"[:60]: json.dumps({"v": 1, option: value})
        for option, values in DAMAGED_TRIGGERS.items()
        for value in values
    },
    **{
        f"timezone={value!r}"[:60]: json.dumps({"v": 1, "schedule": "* * * * *", "timezone": value})
        for value in DAMAGED_TIMEZONES
    },
    **{
        f"{option}={value!r}"[:60]: json.dumps({**GOOD, option: value})
        for option, values in DAMAGED_OPTIONS.items()
        for value in values
    },
}


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in DAMAGED.items()])
def test_a_damaged_spec_is_a_value_error(text: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        load_spec(template(), "body:x", text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(HUGE),
    lambda values: st.lists(values, max_size=2) | st.dictionaries(st.text(max_size=3), values, max_size=2),
    max_leaves=3,
)
fields = ("schedule", "interval", "execute_at", "timezone", "fast_forward", "failure_mode", "execution_mode")


@given(
    st.fixed_dictionaries({}, optional=dict.fromkeys((*fields, "lease_duration", "heartbeat", "args"), json_values)),
    st.sampled_from(({}, {"interval": 1_000_000}, {"execute_at": 5}, {"schedule": "0 12 * * *"})),
    st.integers(0, 40),
)
def test_whatever_is_stored_as_a_spec_is_an_instance_or_a_value_error(
    damage: dict[str, Any], trigger: dict[str, Any], cut: int
) -> None:
    text = json.dumps({"v": 1, **damage, **trigger})
    parent = template()
    for stored in (text, text[cut:], text[: len(text) - cut]):
        try:
            loaded = load_spec(parent, "body:x", stored)
        except ValueError:
            continue
        # What is accepted can be shown, executed and stored again.
        assert loaded.lease_micros > 0
        assert loaded.execute_at is None or loaded.execute_at.tzinfo is UTC
        assert loaded.zone is not None
        assert properties(load_spec(parent, "body:x", dump_spec(parent, loaded))).keys() == properties(loaded).keys()


def test_a_stand_in_for_a_damaged_row_has_a_name_and_the_guarantees_of_its_task() -> None:
    parent = template(lease_duration=SECOND)

    stand_in = placeholder(parent, "body:a:b")

    assert (stand_in.name, stand_in.key, stand_in.trigger, stand_in.func) == ("a:b", "body:a:b", None, body)
    assert (stand_in.schedule, stand_in.interval, stand_in.execute_at, stand_in.timezone) == (None, None, None, None)
    assert stand_in.lease_duration == SECOND
    assert stand_in.zone is UTC
