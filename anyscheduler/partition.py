"""Partitions of a dynamic task: which instance belongs to which, and under which `Row.task` each is stored.

Knows: names and numbers. Must not know: stores, tasks.

Each partition is claimed by itself, so processes can share them out among groups; and a store that is spread over
several nodes (a Redis Cluster) can keep each on another one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

from anyscheduler import options

PartitionSelector: TypeAlias = Callable[[int, str], int]
"""Returns the partition, from 0 up to below the count (first argument), of the instance of that name (second)."""

PARTITION_OPTIONS: Final = ("partition_count", "partition_selector", "enabled_partitions")

_MOST: Final = 10_000


def select_by_sha1(partition_count: int, name: str) -> int:
    """Returns the partition of an instance: its name's SHA-1 digest, as a fraction of all there are, times the count.

    The same in every process and release. With another count a share of the instances belongs somewhere else.

    Source: pyncette's default selector, so that schedules can move over.
    """
    digest = hashlib.sha1(name.encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest) * partition_count >> 8 * len(digest)


def check_count(value: object) -> int:
    """Returns a number of partitions.

    Raises:
        ConfigurationError: It is no whole number from 1 to 10,000.
    """
    return options.whole_number("partition_count", value, 1, _MOST)


def check_enabled(value: object, partition_count: int) -> tuple[int, ...] | None:
    """Returns the partitions that this process runs, in order, each once; None for all.

    Raises:
        ConfigurationError: It is no collection of numbers of partitions.
    """
    if value is None:
        return None
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        options.refuse("enabled_partitions", value, "a list of numbers of partitions, or None for all")
    chosen = (options.whole_number("enabled_partitions", number, 0, partition_count - 1) for number in value)
    return tuple(sorted(set(chosen)))


def select(selector: PartitionSelector, partition_count: int, name: str) -> int:
    """Returns what a selector says.

    Raises:
        ConfigurationError: It says something that is no partition.
    """
    number: object = selector(partition_count, name)
    if type(number) is not int or not 0 <= number < partition_count:
        options.refuse("partition_selector", number, f"it has to return a whole number from 0 to {partition_count - 1}")
    return number


def column(stored_name: str, number: int) -> str:
    """Returns the `Row.task` of a partition.

    It meets no other task's: in the stored form of a name a percent sign is followed by 25 or 3A only.
    """
    return f"{stored_name}%p{number}"
