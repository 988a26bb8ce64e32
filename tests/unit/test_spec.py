"""The spec that an instance is stored as, also when it was damaged."""

from __future__ import annotations

import json
from datetime import UTC, timedelta
from typing import Any

import pytest

from anyscheduler.spec import dump_spec, load_spec, placeholder
from anyscheduler.trigger import OnceTrigger
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


LATEST = 253_402_041_600_000_000
"""The last instant that a spec may hold: the 29th of December 9999."""


@pytest.mark.parametrize("micros", [1, 9, 1_764_223_200_000_000, LATEST, 0, -1])
def test_a_once_off_says_the_same_however_it_is_written(micros: int) -> None:
    # As it is stored, which is read by a pattern, and in two ways that only somebody else would write.
    written = (
        f'{{"v":1,"execute_at":{micros}}}',
        f'{{"v": 1, "execute_at": {micros}}}',
        f'{{"execute_at":{micros},"v":1}}',
    )

    assert [load_spec(template(), "task:x", text).trigger for text in written] == [OnceTrigger(micros)] * 3


@pytest.mark.parametrize(
    "text",
    [
        '{"v":1,"execute_at":01}',
        '{"v":1,"execute_at":\u0661\u0662}',
        '{"v":1,"execute_at":1}}',
        '{"v":1,"execute_at":1}x',
        '{"v":1,"execute_at":1',
        f'{{"v":1,"execute_at":{LATEST + 1}}}',
        '{"v":1,"execute_at":999999999999999999}',
        '{"v":1,"execute_at":1000000000000000000}',
        '{"v":2,"execute_at":1}',
        '{"v":11,"execute_at":1}',
    ],
)
def test_what_only_looks_like_a_once_off_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        load_spec(template(), "task:x", text)


def test_hashed_fields_are_hashed_on_the_instance_so_that_instances_are_spread() -> None:
    parent = template(schedule="H H * * *")

    triggers = {instance(parent, f"x{number}").trigger for number in range(5)}

    assert len(triggers) == 5


def test_instances_with_equal_specs_have_their_own_names_hashes_and_guarantees() -> None:
    parent = template(schedule="H H * * *")
    spec = dump_spec(parent, instance(parent, "x", lease_duration=SECOND))

    loaded = [load_spec(parent, f"body:{name}", spec) for name in "abcde"]

    assert [task.name for task in loaded] == list("abcde")
    assert len({task.trigger for task in loaded}) == 5
    assert {task.lease_duration for task in loaded} == {SECOND}


@pytest.mark.parametrize("own", [{}, {"value": [1, {"a": []}]}])
def test_what_one_execution_does_to_its_arguments_reaches_no_other(own: dict[str, Any]) -> None:
    parent = template()
    stored = instance(parent, "x", interval=SECOND, **own)
    spec = dump_spec(parent, stored)

    first = load_spec(parent, stored.key, spec)
    first.extra_args["more"] = 1
    for value in own:
        first.extra_args[value].append(2)

    assert load_spec(parent, stored.key, spec).extra_args == own


def test_a_spec_that_cannot_be_read_cannot_be_read_again_either() -> None:
    for _ in range(2):
        with pytest.raises(ValueError, match="version 2"):
            load_spec(template(), "body:x", '{"v":2,"interval":1000000}')


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


def test_a_stand_in_for_a_damaged_row_has_a_name_and_the_guarantees_of_its_task() -> None:
    parent = template(lease_duration=SECOND)

    stand_in = placeholder(parent, "body:a:b")

    assert (stand_in.name, stand_in.key, stand_in.trigger, stand_in.func) == ("a:b", "body:a:b", None, body)
    assert (stand_in.schedule, stand_in.interval, stand_in.execute_at, stand_in.timezone) == (None, None, None, None)
    assert stand_in.lease_duration == SECOND
    assert stand_in.zone is UTC
