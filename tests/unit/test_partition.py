"""Partitions: which instance belongs to which, under which column it is stored, and what is refused."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from anyscheduler import partition, task
from anyscheduler.errors import ConfigurationError
from anyscheduler.partition import select, select_by_sha1
from anyscheduler.spec import dump_spec, load_spec, placeholder
from anyscheduler.task import Task, static_key
from tests.unit.definitions import LIMIT, SECOND, body, define, instance, properties

# Mostly made of what the encoding of names and the form of columns have to tell apart.
names = st.text(":%p0125A", min_size=1, max_size=8) | st.text(
    st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1, max_size=20
)


def partitioned(count: Any = 4, **given_options: Any) -> Task:
    options = {"partition_count": count, **given_options}
    return task.define(body, options, size_limit=LIMIT, dynamic=True, partitioned=True)


# --- the selector -----------------------------------------------------------------------------------------------------


def test_the_default_selector_is_that_of_pyncette() -> None:
    assert select_by_sha1(10**12, "Lorem ipsum dolor sit amet") == 222413034928


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 100])
def test_the_default_selector_reaches_every_partition_and_none_much_oftener(count: int) -> None:
    chosen = [select_by_sha1(count, f"name {number}") for number in range(100 * count)]

    assert set(chosen) == set(range(count))
    assert all(50 < chosen.count(number) < 200 for number in range(count)) or count == 1


@given(st.integers(1, 10_000), st.text(st.characters(exclude_categories=["Cs"])))
def test_the_default_selector_returns_a_partition_for_every_name(count: int, name: str) -> None:
    assert 0 <= select(select_by_sha1, count, name) < count


@pytest.mark.parametrize("said", [-1, 4, 10**30, 1.0, True, False, None, "0", [0]])
def test_a_selector_that_says_something_else_is_refused_with_what_it_said(said: Any) -> None:
    def selector(_count: int, _name: str) -> int:
        return said  # type: ignore[no-any-return]  # as a selector without annotations can

    with pytest.raises(ConfigurationError, match=r"^partition_selector=.*from 0 to 3"):
        select(selector, 4, "x")
    with pytest.raises(ConfigurationError, match=r"^partition_selector="):
        instance(partitioned(partition_selector=selector), "x", interval=SECOND)


def test_a_selector_is_asked_with_the_count_and_the_name_as_it_is() -> None:
    asked: list[tuple[int, str]] = []

    def selector(count: int, name: str) -> int:
        asked.append((count, name))
        return 2

    parent = partitioned(7, partition_selector=selector)

    assert parent.instance_key("a:b%") == "body%p2:a:b%"
    assert asked == [(7, "a:b%")]


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [None, 0, -1, 10_001, 1.0, "4", True, [4]])
def test_a_bad_count_is_refused(count: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^partition_count=.*from 1 to 10000"):
        partitioned(count)


def test_a_count_has_to_be_given() -> None:
    with pytest.raises(ConfigurationError, match=r"^partition_count="):
        task.define(body, {}, size_limit=LIMIT, dynamic=True, partitioned=True)


@pytest.mark.parametrize("count", [1, 10_000])
def test_the_bounds_of_the_count_are_among_those_allowed(count: int) -> None:
    assert len(set(partitioned(count).columns())) == count


@pytest.mark.parametrize("selector", [None, 0, "sha1", []])
def test_a_selector_that_cannot_be_called_is_refused(selector: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^partition_selector="):
        partitioned(partition_selector=selector)


@pytest.mark.parametrize(
    "enabled", [5, True, "01", b"\0", object(), [4], [-1], [1.0], [True], ["1"], [None], [[0]], itertools.count()]
)
def test_a_bad_list_of_enabled_partitions_is_refused(enabled: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^enabled_partitions="):
        partitioned(4, enabled_partitions=enabled)


@pytest.mark.parametrize(
    ("enabled", "numbers"),
    [
        (None, [0, 1, 2, 3]),
        ([], []),
        ([2], [2]),
        ((3, 0), [0, 3]),
        ([1, 1, 0, 1], [0, 1]),
        ({3, 2}, [2, 3]),
        (range(4), [0, 1, 2, 3]),
        ((number for number in (3, 1)), [1, 3]),
    ],
)
def test_enabled_partitions_are_what_is_claimed_each_once_and_in_order(enabled: Any, numbers: list[int]) -> None:
    parent = partitioned(4, enabled_partitions=enabled)

    for _ in range(2):  # What is used up after the first time would claim nothing in the next run.
        assert parent.columns() == [f"body%p{number}" for number in numbers]
    assert parent.all_columns() == [f"body%p{number}" for number in range(4)]


def test_enabled_partitions_can_be_changed_before_the_app_runs_and_are_checked_again() -> None:
    parent = partitioned(4)

    parent.enabled_partitions = [2]
    assert parent.columns() == ["body%p2"]
    parent.enabled_partitions = [4]
    with pytest.raises(ConfigurationError, match=r"^enabled_partitions="):
        parent.columns()


@pytest.mark.parametrize("slip", ["partition_counts", "partitions_count", "enable_partitions", "partition_selecto"])
def test_a_slip_in_an_option_is_refused_and_not_taken_for_an_argument(slip: str) -> None:
    with pytest.raises(ConfigurationError, match="did you mean"):
        partitioned(**{slip: 4})


def test_everything_else_is_as_for_a_dynamic_task() -> None:
    parent = partitioned(name="spread", interval=SECOND, heartbeat=True, user="mira")

    assert (parent.dynamic, parent.is_static, parent.interval, parent.heartbeat) == (True, False, SECOND, True)
    assert parent.extra_args == {"user": "mira"}


# --- columns and keys -------------------------------------------------------------------------------------------------


def test_without_partitions_a_task_has_one_column() -> None:
    assert define(interval=SECOND).columns() == define(dynamic=True).all_columns() == ["body"]


@given(names, names, st.integers(1, 12))
@example("a", "a%p1", 3)
@example("a", "a%25p1", 3)
@example("a%", "a", 3)
@example("a", "a1", 12)
def test_columns_never_meet_those_of_another_task(one: str, other: str, count: int) -> None:
    columns = set(partitioned(count, name=one).all_columns())

    assert len(columns) == count
    assert not columns & {static_key(one), static_key(other)}
    if one != other:
        assert columns.isdisjoint(partitioned(count, name=other).all_columns())
    assert not any(":" in column for column in columns)


@given(names, names, st.integers(1, 12))
def test_the_key_of_an_instance_begins_with_its_column_and_ends_with_its_name(
    task_name: str, name: str, count: int
) -> None:
    parent = partitioned(count, name=task_name)
    stored = instance(parent, name, interval=SECOND)

    assert stored.key == f"{stored.column}:{name}"
    assert stored.column == partition.column(static_key(task_name), select_by_sha1(count, name))
    assert stored.column in parent.all_columns()
    assert load_spec(parent, stored.key, dump_spec(parent, stored)).name == name
    assert placeholder(parent, stored.key).name == name


def test_an_instance_comes_back_from_its_spec_as_it_was() -> None:
    parent = partitioned(4, user="a")
    stored = instance(parent, "x:y", schedule="H H * * *", user="b", heartbeat=True)

    assert properties(load_spec(parent, stored.key, dump_spec(parent, stored))) == properties(stored)


def test_an_instance_has_no_partitions_itself() -> None:
    assert instance(partitioned(4), "x", interval=SECOND).partition_count == 0
