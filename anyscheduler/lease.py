r"""The rules of leases: every way in which a stored schedule may change, as functions from values to values.

    free ----claim----> leased ----commit----> free, due next time     (or gone, when the schedule has ended)
      ^                  |  ^ \
      |                  |  |  extend: the same token, a later end
      +-----release------+  |
                            claim, by anybody, once the lease has ended

The token is the fence. It is drawn anew by everything except `extend`, and a store applies a change only while the row
still carries the token that the change was computed from. So whoever holds an old token can change nothing:

- an execution that outlived its lease and was overtaken cannot commit, extend or release;
- a schedule that was replaced, or removed and registered again, refuses the result of the old one. A counter as a
  fence would start again there and let it through;
- `extend` keeps the token, because an extension whose reply never arrived must not cut its own execution off.

Knows: `Row` and integers. Must not know: clocks, randomness, stores, triggers. `now`, instants and tokens are
arguments. Every instant is in microseconds since the epoch, UTC.

Source: the fence is that of Kleppmann, "How to do distributed locking"; the state machine is pyncette's.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any, Final, NamedTuple

from anyscheduler.clock import check_instant

HEAD_START: Final = 10_000
"""How many microseconds before it is due a static schedule can be claimed, so that the answer is there when it is.

Of a short interval it is a tenth at most: whoever has claimed it has a slot less until it is due. Instances have none:
who has removed or replaced one before it was due relies on that. Nor has an occurrence that was given back, or waits
for another attempt.
"""

_SHARE: Final = 10
"""Which part of the time between two occurrences the head start is at most: one of so many."""

_WAITING = ".waiting"
"""How a token ends that was drawn at a release: until `claimable_at` the row then waits, and nobody holds it."""

_TIME: Final = re.compile(r"[0-9a-f]{15}")
"""How a token begins: with the time when it was drawn."""


class Row(NamedTuple):
    """One schedule as it is stored. A named tuple and no dataclass, since one is built per claim and per commit.

    Attributes:
        key: The unique name of the schedule.
        task: The definition it belongs to; claims ask by it.
        due_at: When its next occurrence is due.
        claimable_at: From when on a claim may take it: when it is due, of a static schedule `HEAD_START` earlier; or
            the end of its lease or of its wait for another attempt, if that is later.
        token: The fence.
        spec: JSON of a dynamic schedule (trigger, arguments, overrides); "" for a static one.
        state: JSON that the rules keep for themselves, see `State`; "" when there is nothing to keep.
    """

    key: str
    task: str
    due_at: int
    claimable_at: int
    token: str
    spec: str
    state: str


class Change(NamedTuple):
    """One guarded write.

    Attributes:
        key: The schedule to change.
        expected: The token it must carry for the change to apply; None means that it must not exist.
        row: What it becomes; None deletes it.
    """

    key: str
    expected: str | None
    row: Row | None


class State(NamedTuple):
    """What the rules remember of a schedule between its executions.

    Attributes:
        fingerprint: The trigger of a static schedule as it was when the row was written; "" for a dynamic one.
        last: The last occurrence that was settled, or when the schedule was registered; 0 for a dynamic one.
    """

    fingerprint: str = ""
    last: int = 0


_NOTHING = State()


# json.dumps with separators would build an encoder for each call, and json.loads looks for an encoding and for blanks
# first; both take longer than the work itself, and this is done for every row.
_encode = json.JSONEncoder(separators=(",", ":")).encode
_decode = json.JSONDecoder().raw_decode


def encode_state(state: State) -> str:
    """Returns the state as it is stored; the empty state is the empty string."""
    fields = [f'"fingerprint":{_encode(state.fingerprint)}'] if state.fingerprint else []
    if state.last:
        fields.append(f'"last":{state.last}')
    return f"{{{','.join(fields)}}}" if fields else ""


def decode_state(text: str) -> State:
    """Returns the state that was stored; fields of later versions are ignored.

    Raises:
        ValueError: The text is not such a state: it was damaged.
    """
    if text == "":
        return _NOTHING
    if type(text) is not str:
        raise ValueError("it is not text")
    return _decode_state(text)


# Each is read twice, when its execution starts and when that is settled.
@lru_cache(maxsize=1024)
def _decode_state(text: str) -> State:
    fields = load_object(text)
    state = State(fields.get("fingerprint", ""), fields.get("last", 0))
    if type(state.fingerprint) is not str:
        raise ValueError("the fingerprint in the state is not a string")
    check_instant(state.last)
    return state


def static_state(row: Row) -> State:
    """Returns the state of the row of a static schedule, which always says by which trigger it was written.

    Raises:
        ValueError: It does not: the row was damaged, or is not that of a static schedule.
    """
    state = decode_state(row.state)
    if not state.fingerprint:
        raise ValueError("the state does not say which schedule it is for")
    return state


def load_object(text: str) -> dict[str, Any]:
    """Returns a JSON object that was stored.

    Raises:
        ValueError: The text is none: it was damaged.
    """
    try:
        text = text.strip()
        fields, end = _decode(text)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    except TypeError as error:
        raise ValueError("it is not text") from error
    if end != len(text) or not isinstance(fields, dict):
        raise ValueError("it is not a JSON object")
    return fields


def new_token(now: int, random_bits: int) -> str:
    """Returns a fence token: it sorts by time, and 64 random bits keep those of one microsecond apart."""
    return f"{max(now, 0):015x}{random_bits:016x}"


def later_token(drawn: str, stored: str) -> str:
    """Returns the token that takes the place of the stored one: the one that was drawn, if the time in it is later.

    Otherwise it gets the next microsecond. So the tokens of a schedule increase however long a claim is on its way to
    the store, and whatever the clocks of two processes show. Tokens without a time, which no engine draws, are not
    compared.
    """
    if stored[:15] < drawn[:15] or not _TIME.match(stored) or not _TIME.match(drawn):
        return drawn
    return f"{int(stored[:15], 16) + 1:015x}{drawn[15:]}"


def register(key: str, task: str, due_at: int, token: str, *, spec: str = "", state: str = "") -> Row:
    """Returns the row of a schedule that nobody holds, due at `due_at`."""
    head_start = HEAD_START if decode_state(state).fingerprint else 0
    return Row(key, task, due_at, due_at - head_start, token, spec, state)


def replace_spec(row: Row, spec: str, token: str) -> Row:
    """Returns the row with other arguments; its next run stays where it was."""
    token = later_token(token, row.token)
    return row._replace(spec=spec, token=token + _WAITING if row.token.endswith(_WAITING) else token)


def is_claimable(row: Row, now: int) -> bool:
    """Tells whether a claim at `now` may take the row: its occurrence is (nearly) due, no lease or wait is left."""
    return row.claimable_at <= now


def claim(row: Row, until: int, token: str) -> Row:
    """Returns the row under a lease that ends at `until`."""
    return Row(row.key, row.task, row.due_at, until, later_token(token, row.token), row.spec, row.state)


def extend(row: Row, until: int) -> Row:
    """Returns the row with its lease ending at `until`; the token stays.

    The caller may hold a lease that has ended: while nobody else claimed it, the token still matches and the extension
    applies; once somebody did, the store refuses it.
    """
    return row._replace(claimable_at=until)


def commit(row: Row, next_due: int | None, token: str) -> Change:
    """Returns the change that settles the occurrence: due again at `next_due`, or gone when that is None."""
    if next_due is None:
        return Change(row.key, row.token, None)
    state, claimable_at = row.state, next_due
    if state:
        fingerprint = decode_state(state).fingerprint
        state = encode_state(State(fingerprint, row.due_at if fingerprint else 0))
        if fingerprint:
            claimable_at -= min(HEAD_START, (next_due - row.due_at) // _SHARE)
    token = later_token(token, row.token)
    return Change(row.key, row.token, Row(row.key, row.task, next_due, claimable_at, token, row.spec, state))


def release(row: Row, at: int, token: str) -> Change:
    """Returns the change that gives the occurrence back unsettled, to be claimed from `at` on by anybody.

    The same serves for a damaged row, which is thereby kept out of the way until `at`, otherwise as it is.
    """
    token = later_token(token, row.token) + _WAITING
    return Change(row.key, row.token, row._replace(claimable_at=max(at, row.due_at), token=token))


def give_back(row: Row, written: Change, token: str) -> Change:
    """Returns the change that undoes `written`, the start of an execution whose body never ran.

    Args:
        row: The row as it was claimed.
        written: The change that was applied to it since.
        token: The new fence.
    """
    expected = None if written.row is None else written.row.token
    token = later_token(token, expected or row.token)
    return Change(row.key, expected, row._replace(claimable_at=row.due_at, token=token))


def locked_until(row: Row, now: int) -> int | None:
    """Returns when the lease of the row ends, or None if nobody holds it at `now`.

    1. Claimable now: free, whatever it was before.
    2. Claimable when it is due or before: free, not due yet.
    3. Its token says that it waits for another attempt: free.
    4. Anything else is a lease.
    """
    if is_claimable(row, now) or row.claimable_at <= row.due_at or row.token.endswith(_WAITING):
        return None
    return row.claimable_at
