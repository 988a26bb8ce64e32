"""The operations of the contract, each a script or a few commands.

Knows: rows, the names of keys, the scripts. Must not know: leases, triggers, the event loop, how to reach a server.
"""

from __future__ import annotations

import json
import random
import secrets
from typing import TYPE_CHECKING, Final

import redis

from anyscheduler.lease import Change, register
from anyscheduler.logs import get_logger
from anyscheduler.redis.connections import ERRORS, AbortedError, Command, Script, explain
from anyscheduler.redis.keyspace import (
    NOBODYS_TASK,
    decode_key,
    decode_row,
    decode_rows,
    encode_key,
    encode_row,
    encode_token,
    task_of,
)
from anyscheduler.redis.listening import RedisListener
from anyscheduler.redis.mending import Mending
from anyscheduler.repository import Claimed, ClaimRequest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from anyscheduler.lease import Row
    from anyscheduler.redis.connections import Connections
    from anyscheduler.redis.keyspace import Keyspace, Shard

logger = get_logger(__name__)

_CLAIM: Final = Script("claim.lua")
_WRITE: Final = Script("write.lua")


class RedisDatabase:
    """A namespace of a Redis server or cluster; see `threaded.Database`.

    On one server each operation is one script, and so atomic. On a cluster it is atomic for each shard: for the
    ordinary tasks of a namespace together, and for each partition.
    """

    errors: Final = ERRORS

    def __init__(self, connections: Connections, keyspace: Keyspace) -> None:
        self._connections = connections
        self._keyspace = keyspace
        self._known_partitions: set[str] = set()
        self._mending = Mending(connections, keyspace)
        self._away: set[Shard] = set()
        """What could not be claimed from the last time, and was reported."""

    def claim(
        self, requests: Sequence[ClaimRequest], limit: int, now: int | None, token: str, not_after: int | None = None
    ) -> Claimed:
        """See `Repository.claim`."""
        self._mending.advance(request.task for request in requests)
        if self._connections.spread and any(self._shard(request) is not self._keyspace.main for request in requests):
            return self._claim_from_many(requests, limit, now, token, not_after)
        return self._claim(requests, limit, now, token, not_after)

    def _claim(
        self, requests: Sequence[ClaimRequest], limit: int, now: int | None, token: str, not_after: int | None = None
    ) -> Claimed:
        [reply] = self._connections.run([self._claim_command(requests, limit, now, token, not_after)])
        return _claimed(reply)

    def _claim_from_many(
        self, requests: Sequence[ClaimRequest], limit: int, now: int | None, token: str, not_after: int | None
    ) -> Claimed:
        """Looks which shards have something due, and claims there, in random order while the limit lasts.

        The clock of the node with the ordinary tasks counts for all, while that node answers: those of two nodes may
        differ. What is on a node that is away waits, and nothing else.
        """
        groups: dict[Shard, list[ClaimRequest]] = {self._keyspace.main: []}
        for request in requests:
            groups.setdefault(self._shard(request), []).append(request)
        commands = [self._claim_command(group, 0, now, token, not_after) for group in groups.values()]
        replies = dict(zip(groups, self._connections.run(commands, partly=True), strict=True))
        failed = {shard: reply for shard, reply in replies.items() if isinstance(reply, Exception)}
        looks = {shard: _claimed(reply) for shard, reply in replies.items() if shard not in failed}
        clock = next(iter(looks.values())).now  # the first one is that of the ordinary tasks
        instant = clock if now is not None or not_after is None else min(clock, not_after)
        upcoming = {shard: look.next_claimable for shard, look in looks.items() if look.next_claimable is not None}
        due = [shard for shard, at in upcoming.items() if at <= instant]
        random.shuffle(due)
        rows: list[Row] = []
        for shard in due:
            if len(rows) == limit:
                break
            # Whatever happens to this one, what has been claimed from the others must be known.
            del upcoming[shard]
            try:
                claimed = self._claim(groups[shard], limit - len(rows), instant, token)
            except AbortedError:
                raise
            except ERRORS as error:
                failed[shard] = error
            else:
                rows += claimed.rows
                if claimed.next_claimable is not None:
                    upcoming[shard] = claimed.next_claimable
        self._report(groups.keys(), failed)
        return Claimed(rows, min(upcoming.values(), default=None), clock)

    def _report(self, asked: Iterable[Shard], failed: dict[Shard, Exception]) -> None:
        """Says that a part of the cluster is away, once, and that all of it is back."""
        was_complete = not self._away
        self._away.difference_update(asked)
        self._away.update(failed)
        if was_complete and failed:
            logger.warning(
                "some of the nodes of the Redis Cluster cannot be reached; what is stored there waits: %s",
                explain(next(iter(failed.values()))),
            )
        elif not was_complete and not self._away:
            logger.warning("all nodes of the Redis Cluster answer again")

    def _shard(self, request: ClaimRequest) -> Shard:
        return self._keyspace.shard(request.task)

    def _claim_command(
        self, requests: Sequence[ClaimRequest], limit: int, now: int | None, token: str, not_after: int | None = None
    ) -> Command:
        shards: dict[Shard, int] = {}
        numbers: list[int] = []
        due: list[bytes] = []
        for task, _ in requests:
            shard = self._keyspace.shard(task)
            numbers.append(shards.setdefault(shard, len(shards) + 1))
            due.append(shard.due(task))
        ends = [lease if now is None else str(now + lease) for _, lease in requests]
        names = [name for shard in shards or (self._keyspace.main,) for name in (shard.rows, shard.keys)]
        return _CLAIM.command(
            names + due,
            limit,
            encode_token(token),
            "" if now is None else now,
            len(names) // 2,
            json.dumps(ends),
            json.dumps(numbers) if len(shards) > 1 else "",
            "" if not_after is None else not_after,
        )

    def write(self, changes: Sequence[Change], *, announce: bool = False) -> list[bool | None]:
        """See `Repository.write`."""
        if not changes:
            return []
        # On one server a single script writes everything; in a cluster there is one for each shard.
        groups: dict[Shard, list[int]] = {}
        for place, change in enumerate(changes):
            shard = self._keyspace.shard(task_of(change.key)) if self._connections.spread else self._keyspace.main
            groups.setdefault(shard, []).append(place)
        applied: list[bool | None] = [None] * len(changes)
        for shard in self._unlisted(changes, groups.keys()):
            del groups[shard]
        channel = self._keyspace.channel if announce else b""
        commands = [self._write_command([changes[place] for place in own], channel) for own in groups.values()]
        for own, reply in zip(groups.values(), self._connections.run(commands, partly=True), strict=True):
            if not isinstance(reply, Exception):
                for place, flag in zip(own, reply, strict=True):
                    applied[place] = flag == b"1"[0]
        return applied

    def _unlisted(self, changes: Sequence[Change], groups: Collection[Shard]) -> set[Shard]:
        """Lists partitions before they get rows, or a listing could miss them; returns those that it could not list.

        Raises:
            redis.RedisError: It could list none, and there is nothing else to be written.
        """
        inserted = {task_of(change.key) for change in changes if change.expected is None}
        new = {task for task in inserted if self._keyspace.shard(task) is not self._keyspace.main}
        new -= self._known_partitions
        if not new:
            return set()
        try:
            self._connections.run(
                [Command(self._keyspace.shards, ("SADD", self._keyspace.shards, *map(encode_key, new)))]
            )
        except ERRORS as error:
            unlisted = {self._keyspace.shard(task) for task in new}
            if isinstance(error, AbortedError) or not self._connections.spread or unlisted >= set(groups):
                raise
            return unlisted
        self._known_partitions |= new
        return set()

    def _write_command(self, changes: Sequence[Change], channel: bytes) -> Command:
        shards: dict[Shard, int] = {}
        shard_of: list[int] = []
        numbers: dict[str, int] = {}
        due: list[bytes] = []
        listed: list[int | str] = []
        texts: list[str] = []
        for key, expected, row in changes:
            task = task_of(key)
            number = numbers.get(task)
            if number is None:
                shard = self._keyspace.shard(task)
                shard_of.append(shards.setdefault(shard, len(shards) + 1))
                due.append(shard.due(task))
                number = numbers[task] = len(due)
            text = "" if row is None else encode_row(row)
            listed += (number, key, "" if expected is None else encode_token(expected), len(text))
            texts.append(text)
        meta = {"shards": len(shards), "shard_of": shard_of, "changes": listed}
        names = [name for shard in shards for name in (shard.rows, shard.keys, shard.tasks)]
        # Two long arguments cost far less than five short ones for each change.
        return _WRITE.command(names + due, encode_key(json.dumps(meta, ensure_ascii=False)), "".join(texts), channel)

    def read(self, keys: Sequence[str]) -> dict[str, Row]:
        """See `Repository.read`."""
        groups: dict[Shard, list[str]] = {}
        for key in keys:
            groups.setdefault(self._keyspace.shard(task_of(key)), []).append(key)
        replies = self._connections.run([_values(shard, own) for shard, own in groups.items()])
        return {
            key: decode_row(key, text)
            for own, texts in zip(groups.values(), replies, strict=True)
            for key, text in zip(own, texts, strict=True)
            if text is not None
        }

    def page(self, task: str, after: str, limit: int) -> list[Row]:
        """See `Repository.list`."""
        shard = self._keyspace.shard(task)
        rows: list[Row] = []
        if after < task:
            rows += self.read([task]).values()
        # The colon's next character is the semicolon.
        first, end = f"{task}:", b"(" + encode_key(f"{task};")
        begin = b"(" + encode_key(after) if after >= first else b"[" + encode_key(first)
        while len(rows) < limit:
            count = limit - len(rows)
            lookup = Command(shard.keys, ("ZRANGEBYLEX", shard.keys, begin, end, "LIMIT", 0, count))
            [keys] = self._connections.run([lookup])
            if keys:
                rows += self.read([decode_key(key) for key in keys]).values()
            if len(keys) < count:
                break
            # Some may have been listed without being there any more, and a short page would mean the end.
            begin = b"(" + keys[-1]
        return rows

    def tasks(self) -> list[str]:
        """See `Repository.tasks`."""
        ordinary, partitions = self._connections.run(
            [
                Command(self._keyspace.main.tasks, ("SMEMBERS", self._keyspace.main.tasks)),
                Command(self._keyspace.shards, ("SMEMBERS", self._keyspace.shards)),
            ]
        )
        found = [task for task in map(decode_key, partitions) if task != NOBODYS_TASK]
        rows = [self._keyspace.shard(task).rows for task in found]
        filled = self._connections.run([Command(name, ("EXISTS", name)) for name in rows])
        return [decode_key(task) for task in ordinary] + [
            task for task, is_filled in zip(found, filled, strict=True) if is_filled
        ]

    def time(self) -> int:
        """See `Repository.time`."""
        return self._claim((), 0, None, "").now

    def listener(self) -> RedisListener | None:
        """See `threaded.Database.listener`."""
        try:
            return RedisListener(self._connections.connect(), self._keyspace.channel)
        except redis.exceptions.NoPermissionError as error:
            logger.warning("cannot listen for what other processes schedule, will find it by polling: %s", error)
            return None

    def mend(self) -> None:
        """Compares index and rows of all tasks that are listed, and begins to mend the index if they differ."""
        self._mending.begin(self.tasks())

    def try_out(self) -> None:
        """Does everything once, where it is in nobody's way: a right that is missing shows nowhere else in time."""
        task, token = NOBODYS_TASK, "t"
        # Two, because one by itself is read otherwise.
        keys = [f"{task}:{secrets.token_hex(8)}" for _ in range(2)]
        self.write([Change(key, None, register(key, task, 0, token)) for key in keys])
        claim = self._claim_command([ClaimRequest(task, 1)], 100, None, token)
        # In full: EVAL is needed when the server has forgotten its scripts.
        [reply] = self._connections.run([Script.in_full(claim)])
        self._mending.try_out(task)
        self.page(task, "", 1)
        self.tasks()
        self.write([Change(row.key, token, None) for row in _claimed(reply).rows])

    def abort(self, thread: int) -> None:
        """See `threaded.Database.abort`."""
        self._connections.abort(thread)

    def close(self) -> None:
        """See `threaded.Database.close`."""
        self._connections.close()


def _values(shard: Shard, keys: Sequence[str]) -> Command:
    return Command(shard.rows, ("HMGET", shard.rows, *map(encode_key, keys)))


def _claimed(reply: Sequence[bytes]) -> Claimed:
    now, upcoming, *found = reply
    rows: list[Row] = []
    if found:
        keys, lengths, texts = found
        rows = decode_rows(json.loads(decode_key(keys)), json.loads(lengths), texts)
    return Claimed(rows, int(upcoming) if upcoming else None, int(now))
