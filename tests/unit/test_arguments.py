"""Arguments: what comes back equal from JSON is accepted, anything else is refused with its place."""

from __future__ import annotations

import json
from collections import OrderedDict
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyscheduler import arguments
from anyscheduler.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

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


def test_subclasses_that_compare_equal_become_plain() -> None:
    checked = arguments.check({"a": OrderedDict(b=1)})

    assert checked == {"a": {"b": 1}}
    assert type(checked["a"]) is dict


@pytest.mark.parametrize(
    ("given_arguments", "place"),
    [
        ({"a": {1, 2}}, "args['a']="),
        ({"a": b"x"}, "args['a']="),
        ({"a": bytearray(b"x")}, "args['a']="),
        ({"a": datetime(2026, 1, 1, tzinfo=UTC)}, "args['a']="),
        ({"a": date(2026, 1, 1)}, "args['a']="),
        ({"a": timedelta(seconds=5)}, "args['a']="),
        ({"a": object()}, "args['a']="),
        ({"a": Decimal(5)}, "args['a']="),
        ({"a": UUID(int=5)}, "args['a']="),
        ({"a": Path("/")}, "args['a']="),
        ({"a": 1j}, "args['a']="),
        ({"a": range(3)}, "args['a']="),
        ({"a": print}, "args['a']="),
        ({"a": ()}, "args['a']="),
        ({"a": [0, 1, 2, (1, 2)]}, "args['a'][3]="),
        ({"a": {"b": [{"c": {1}}]}}, "args['a']['b'][0]['c']="),
        ({"a": float("nan")}, "args['a']="),
        ({"a": [float("inf")]}, "args['a'][0]="),
        ({"a": float("-inf")}, "args['a']="),
        ({"a": {1: "x"}}, "a key of args['a']=1"),
        ({"a": {None: "x"}}, "a key of args['a']=None"),
        ({"a": {True: "x"}}, "a key of args['a']=True"),
        ({"a": {("b",): "x"}}, "a key of args['a']=('b',)"),
        ({"a": "\ud800"}, "args['a']="),
        ({"a": ["x\udfffy"]}, "args['a'][0]="),
        ({"a": "x\0y"}, "args['a']="),
        ({"a": {"\0": 1}}, "a key of args['a']="),
        ({"a": {"\udc80": 1}}, "a key of args['a']="),
        ({"it's": {1}}, 'args["it\'s"]='),
    ],
)
def test_what_would_not_come_back_equal_is_refused_with_its_place(given_arguments: dict[str, Any], place: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        arguments.check(given_arguments)

    assert str(caught.value).startswith(place)


def test_the_refused_value_is_shown_cut_to_80_characters() -> None:
    with pytest.raises(ConfigurationError) as caught:
        arguments.check({"a": b"x" * 5_000})

    assert len(str(caught.value)) < 200


def test_a_nesting_of_100_is_accepted_and_a_deeper_one_refused() -> None:
    assert arguments.check({"a": nested(99)}) == {"a": nested(99)}
    with pytest.raises(ConfigurationError, match="nested deeper than 100"):
        arguments.check({"a": nested(100)})
    with pytest.raises(ConfigurationError, match="nested deeper than 100"):
        arguments.check({"a": nested(100_000)})


def test_what_contains_itself_is_refused() -> None:
    cyclic_list: list[Any] = [1]
    cyclic_list.append(cyclic_list)
    cyclic_dict: dict[str, Any] = {}
    cyclic_dict["a"] = {"b": cyclic_dict}

    for value in (cyclic_list, cyclic_dict):
        with pytest.raises(ConfigurationError, match="contains itself"):
            arguments.check({"a": value})


class Counted(list[Any]):
    """A list that notices when somebody walks through it far too often."""

    walks = 0

    def __iter__(self) -> Iterator[Any]:
        Counted.walks += 1
        assert Counted.walks < 200_000, "the work grows with the paths to a value, and not with what is stored"
        return super().__iter__()


def test_what_contains_one_value_very_often_is_refused_by_its_size_and_not_walked_to_the_end() -> None:
    Counted.walks = 0
    value: Any = 1
    for _ in range(60):  # as JSON this would take 2 ** 60 digits
        value = Counted([value, value])

    with pytest.raises(ConfigurationError, match="bytes"):
        arguments.check({"a": value})


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


def test_a_whole_number_of_any_size_comes_back_up_to_what_python_converts() -> None:
    assert arguments.check({"a": 2**4_000}) == {"a": 2**4_000}
    with pytest.raises(ConfigurationError, match="args"):
        arguments.check({"a": 10**5_000})
