"""Arguments: what comes back equal from JSON is accepted, anything else is refused with its place."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyscheduler import arguments
from anyscheduler.errors import ConfigurationError

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda values: st.lists(values) | st.dictionaries(texts, values),
    max_leaves=20,
)


def nested(depth: int, innermost: object = 1) -> Any:
    value = innermost
    for _ in range(depth):
        value = [value]
    return value


@given(st.dictionaries(texts, json_values, max_size=5))
def test_what_json_can_hold_comes_back_equal(given_arguments: dict[str, Any]) -> None:
    assert arguments.check(given_arguments) == given_arguments
    assert json.loads(json.dumps(arguments.check(given_arguments))) == given_arguments


def test_the_copy_shares_no_part_with_what_was_given() -> None:
    given_arguments: dict[str, Any] = {"a": [1, {"b": []}]}

    checked = arguments.check(given_arguments)
    given_arguments["a"][1]["b"].append("changed later")
    given_arguments["c"] = 5

    assert checked == {"a": [1, {"b": []}]}


def test_no_arguments_are_fine_and_every_time_a_new_dictionary() -> None:
    first, second = arguments.check({}), arguments.check({})
    first["a"] = 1

    assert second == {}


@pytest.mark.parametrize("value", ["x", "\u00e9", "\U0001f600", '"', [1, 2], {"b": None}])
def test_the_limit_counts_bytes_of_json_and_is_included(value: Any) -> None:
    length = len(json.dumps({"a": value}))
    arguments.check({"a": value}, length)
    with pytest.raises(ConfigurationError, match=f"more than {length - 1} bytes as JSON"):
        arguments.check({"a": value}, length - 1)


def test_64_kib_are_the_limit_unless_another_one_is_given() -> None:
    overhead = len('{"a": ""}')
    assert arguments.DEFAULT_SIZE_LIMIT == 65_536
    arguments.check({"a": "x" * (65_536 - overhead)})
    with pytest.raises(ConfigurationError, match="args_size_limit="):
        arguments.check({"a": "x" * (65_537 - overhead)})
    arguments.check({"a": "x" * 100_000}, 1_000_000)
