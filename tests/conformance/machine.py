"""Any sequence of operations, done to a store and to the model of the contract, which have to answer alike.

Two of those who share a place take turns; one of them listens. Some calls are cancelled while they are under way, some
are repeated as if their reply had been lost, and some come much later once more.
"""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.lowlevel
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from anyscheduler.lease import Change, Row
from anyscheduler.repository import Claimed, ClaimRequest
from anyscheduler.threaded import EARLIEST
from tests.conformance.model import Model, announced
from tests.loop.damage import HUGE, SPECS, STATES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from pathlib import Path

    from anyio.from_thread import BlockingPortal

    from anyscheduler.repository import Repository
    from tests.conformance.stores import Store

# Those that begin alike are neighbours by key, with the colon in the middle of what follows.
TASKS: Final = ("a", "A", "a%3Ac", "a-b", "a0", "\u00e9", "e\u0301")
TASK_OF: Final = {
    f"{task}{suffix}": task for task in TASKS for suffix in ("", ":1", ":12", ":2", ":\U0001f600", ":\uffee")
}
KEYS: Final = tuple(TASK_OF)
# What is stored is text, whoever understands it: damaged rows and those of a newer version too.
TEXTS: Final = (
    "",
    '{"v":1}',
    "'\"\\ \u2028 \U0001f600",
    *(text for text in (*SPECS.values(), *STATES.values()) if len(text) < 1_000),
)

_HOUR: Final = 3_600_000_000
_JUMPS: Final = (-365 * 24 * _HOUR, -_HOUR, _HOUR, 365 * 24 * _HOUR)
_PATIENCE: Final = 60
"""Seconds after which something that has to be heard is taken not to be."""

whom = st.integers(0, 1)
tasks = st.sampled_from((*TASKS, "unknown"))
requests = st.lists(st.builds(ClaimRequest, tasks, st.integers(1, 20)), unique_by=lambda it: it.task, max_size=8)
limits = st.integers(1, 7)
# Small numbers, so that equal instants, ends of leases that fall on due times, and clocks that catch up all happen.
instants = st.integers(-25, 20)
wishes = st.dictionaries(
    st.sampled_from(KEYS),
    st.tuples(
        st.sampled_from(("insert", "update", "extend", "delete")),
        st.sampled_from(("current", "current", "current", "old", "wrong", "none")),
        instants | st.sampled_from((-HUGE, HUGE)),
        instants,
        st.sampled_from(TEXTS),
    ),
    max_size=8,
)
checkpoints = st.sampled_from((0, 1, 2, 3, 5, 8, 20, 50))


@dataclass
class Place:
    """A place that a store under test has opened, for all sequences one after the other.

    Attributes:
        portal: Where the event loop is.
        store: What it can do.
        repositories: Each of those who have opened it.
        heard: What the last of them was told by listening.
        steps: How many operations were done so far.
    """

    portal: BlockingPortal
    store: Store
    repositories: list[Repository]
    heard: list[int] = field(default_factory=list)
    steps: int = 0


@asynccontextmanager
async def opened(portal: BlockingPortal, store: Store, directory: Path) -> AsyncIterator[Place]:
    """Opens a new place of a store, twice if that is how it is shared, and listens there."""
    opener = store.new_place(directory)
    async with AsyncExitStack() as stack:
        repositories = [await stack.enter_async_context(opener()) for _ in range(2 if store.is_shared else 1)]
        place = Place(portal, store, repositories)
        async with anyio.create_task_group() as group:
            group.start_soon(repositories[-1].listen, place.heard.append)
            if store.announces:
                await _until_heard(place, [EARLIEST])
            yield place
            group.cancel_scope.cancel()


async def _until_heard(place: Place, expected: list[int]) -> None:
    with anyio.move_on_after(_PATIENCE):
        while len(place.heard) < len(expected):
            await anyio.sleep(0.001)
    assert place.heard == expected


class HeldAgainstTheModel(RuleBasedStateMachine):
    """One sequence of operations."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self._place = place
        self._model = Model()
        self._now = 0
        self._drawn = 0
        self._tokens: dict[str, list[str]] = {key: ["t0"] for key in KEYS}
        """Every fence that a key has ever had."""
        self._sent: list[list[Change]] = []
        self._told: list[int] = [EARLIEST]
        self._begin_anew()

    # What is done.

    @rule(by=whom, wanted=requests, limit=limits)
    def claim(self, by: int, wanted: list[ClaimRequest], limit: int) -> None:
        token = self._new_token()
        claimed = self._ask(by, lambda store: store.claim(wanted, limit, self._now, token))
        assert claimed == Claimed(*self._model.claim(wanted, limit, self._now, token), self._now)

    @precondition(lambda self: self._place.store.has_clock)
    @rule(by=whom, wanted=requests, limit=limits)
    def claim_by_the_clock_of_the_store(self, by: int, wanted: list[ClaimRequest], limit: int) -> None:
        token = self._new_token()
        claimed = self._ask(by, lambda store: store.claim(wanted, limit, None, token, self._now))
        now = min(claimed.now, self._now)
        assert claimed == Claimed(*self._model.claim(wanted, limit, now, token), claimed.now)

    @rule(by=whom, wished=wishes, announce=st.booleans(), repeated=st.booleans())
    def write(self, by: int, wished: dict[str, Any], announce: bool, repeated: bool) -> None:
        changes = self._changes(wished)
        applied = self._write(by, changes, announce=announce)
        if repeated:
            # Its reply was lost. Once more it changes nothing, and applies where the token was to stay.
            kept = [
                applies and change.row is not None and change.row.token == change.expected
                for change, applies in zip(changes, applied, strict=True)
            ]
            before = dict(self._model.rows)
            assert self._write(1 - by, changes, announce=announce) == kept
            assert self._model.rows == before

    @precondition(lambda self: self._sent)
    @rule(by=whom, which=st.integers(0, 1_000))
    def write_once_more_what_was_written_long_ago(self, by: int, which: int) -> None:
        self._write(by, self._sent[which % len(self._sent)], announce=False)

    @rule(by=whom, wished=wishes, announce=st.booleans(), after=checkpoints)
    def cancel_a_write(self, by: int, wished: dict[str, Any], announce: bool, after: int) -> None:
        changes = self._changes(wished)
        self._sent.append(changes)
        outcome = Model(self._model.rows)
        applied = outcome.write(changes)
        # Of a write after which the rows are the same nobody could tell whether it was carried out.
        announce = announce and outcome.rows != self._model.rows
        if self._cut_off(by, lambda store: store.write(changes, announce=announce), after, outcome, applied):
            self._expect_to_hear(announced(changes, applied) if announce else [])

    @rule(by=whom, wanted=requests, limit=limits, after=checkpoints)
    def cancel_a_claim(self, by: int, wanted: list[ClaimRequest], limit: int, after: int) -> None:
        token = self._new_token()
        outcome = Model(self._model.rows)
        claimed = Claimed(*outcome.claim(wanted, limit, self._now, token), self._now)
        self._cut_off(by, lambda store: store.claim(wanted, limit, self._now, token), after, outcome, claimed)

    @rule(by=whom, keys=st.lists(st.sampled_from((*KEYS, "unknown")), max_size=6), after=checkpoints)
    def cancel_a_read(self, by: int, keys: list[str], after: int) -> None:
        read = {key: self._model.rows[key] for key in keys if key in self._model.rows}
        self._cut_off(by, lambda store: store.read(keys), after, self._model, read)

    @rule(by=whom, task=tasks, after=st.sampled_from(("", *KEYS)), limit=limits)
    def page(self, by: int, task: str, after: str, limit: int) -> None:
        assert self._page(by, task, after, limit) == self._model.page(task, after, limit)

    @rule(by=whom, task=tasks, limit=st.integers(1, 3), meanwhile=st.lists(wishes, max_size=4))
    def page_through_all_while_others_write(
        self, by: int, task: str, limit: int, meanwhile: list[dict[str, Any]]
    ) -> None:
        throughout = {key for key, row in self._model.rows.items() if row.task == task}
        listed: list[str] = []
        while page := self._page(by, task, listed[-1] if listed else "", limit):
            listed += [row.key for row in page]
            if meanwhile:
                self._write(1 - by, self._changes(meanwhile.pop()), announce=False)
                throughout &= self._model.rows.keys()
        assert listed == sorted(set(listed))
        assert throughout <= set(listed)

    @rule(by=whom)
    def list_tasks(self, by: int) -> None:
        listed = self._ask(by, lambda store: store.tasks())
        assert len(listed) == len(set(listed))
        assert set(listed) == self._model.tasks()

    @rule(step=st.integers(-30, 30) | st.sampled_from(_JUMPS))
    def set_clock(self, step: int) -> None:
        self._now += step

    @rule()
    def let_leases_end(self) -> None:
        ends = [row.claimable_at for row in self._model.rows.values() if row.claimable_at < HUGE]
        self._now = max(ends, default=self._now)

    @invariant()
    def all_read_what_the_model_holds(self) -> None:
        self._place.steps += 1
        for key, row in self._model.rows.items():
            if self._tokens[key][-1] != row.token:
                self._tokens[key].append(row.token)
        for by, _ in enumerate(self._place.repositories):
            assert self._ask(by, lambda store: store.read(KEYS)) == self._model.rows

    def teardown(self) -> None:
        self._expect_to_hear([])

    # How it is done.

    def _begin_anew(self) -> None:
        def delete(store: Repository) -> Awaitable[Sequence[bool | None]]:
            return store.write([Change(key, row.token, None) for key, row in found.items()])

        found: dict[str, Row] = self._ask(0, lambda store: store.read(KEYS))
        assert all(self._ask(0, delete))
        del self._place.heard[1:]

    def _ask(self, by: int, call: Callable[[Repository], Awaitable[Any]]) -> Any:
        return self._place.portal.call(partial(_awaited, call, self._repository(by)))

    def _repository(self, by: int) -> Repository:
        return self._place.repositories[by % len(self._place.repositories)]

    def _write(self, by: int, changes: list[Change], *, announce: bool) -> list[bool]:
        self._sent.append(changes)
        applied = self._model.write(changes)
        assert self._ask(by, lambda store: store.write(changes, announce=announce)) == applied
        self._expect_to_hear(announced(changes, applied) if announce else [])
        return applied

    def _page(self, by: int, task: str, after: str, limit: int) -> list[Row]:
        return [*self._ask(by, lambda store: store.list(task, after, limit))]

    def _cut_off(
        self, by: int, call: Callable[[Repository], Awaitable[Any]], after: int, outcome: Model, reply: object
    ) -> bool:
        """Cancels a call after so many checkpoints, and returns whether it was carried out."""
        replies = self._place.portal.call(_cancelled, call, self._repository(by), after)
        assert replies in ([], [reply])
        stored = self._ask(1 - by, lambda store: store.read(KEYS))
        done = bool(replies) or stored != self._model.rows
        if done:
            self._model = outcome
        return done

    def _expect_to_hear(self, instants: list[int]) -> None:
        if self._place.store.announces:
            self._told += instants
            self._place.portal.call(_until_heard, self._place, self._told)

    def _changes(self, wished: dict[str, tuple[str, str, int, int, str]]) -> list[Change]:
        changes = []
        for key, (action, guard, due, claimable, text) in wished.items():
            stored = self._model.rows.get(key)
            expected = self._guard(key, stored, guard)
            due_at = due if abs(due) == HUGE else self._now + due
            row: Row | None = Row(key, TASK_OF[key], due_at, self._now + claimable, self._new_token(), text, text[::-1])
            match action:
                case "insert":
                    expected = None
                case "delete":
                    row = None
                    expected = expected or "wrong"
                case "extend" if stored is not None:
                    row = stored._replace(claimable_at=self._now + claimable)
                case _:
                    pass
            changes.append(Change(key, expected, row))
        return changes

    def _guard(self, key: str, stored: Row | None, guard: str) -> str | None:
        match guard:
            case "current":
                return None if stored is None else stored.token
            case "old":
                return self._tokens[key][-2:][0]
            case "wrong":
                return "wrong"
            case _:
                return None

    def _new_token(self) -> str:
        self._drawn += 1
        return f"t{self._drawn}"


async def _awaited(call: Callable[[Repository], Awaitable[Any]], store: Repository) -> Any:
    return await call(store)


async def _cancelled(call: Callable[[Repository], Awaitable[Any]], store: Repository, after: int) -> list[Any]:
    """Returns the reply, if the call was faster than its cancellation."""
    replies: list[Any] = []

    async def run() -> None:
        replies.append(await call(store))

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        for _ in range(after):
            await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
    return replies
