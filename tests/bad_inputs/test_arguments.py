"""Arguments that would not come back equal from JSON, refused with their place; and odd ones that do come back."""

from __future__ import annotations

import enum
import math
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from anyscheduler import Scheduler
from tests.bad_inputs.refusals import (
    DAILY,
    NewApp,
    body,
    label,
    refused,
    refused_for_an_instance,
    refused_wherever_it_is_given,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

Point = namedtuple("Point", "x")  # noqa: PYI024  # a tuple, whatever its fields are


class Text(str):
    __slots__ = ()


class Number(enum.IntEnum):
    FIVE = 5


class Colour(enum.StrEnum):
    RED = "red"


class Shape(enum.Enum):
    ROUND = 1


def nested(depth: int, innermost: object = 1) -> Any:
    value = innermost
    for _ in range(depth):
        value = [value]
    return value


# --- what would not come back equal -----------------------------------------------------------------------------------

BAD_ARGUMENTS: list[tuple[dict[str, Any], str]] = [
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
    # As many again.
    ({"a": frozenset()}, "args['a']=frozenset()"),
    ({"a": deque([1])}, "args['a']=deque([1])"),
    ({"a": Point(1)}, "args['a']=Point(x=1)"),
    ({"a": Shape.ROUND}, "args['a']=<Shape.ROUND: 1>"),
    ({"a": memoryview(b"x")}, "args['a']="),
    ({"a": ...}, "args['a']=Ellipsis"),
    ({"a": NotImplemented}, "args['a']=NotImplemented"),
    ({"a": int}, "args['a']=<class 'int'>"),
    ({"a": math}, "args['a']="),
    ({"a": Exception("x")}, "args['a']=Exception('x')"),
    ({"a": iter([])}, "args['a']="),
    ({"a": {}.keys()}, "args['a']=dict_keys([])"),
    ({"a": {}.items()}, "args['a']=dict_items([])"),
    ({"a": UTC}, "args['a']=datetime.timezone.utc"),
    ({"a": datetime(2026, 1, 1).time()}, "args['a']=datetime.time(0, 0)"),
    ({"a": [[[(1,)]]]}, "args['a'][0][0][0]=(1,)"),
    ({"a": [1, {"b": Decimal("nan")}]}, "args['a'][1]['b']=Decimal('NaN')"),
    ({"a": {1.5: 1}}, "a key of args['a']=1.5"),
    ({"a": {b"b": 1}}, "a key of args['a']=b'b'"),
    ({"a": {"b": {None: 1}}}, "a key of args['a']['b']=None"),
    ({"a": "\ud83d\ude00"}, "args['a']='\\ud83d\\ude00'"),
    ({"a": {"b\0": 1}}, "a key of args['a']='b\\x00'"),
    ({"\0": 1}, "a key of args='\\x00'"),
    ({"\ud800": 1}, "a key of args='\\ud800'"),
    ({"\U0001f600": [{1}]}, "args['\U0001f600'][0]={1}"),
    ({"a\nb": {1}}, "args['a\\nb']={1}"),
    ({"a": 10**5_000}, "args['a']=<int> is refused: a whole number may have 14000 bits"),
    ({"a": [0, -(10**4_299)]}, "args['a'][1]="),
    ({"x" * 500: {1}}, "args['" + "x" * 76 + "...]={1}"),
]


@pytest.mark.parametrize(("given", "place"), BAD_ARGUMENTS, ids=label)
def test_what_would_not_come_back_equal_is_refused_with_its_place(given: dict[str, Any], place: str) -> None:
    refused_wherever_it_is_given({**DAILY, **given}, place)


def test_a_refused_value_is_shown_cut_to_80_characters() -> None:
    refused_for_an_instance({**DAILY, "a": b"x" * 5_000}, "args['a']=b'" + "x" * 75 + "... is refused")


# --- too much ---------------------------------------------------------------------------------------------------------


def test_a_nesting_of_100_is_accepted_and_a_deeper_one_refused() -> None:
    task = Scheduler().task(**DAILY, a=nested(99))(body)
    assert task.extra_args == {"a": nested(99)}
    for depth in (100, 101, 1_000, 100_000):
        refused_wherever_it_is_given({**DAILY, "a": nested(depth)}, "args['a'][0][0]", "nested deeper than 100")


def test_what_contains_itself_is_refused() -> None:
    cyclic_list: list[Any] = [1]
    cyclic_list.append(cyclic_list)
    cyclic_dict: dict[str, Any] = {}
    cyclic_dict["a"] = {"b": cyclic_dict}
    for value in (cyclic_list, cyclic_dict):
        refused_wherever_it_is_given({**DAILY, "a": value}, "contains itself")


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
    with refused("args take more than 65536 bytes"):
        Scheduler().task(**DAILY, a=value)(body)


@pytest.mark.parametrize(
    "value", ["x" * 65_536, "\U0001f600" * 6_000, [0] * 30_000, {str(n): None for n in range(9_000)}], ids=label
)
def test_arguments_over_64_kib_are_refused_and_the_limit_is_an_option(value: Any) -> None:
    refused_wherever_it_is_given({**DAILY, "a": value}, "args take more than 65536 bytes", "args_size_limit=")
    task = Scheduler(args_size_limit=1_000_000).task(**DAILY, a=value)(body)
    assert task.extra_args == {"a": value}


# --- odd, and fine ----------------------------------------------------------------------------------------------------

ODD_ARGUMENTS: dict[str, Any] = {
    "none": None,
    "zero": -0.0,
    "tiny": 5e-324,
    "large": 1.7976931348623157e308,
    "beyond a float": 2**53 + 1,
    "beyond 64 bits": [2**63, -(2**63) - 1, 2**64, 10**400],
    "": {"": [[], {}, ""]},
    "controls": "\x01\x1b[31m\x7f\x85\u2028\u2029\ufeff\ufffe\uffff",
    "texts": ["\U0001f600", "\u05e9", "e\u0301", "\u00e9", "'\"`\\", "{}", "%s", "$1", "; DROP TABLE x"],
    "JSON in JSON": '{"v":1,"interval":5}',
    "key": {"task": 1, "due_at": 2, "token": 3, "spec": 4, "args": 5, "__class__": 6},
    "func": "os.system",
    "given": True,
}


@pytest.mark.anyio
async def test_odd_arguments_come_back_equal_from_every_store(new_app: NewApp) -> None:
    app = new_app()
    task = app.dynamic_task(name="task")(body)
    async with app.create() as app_context:
        await app_context.schedule_task(task, "x", **DAILY, **ODD_ARGUMENTS)
        await app_context.schedule_task(task, "deep", **DAILY, a=nested(99))
        await app_context.schedule_task(task, "long", **DAILY, a="x" * 65_000)
        found = [await app_context.get_task(task, name) for name in ("x", "deep", "long")]
    assert [state.error for state in found if state is not None] == [None] * 3
    args = [state.task.extra_args for state in found if state is not None]
    assert args == [ODD_ARGUMENTS, {"a": nested(99)}, {"a": "x" * 65_000}]
    assert [repr(args[0][name]) for name in ("zero", "given")] == ["-0.0", "True"]


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Text("x"), "x"),
        (Number.FIVE, 5),
        (Colour.RED, "red"),
        (OrderedDict(a=1), {"a": 1}),
        (defaultdict(list, a=[1]), {"a": [1]}),
        (Counter("aa"), {"a": 2}),
        ({Colour.RED: 1, Text("k"): 2}, {"red": 1, "k": 2}),
    ],
    ids=label,
)
def test_what_compares_equal_to_json_becomes_plain(value: Any, plain: Any) -> None:
    stored = Scheduler().task(**DAILY, a=value)(body).extra_args["a"]
    assert stored == value == plain
    assert type(stored) is type(plain)
