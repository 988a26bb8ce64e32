"""How schedules lie in Redis: the names of the keys, and the text of a row.

Knows: namespaces, tasks and rows. Must not know: connections, scripts, what a script does with the keys.

All that a script touches at once has to lie in one slot of a cluster, so keys share a hash tag. What shares it is a
shard: one for all ordinary tasks of a namespace, and one for each partition of a partitioned task.

    {tag}:rows        hash      key -> row, as below. All that counts is here, the rest can be made anew from it
    {tag}:keys        sorted set of the keys, all with score 0: the order for listing
    {tag}:tasks       set       of the tasks that have rows
    {tag}:due:<task>  sorted set of the keys of one task by claimable_at: the order for claiming
    {namespace}:format, {namespace}:shards, and the channel {namespace}:claimable

A row is a JSON array `[claimable_at,"token",due_at,"state","spec"]`, its head without blanks and with instants of up to
19 digits. Scripts read and replace its head, which is all that a claim changes, and take the rest as it is.
"""

from __future__ import annotations

import json
import re
from json.encoder import encode_basestring_ascii as json_text
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from anyscheduler.lease import Row

if TYPE_CHECKING:
    from collections.abc import Iterable

FORMAT: Final = b"1"
"""What stands under `Keyspace.format`; another text tells that the layout above is not the one that is stored."""

_PARTITION: Final = "%p"
"""What only the task of a partition contains: elsewhere a percent sign is followed by 25 or 3A."""

NOBODYS_TASK: Final = _PARTITION
"""A partition that no task has, for trying things out: its rows are in nobody's way, and it is not listed."""

_PLAIN_TOKEN: Final = re.compile(r"[A-Za-z0-9._-]*")
_HEAD: Final = re.compile(rb'\[(-?[0-9]{1,19}),"')
_BEYOND: Final = 10**19
_NOT_A_ROW: Final = "not a row: "


class Shard:
    """The names of the keys that share one hash tag."""

    def __init__(self, tag: str) -> None:
        self._due_prefix = f"{{{tag}}}:due:"
        self._due: dict[str, bytes] = {}
        self.rows = f"{{{tag}}}:rows".encode()
        self.keys = f"{{{tag}}}:keys".encode()
        self.tasks = f"{{{tag}}}:tasks".encode()

    def due(self, task: str) -> bytes:
        """Returns the name of the order in which the rows of `task` are claimed."""
        name = self._due.get(task)
        if name is None:
            name = self._due[task] = encode_key(self._due_prefix + task)
        return name


class Keyspace:
    """The names of all keys of a namespace.

    A namespace is percent-encoded, so that nothing in it can end the hash tag, act as a pattern, or turn it into the
    beginning of another one: what follows it is always `}` or, for a partition, `:`.
    """

    def __init__(self, namespace: str) -> None:
        self._namespace = quote(namespace, safe="")
        self._partitions: dict[str, Shard] = {}
        self.main = Shard(self._namespace)
        self.format = f"{{{self._namespace}}}:format".encode()
        self.shards = f"{{{self._namespace}}}:shards".encode()
        self.channel = f"{{{self._namespace}}}:claimable".encode()

    def shard(self, task: str) -> Shard:
        """Returns where the rows of `task` are."""
        if _PARTITION not in task:
            return self.main
        found = self._partitions.get(task)
        if found is None:
            found = self._partitions[task] = Shard(f"{self._namespace}:{quote(task, safe='')}")
        return found

    def shards_of(self, tasks: Iterable[str]) -> dict[Shard, list[str]]:
        """Returns `tasks` by where their rows are."""
        found: dict[Shard, list[str]] = {}
        for task in tasks:
            found.setdefault(self.shard(task), []).append(task)
        return found


def encode_key(key: str) -> bytes:
    """Returns a key as Redis has it. One that is damaged, and is no UTF-8, survives being decoded and encoded again."""
    return key.encode("utf-8", "surrogateescape")


def decode_key(key: bytes) -> str:
    """Returns the key that Redis has."""
    return key.decode("utf-8", "surrogateescape")


def task_of(key: str) -> str:
    """Returns the task of the row with this key."""
    return key.partition(":")[0]


def encode_token(token: str) -> str:
    """Returns a token as it stands in a row: a JSON string of letters, digits, `._-`, and escapes for the rest."""
    if _PLAIN_TOKEN.fullmatch(token):
        return f'"{token}"'
    units = memoryview(token.encode("utf-16-le", "surrogatepass")).cast("H")
    return '"' + "".join(chr(unit) if _PLAIN_TOKEN.fullmatch(chr(unit)) else f"\\u{unit:04x}" for unit in units) + '"'


def encode_row(row: Row) -> str:
    """Returns the text of a row. It is ASCII, so its length is the same in characters and in bytes."""
    _, _, due_at, claimable_at, token, spec, state = row
    return f"[{claimable_at},{encode_token(token)},{due_at},{json_text(state)},{json_text(spec)}]"


def decode_rows(keys: list[str], lengths: list[int], texts: bytes) -> list[Row]:
    """Returns the rows of `keys`.

    Args:
        keys: Their keys.
        lengths: The length of the text of each, in bytes.
        texts: The texts of all of them, with a comma between each two.
    """
    try:
        # All at once is twice as fast; it fails if one is damaged.
        decoded = json.loads(b"[%b]" % texts)
        if len(decoded) == len(keys):
            return [_row(key, fields) for key, fields in zip(keys, decoded, strict=True)]
    except (ValueError, TypeError, RecursionError):
        pass
    rows: list[Row] = []
    start = 0
    for key, length in zip(keys, lengths, strict=True):
        rows.append(decode_row(key, texts[start : start + length]))
        start += length + 1
    return rows


def decode_row(key: str, text: bytes) -> Row:
    """Returns a row of whatever stands under its key.

    What is no row at all comes out as one that the rules of leases will set aside: its text becomes the state, and is
    none. Unless a token is in its place, as `encode_token` writes it, it carries the empty one, and scripts take it for
    that as well.
    """
    claimable_at, token, rest = 0, None, text
    # Not by JSON, which says the same in many ways: scripts compare the token as it stands there. See row.lua.
    head = _HEAD.match(text)
    if head:
        claimable_at = int(head[1])
        written, mark, behind = text[head.end() :].partition(b'",')
        if mark:
            token, rest = _decode_token(written), behind
    try:
        return _row(key, [claimable_at, token, *json.loads(b"[" + rest)])
    except (ValueError, TypeError, RecursionError):
        state = _NOT_A_ROW + rest.decode("utf-8", "backslashreplace")
        return Row(key, task_of(key), 0, claimable_at, token or "", "", state)


def _row(key: str, fields: Any) -> Row:
    claimable_at, token, due_at, state, spec = fields
    if not (type(claimable_at) is int is type(due_at) and type(token) is str is type(state) and type(spec) is str):
        raise TypeError("a field has another type")
    if not -_BEYOND < due_at < _BEYOND:
        raise ValueError("it is no instant")
    return Row(key, task_of(key), due_at, claimable_at, token, spec, state)


def _decode_token(text: bytes) -> str | None:
    """Returns the token that is written so, between its quotes; None if `encode_token` would write it differently."""
    try:
        written = f'"{text.decode("ascii")}"'
        token = str(json.loads(written))
    except ValueError:
        return None
    return token if encode_token(token) == written else None
