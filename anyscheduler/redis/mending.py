"""Keeping the index in step with the rows, whatever was done to the keys from outside.

Knows: the keys of a shard, two scripts, how long it may take at a time. Must not know: who claims, and what.

A server that evicts keys, a backup restored in part, or a DEL by hand can take away a part of the index. Claims remove
entries without a row as they meet them. Rows without an entry nobody would meet: so about once a minute the two are
compared by counting, and if they differ all rows are gone through, in small steps in between claims.
"""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Final

from anyscheduler.logs import get_logger
from anyscheduler.redis.connections import Command, Script
from anyscheduler.redis.keyspace import decode_key, encode_key, task_of

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence

    from anyscheduler.redis.connections import Connections
    from anyscheduler.redis.keyspace import Keyspace, Shard

logger = get_logger(__name__)

_CHECK: Final = Script("check.lua")
_MEND: Final = Script("mend.lua")

_INTERVAL_SECONDS: Final = 60.0
_SLICE_SECONDS: Final = 0.1
_ROWS_PER_STEP: Final = 500


class Mending:
    """Compares index and rows of a namespace now and then, and mends the index."""

    def __init__(self, connections: Connections, keyspace: Keyspace) -> None:
        self._connections = connections
        self._keyspace = keyspace
        self._lock = threading.Lock()
        self._steps: Iterator[None] | None = None
        self._check_at = time.monotonic()

    def advance(self, tasks: Iterable[str]) -> None:
        """Does what is to be done now, for a tenth of a second at most; what is left is done in later calls.

        Args:
            tasks: Whose part of the index is checked.

        Raises:
            redis.RedisError: The server failed. The next call begins anew.
        """
        if (self._steps is None and time.monotonic() < self._check_at) or not self._lock.acquire(blocking=False):
            return
        try:
            if self._steps is None:
                self._check_at = time.monotonic() + _INTERVAL_SECONDS
                self._steps = self._check(tuple(tasks))
            give_up_at = time.monotonic() + _SLICE_SECONDS
            steps, self._steps = self._steps, None
            for _ in steps:
                if time.monotonic() > give_up_at:
                    self._steps = steps
                    break
        finally:
            self._lock.release()

    def begin(self, tasks: Iterable[str]) -> None:
        """Checks `tasks` now, whatever was checked before."""
        self._check_at = time.monotonic()
        self.advance(tasks)
        self._check_at = time.monotonic()

    def try_out(self, task: str) -> None:
        """Checks the shard of `task`, and goes through it as if its index was damaged."""
        shard = self._keyspace.shard(task)
        # In the main shard what is in the way of listing the tasks is removed, since they are listed next.
        checks = [self._check_command(shard, [task]), self._check_command(self._keyspace.main, [])]
        self._connections.run(checks)
        for _ in self._mend(shard, [task]):
            pass

    def _check(self, tasks: Sequence[str]) -> Iterator[None]:
        shards = {self._keyspace.main: [], **self._keyspace.shards_of(tasks)}
        partitions = [task for shard, own in shards.items() if shard is not self._keyspace.main for task in own]
        commands = [self._check_command(shard, own) for shard, own in shards.items()]
        if partitions:
            names = (self._keyspace.shards, *map(encode_key, partitions))
            commands.append(Command(self._keyspace.shards, ("SADD", *names)))
        # What is on a node that is away is checked a minute later.
        replies = self._connections.run(commands, partly=True)
        for (shard, own), agrees in zip(shards.items(), replies, strict=False):
            if agrees == 0:
                mended = yield from self._mend(shard, own)
                logger.warning(
                    "the index in Redis did not agree with the rows, as after an eviction or a DEL by somebody else: "
                    "%d of its entries were added, corrected or removed",
                    mended,
                )

    @staticmethod
    def _check_command(shard: Shard, tasks: Sequence[str]) -> Command:
        return _CHECK.command([shard.rows, shard.keys, shard.tasks, *map(shard.due, tasks)], *map(encode_key, tasks))

    def _mend(self, shard: Shard, tasks: Sequence[str]) -> Generator[None, None, int]:
        mended = 0
        # What is in the way of mending is removed, from tasks too that nobody claims here.
        everybodys = {*tasks, *self._listed(shard)}
        self._connections.run([self._check_command(shard, [*everybodys])])
        for names in self._scan("HSCAN", shard.rows):
            mended += self._mend_entries(shard, [(task_of(name), name) for name in names])
            yield
        # Every row has its entry now. What is too much belongs to rows that are gone.
        for names in self._scan("ZSCAN", shard.keys):
            mended += self._mend_entries(shard, [(task_of(name), name) for name in names])
            yield
        for task in everybodys.union(self._listed(shard)):
            for names in self._scan("ZSCAN", shard.due(task)):
                mended += self._mend_entries(shard, [(task, name) for name in names])
                yield
        return mended

    def _listed(self, shard: Shard) -> Iterable[str]:
        [stored] = self._connections.run([Command(shard.tasks, ("SMEMBERS", shard.tasks))])
        return map(decode_key, stored)

    def _scan(self, command: str, name: bytes) -> Iterator[list[str]]:
        cursor = b"0"
        while True:
            scan = Command(name, (command, name, cursor, "COUNT", _ROWS_PER_STEP))
            [(cursor, found)] = self._connections.run([scan])
            yield [decode_key(key) for key in found[::2]]
            if cursor == b"0":
                return

    def _mend_entries(self, shard: Shard, entries: Sequence[tuple[str, str]]) -> int:
        if not entries:
            return 0
        numbers: dict[str, int] = {}
        listed = [item for task, key in entries for item in (numbers.setdefault(task, len(numbers) + 1), key)]
        names = [shard.rows, shard.keys, shard.tasks, *map(shard.due, numbers)]
        [wrong] = self._connections.run([_MEND.command(names, encode_key(json.dumps(listed, ensure_ascii=False)))])
        return int(wrong)
