"""Every store against the memory one: whatever is done to both, in whatever order, they answer alike."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from anyscheduler.lease import Change, Row
from anyscheduler.memory import MemoryRepository
from anyscheduler.repository import Claimed, ClaimRequest
from tests.conformance.stores import STORES, Store

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from anyscheduler.repository import Repository

# Those that begin alike are neighbours by key, with the colon in the middle of what follows.
TASKS = ("a", "A", "a%3Ac", "a-b", "a0", "\u00e9", "e\u0301")
TASK_OF = {f"{task}{suffix}": task for task in TASKS for suffix in ("", ":1", ":\U0001f600", ":\uffee")}
KEYS = tuple(TASK_OF)
TEXTS = ("", '{"v":1}', "'\"\\ \u2028 \U0001f600")

requested = st.lists(st.sampled_from((*TASKS, "unknown")), unique=True, max_size=8)
# Small numbers, so that equal instants, ends of leases that fall on due times, and clocks that catch up all happen.
instants = st.integers(-5, 40)
choices = st.dictionaries(
    st.sampled_from(KEYS),
    st.tuples(
        st.sampled_from(("insert", "update", "extend", "delete")),
        st.sampled_from(("current", "current", "current", "old", "wrong", "none")),
        instants,
        st.integers(0, 20),
        st.sampled_from(TEXTS),
    ),
    max_size=8,
)


def expected_claim(
    rows: Sequence[Row], wanted: Sequence[ClaimRequest], limit: int, now: int, token: str
) -> tuple[list[Row], int | None]:
    """The contract of `claim` once more, with nothing in mind but to be evident."""
    eligible = [
        sorted(
            (row for row in rows if row.task == request.task and row.claimable_at <= now),
            key=lambda row: (row.claimable_at, row.key),
        )
        for request in wanted
    ]
    turns = [
        (turn, place, row._replace(claimable_at=now + request.lease, token=token))
        for place, (request, queue) in enumerate(zip(wanted, eligible, strict=True))
        for turn, row in enumerate(queue)
    ]
    claimed = [row for _, _, row in sorted(turns)[:limit]]
    after = {row.key: row for row in rows} | {row.key: row for row in claimed}
    tasks = {request.task for request in wanted}
    return claimed, min((row.claimable_at for row in after.values() if row.task in tasks), default=None)


class HeldAgainstMemory(RuleBasedStateMachine):
    """One sequence of operations, done to the memory store and to the one under test."""

    def __init__(self, portal: BlockingPortal, store: Store) -> None:
        super().__init__()
        self._portal = portal
        self._open = ExitStack()
        directory = Path(self._open.enter_context(tempfile.TemporaryDirectory()))
        self._memory = MemoryRepository()
        self._tested = self._open.enter_context(portal.wrap_async_context_manager(store.new_place(directory)()))
        self._now = 0
        self._drawn = 0
        self._old_tokens: dict[str, list[str]] = {key: ["t0"] for key in KEYS}

    def teardown(self) -> None:
        self._open.close()

    @rule(tasks=requested, leases=st.lists(st.integers(1, 20), min_size=8, max_size=8), limit=st.integers(1, 7))
    def claim(self, tasks: list[str], leases: list[int], limit: int) -> None:
        wanted = [ClaimRequest(task, length) for task, length in zip(tasks, leases, strict=False)]
        token = self._token()
        before = self._memory_rows()
        claimed = self._both(lambda store: store.claim(wanted, limit, self._now, token))
        assert claimed == Claimed(*expected_claim(before, wanted, limit, self._now, token), self._now)

    @rule(chosen=choices, announce=st.booleans())
    def write(self, chosen: dict[str, tuple[str, str, int, int, str]], announce: bool) -> None:
        stored = {row.key: row for row in self._memory_rows()}
        changes = []
        expected = []
        for key, (action, guard, due_at, wait, text) in chosen.items():
            current = stored.get(key)
            token = self._guard(key, current, guard)
            row: Row | None = Row(key, TASK_OF[key], due_at, due_at + wait, self._token(), text, text[::-1])
            match action:
                case "insert":
                    token = None
                case "delete":
                    row = None
                    token = token or "wrong"
                case "extend" if current is not None:
                    row = current._replace(claimable_at=self._now + wait)
                case _:
                    pass
            changes.append(Change(key, token, row))
            expected.append((None if current is None else current.token) == token)
            if current is not None:
                self._old_tokens[key].append(current.token)
        assert self._both(lambda store: store.write(changes, announce=announce)) == expected

    @rule(keys=st.lists(st.sampled_from((*KEYS, "unknown")), max_size=6))
    def read(self, keys: list[str]) -> None:
        self._both(lambda store: store.read(keys))

    @rule(task=st.sampled_from((*TASKS, "unknown")), after=st.sampled_from(("", *KEYS)), limit=st.integers(1, 4))
    def page(self, task: str, after: str, limit: int) -> None:
        page = self._both(lambda store: _as_list(store.list(task, after, limit)))
        keys = sorted(row.key for row in self._memory_rows() if row.task == task and row.key > after)
        assert [row.key for row in page] == keys[:limit]

    @rule()
    def list_tasks(self) -> None:
        tasks = self._both(lambda store: _sorted(store.tasks()))
        assert tasks == sorted({row.task for row in self._memory_rows()})

    @rule(step=st.integers(-30, 30))
    def set_clock(self, step: int) -> None:
        self._now += step

    @precondition(lambda self: self._now < 1_000)
    @rule()
    def let_every_lease_end(self) -> None:
        self._now = max((row.claimable_at for row in self._memory_rows()), default=0)

    @invariant()
    def both_hold_the_same_rows(self) -> None:
        self._both(lambda store: store.read(KEYS))

    def _both(self, call: Callable[[Repository], Awaitable[Any]]) -> Any:
        async def run() -> tuple[Any, Any]:
            return await call(self._memory), await call(self._tested)

        in_memory, tested = self._portal.call(run)
        assert tested == in_memory
        return tested

    def _memory_rows(self) -> list[Row]:
        return list(self._portal.call(self._memory.read, KEYS).values())

    def _guard(self, key: str, current: Row | None, guard: str) -> str | None:
        match guard:
            case "current":
                return None if current is None else current.token
            case "old":
                return self._old_tokens[key][-1]
            case "wrong":
                return "wrong"
            case _:
                return None

    def _token(self) -> str:
        self._drawn += 1
        return f"t{self._drawn}"


async def _as_list(rows: Awaitable[Sequence[Row]]) -> list[Row]:
    return list(await rows)


async def _sorted(names: Awaitable[Sequence[str]]) -> list[str]:
    return sorted(await names)


@pytest.fixture
def portal(anyio_backend: tuple[str, dict[str, Any]]) -> Iterator[BlockingPortal]:
    backend, options = anyio_backend
    with start_blocking_portal(backend, options) as started:
        yield started


@pytest.mark.parametrize("store", [pytest.param(store, id=store.name) for store in STORES])
def test_a_store_answers_like_the_memory_store_whatever_is_done_to_both(portal: BlockingPortal, store: Store) -> None:
    run_state_machine_as_test(
        lambda: HeldAgainstMemory(portal, store),  # type: ignore[arg-type]  # a function is documented to do as well
        settings=settings(max_examples=40, stateful_step_count=40, suppress_health_check=[HealthCheck.too_slow]),
    )
