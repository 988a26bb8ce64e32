"""Schedules coming and going: each is a read, a rule, and one guarded write, repeated when somebody else was faster.

Knows: tasks, the lease rules, a repository. Must not know: the loop.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import anyio

from anyscheduler import lease, options, trigger
from anyscheduler.clock import check_instant, clamp, from_micros
from anyscheduler.errors import AnySchedulerError, ConfigurationError, RepositoryError, TaskLockedError
from anyscheduler.events import EventKind
from anyscheduler.gathering import Gathered
from anyscheduler.lease import Change, Row, State
from anyscheduler.logs import get_logger
from anyscheduler.spec import dump_spec, load_spec, placeholder
from anyscheduler.task import Task, fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from datetime import datetime

    from anyscheduler.events import Reporter
    from anyscheduler.repository import Repository
    from anyscheduler.tokens import TokenSource

logger = get_logger(__name__)

_MOST_NAMED = 20
_ATTEMPTS = 13


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskState:
    """A schedule as it is stored at the moment.

    Attributes:
        task: The task or instance, with its schedule and arguments as they are stored.
        scheduled_at: When its next occurrence is due (or the one that is being executed): aware, in the zone of the
            task, or in UTC if it has none.
        locked_until: When the lease ends: aware, in the same zone; None if nobody executes it.
        locked_by: The fencing token of that lease, which that execution sees as `context.fence`; None as above.
        error: Why the stored row cannot be executed, None if it can. `task` is then a stand-in with a name only.
    """

    task: Task
    scheduled_at: datetime
    locked_until: datetime | None
    locked_by: str | None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListTasksResponse:
    """One page of the instances of a dynamic task.

    Attributes:
        tasks: The instances of this page, ordered by name (by code point), those of a partitioned task by partition
            and then by name.
        continuation_token: What to pass to `list_tasks` for the next page; None when this is the last one.
    """

    tasks: list[TaskState]
    continuation_token: str | None


class _Wanted(NamedTuple):
    """An instance that is to be stored."""

    key: str
    template: Task
    task: Task
    spec: str
    force: bool


class Registry:
    """The schedules in one store, as one app reads and changes them."""

    def __init__(
        self, repository: Repository, now: Callable[[], int], new_token: TokenSource, reporter: Reporter | None = None
    ) -> None:
        self._repository = repository
        self._now = now
        self._token = new_token
        self._reporter = reporter
        self._register_gathered = Gathered(self._register_each, key=lambda wanted: wanted.key)

    async def register(self, template: Task, task: Task, *, force: bool) -> Row:
        """Stores an instance of `template`, and returns its row.

        1. Not there yet: due for the first time.
        2. `force`: replaced as a whole, due for the first time; a running execution's result will be refused.
        3. Being executed: refused.
        4. There with the same trigger: the arguments and options are replaced, the next run stays.
        5. There with another trigger, or damaged: replaced as a whole.

        Raises:
            TaskLockedError: Case 3.
            ConfigurationError: Its schedule has no occurrence left.
            RepositoryError: The store failed, or others changed it or kept it locked for seconds.
        """
        wanted = _Wanted(task.key, template, task, dump_spec(template, task), force)
        for attempt in range(_ATTEMPTS):
            await _pause(attempt)
            result = await self._register_gathered(wanted)
            if isinstance(result, AnySchedulerError):
                raise result
            if result is not None:
                return result
        raise _contended(task.key)

    async def register_all(
        self, template: Task, tasks: Sequence[Task], *, force: bool
    ) -> tuple[int | None, AnySchedulerError | None]:
        """Stores many instances of `template`, each as `register` does.

        Args:
            template: The dynamic task.
            tasks: Its instances, each name once.
            force: See `register`.

        Returns:
            When the first one that was stored is claimable, and why the first one that was refused was; None for none.

        Raises:
            RepositoryError: The store failed; some may be stored.
        """
        pending = [_Wanted(task.key, template, task, dump_spec(template, task), force) for task in tasks]
        stored: list[int] = []
        refusals: list[AnySchedulerError] = []
        for attempt in range(_ATTEMPTS):
            await _pause(attempt)
            results = await self._register_each(pending)
            stored += [result.claimable_at for result in results if isinstance(result, Row)]
            refusals += [result for result in results if isinstance(result, AnySchedulerError)]
            pending = [wanted for wanted, result in zip(pending, results, strict=True) if result is None]
            if not pending:
                break
        else:
            refusals.append(_contended(*(wanted.key for wanted in pending)))
        return min(stored, default=None), refusals[0] if refusals else None

    async def _register_each(self, wanted: Sequence[_Wanted]) -> list[Row | AnySchedulerError | None]:
        """Stores instances with one read and one write; returns for each its row, or why not, or None to try again."""
        stored = await self._repository.read([each.key for each in wanted])
        results: list[Row | AnySchedulerError | None] = []
        changes: dict[str, Change] = {}
        # One token serves for all, since they are compared within one schedule only.
        now, token = self._now(), self._token()
        for each in wanted:
            before = stored.get(each.key)
            try:
                row = self._row_for(each, before, now, token)
            except AnySchedulerError as error:
                results.append(error)
            else:
                if before is not None:
                    row = row._replace(token=lease.later_token(row.token, before.token))
                results.append(row)
                changes[each.key] = Change(each.key, None if before is None else before.token, row)
        applied = await self._write(list(changes.values()), announce=True) if changes else []
        if all(applied):
            return results
        refused = {key for key, applies in zip(changes, applied, strict=True) if not applies}
        return [None if each.key in refused else result for each, result in zip(wanted, results, strict=True)]

    def _row_for(self, wanted: _Wanted, stored: Row | None, now: int, token: str) -> Row:
        if stored is not None and not wanted.force:
            _refuse_locked(wanted.task, stored, now)
            row = _same_trigger(wanted, stored, token)
            if row is not None:
                return row
        return _first_row(wanted, now, token)

    async def unregister(self, key: str) -> None:
        """Removes a schedule, executing or not; one that is not there is removed already."""
        for attempt in range(_ATTEMPTS):
            await _pause(attempt)
            stored = (await self._repository.read([key])).get(key)
            if stored is None or all(await self._write([Change(key, stored.token, None)])):
                return
        raise _contended(key)

    async def state(self, owner: Task, key: str) -> TaskState | None:
        """Returns the stored state of a static task, or of an instance of a dynamic one; None if it is not stored."""
        stored = (await self._repository.read([key])).get(key)
        return None if stored is None else self._state_of(owner, stored)

    async def states(self, template: Task, limit: int, after: str | None) -> ListTasksResponse:
        """Returns up to `limit` instances of a dynamic task behind the key `after`, or the first ones for None."""
        columns = template.all_columns()
        if after is not None:
            reached = after.partition(":")[0]
            if reached not in columns:
                options.refuse("continuation_token", after, f"one that list_tasks returned for {str(template)!r}")
            columns = columns[columns.index(reached) :]
        rows: list[Row] = []
        for column in columns:
            rows += await self._repository.list(column, after or "", limit + 1 - len(rows))
            if len(rows) > limit:
                break
            after = None
        page = rows[:limit]
        return ListTasksResponse(
            tasks=[self._state_of(template, row) for row in page],
            continuation_token=page[-1].key if len(rows) > limit else None,
        )

    async def sync_static(self, tasks: Sequence[Task]) -> dict[str, int]:
        """Brings the static tasks of the code into the store, and returns when each is next due, by name.

        1. Not there yet: due for the first time; one whose schedule has ended is not stored, and logged.
        2. There with the same trigger: left as it is.
        3. There with another trigger: the next run is counted anew from the last one. If it is being executed, by a
           process that runs the code of before, the lease is respected, and the result then refused.
        4. Damaged: left as it is.
        """
        due: dict[str, int] = {}
        if not tasks:
            return due
        pending = {task.key: task for task in tasks}
        for attempt in range(_ATTEMPTS):
            await _pause(attempt)
            stored = await self._repository.read(list(pending))
            changes: list[Change] = []
            now = self._now()  # Read once: tasks of one interval then fall due together, and one claim takes them all.
            for key, task in pending.items():
                row = stored.get(key)
                try:
                    change = self._first_change(task, now) if row is None else self._changed_schedule(task, row)
                except ValueError:
                    continue  # The loop sets it aside and says so, whenever it can be claimed.
                if change is not None:
                    changes.append(change)
                elif row is not None:
                    due[task.name] = row.due_at
            applied = await self._write(changes) if changes else []
            for change, applies in zip(changes, applied, strict=True):
                if applies and change.row is not None:
                    due[pending[change.key].name] = change.row.due_at
            pending = {
                change.key: pending[change.key] for change, applies in zip(changes, applied, strict=True) if not applies
            }
            if not pending:
                return due
        raise _contended(*pending)

    async def restore_static(self, tasks: Sequence[Task]) -> list[int]:
        """Registers static tasks anew that are in the store no more, says so, and returns when they are due."""
        stored = await self._repository.read([task.key for task in tasks])
        now = self._now()
        # Those whose schedule has ended are not stored any more.
        gone = [task for task in tasks if task.key not in stored and _is_due_again(task, now)]
        due = await self.sync_static(gone) if gone else {}
        if due:
            logger.warning("tasks of the app were missing in the store, and are registered anew: %s", _named(due))
        return list(due.values())

    async def report_unknown(self, known: Iterable[str]) -> None:
        """Logs one warning with the tasks that are in the store and not in the code; they are left untouched."""
        unknown = sorted(set(await self._repository.tasks()) - set(known))
        if unknown:
            logger.warning(
                "the store has schedules of tasks that this app does not define; they are left untouched: %s",
                _named(unknown),
            )

    async def _write(self, changes: Sequence[Change], *, announce: bool = False) -> Sequence[bool | None]:
        applied = await self._repository.write(changes, announce=announce)
        if self._reporter is not None:
            for change, applies in zip(changes, applied, strict=True):
                if applies and change.row is None:
                    self._reporter.unscheduled(change.key)
                elif applies and change.row is not None:
                    self._reporter.tell(EventKind.SCHEDULED, change.row)
        return applied

    def _first_change(self, task: Task, now: int) -> Change | None:
        assert task.trigger is not None
        due = trigger.first_due(task.trigger, now)
        if due is None:
            logger.warning("%s: its schedule has ended, it will not run: %s", task, trigger.describe(task.trigger))
            return None
        state = lease.encode_state(State(fingerprint(task.trigger), now))
        return Change(task.key, None, lease.register(task.key, task.column, due, self._token(), state=state))

    def _changed_schedule(self, task: Task, stored: Row) -> Change | None:
        assert task.trigger is not None
        check_instant(stored.due_at)
        state = lease.static_state(stored)
        wanted = fingerprint(task.trigger)
        if state.fingerprint == wanted:
            return None
        due = trigger.next_due(task.trigger, state.last, self._now(), fast_forward=False)
        if due is None:
            logger.warning(
                "%s: its changed schedule has ended, it will not run: %s", task, trigger.describe(task.trigger)
            )
            return Change(stored.key, stored.token, None)
        logger.info("%s: the schedule was changed to %s", task, trigger.describe(task.trigger))
        encoded = lease.encode_state(State(wanted, state.last))
        token = lease.later_token(self._token(), stored.token)
        row = lease.register(stored.key, task.column, due, token, state=encoded)
        until = lease.locked_until(stored, self._now())
        if until is not None:
            row = lease.extend(row, max(row.claimable_at, until))
        return Change(stored.key, stored.token, row)

    def _state_of(self, owner: Task, row: Row) -> TaskState:
        error = None
        task = owner
        try:
            check_instant(row.due_at)
            if owner.is_static:
                lease.static_state(row)
            else:
                lease.decode_state(row.state)
                task = load_spec(owner, row.key, row.spec)
        except Exception as problem:  # noqa: BLE001  # listing shows a damaged row, whatever is wrong with it
            error = str(problem) or type(problem).__name__
            if not owner.is_static:
                task = placeholder(owner, row.key)
        until = lease.locked_until(row, self._now())
        return TaskState(
            task=task,
            scheduled_at=from_micros(clamp(row.due_at), task.zone),
            locked_until=None if until is None else from_micros(clamp(until), task.zone),
            locked_by=None if until is None else row.token,
            error=error,
        )


async def _pause(attempt: int) -> None:
    """Waits before another attempt at a change that others were in the way of; thirteen take about five seconds."""
    if attempt:
        await anyio.sleep(min(1.0, 0.0025 * 2**attempt))


def _contended(*keys: str) -> RepositoryError:
    return RepositoryError(
        "could not be changed, because others did so all the time or have locked it, or its node is away: "
        + _named(keys)
    )


def _is_due_again(task: Task, now: int) -> bool:
    assert task.trigger is not None
    return trigger.first_due(task.trigger, now) is not None


def _named(names: Collection[str]) -> str:
    """Returns names for a log line, not too many."""
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(islice(names, _MOST_NAMED)) + more


def _refuse_locked(task: Task, stored: Row, now: int) -> None:
    until = lease.locked_until(stored, now)
    if until is not None:
        raise TaskLockedError(str(task), from_micros(clamp(until)))


def _same_trigger(wanted: _Wanted, stored: Row, token: str) -> Row | None:
    try:
        before = load_spec(wanted.template, stored.key, stored.spec)
        lease.decode_state(stored.state)
    except Exception:  # noqa: BLE001  # a damaged row is healed by registering it anew
        return None
    return lease.replace_spec(stored, wanted.spec, token) if before.trigger == wanted.task.trigger else None


def _first_row(wanted: _Wanted, now: int, token: str) -> Row:
    task = wanted.task
    assert task.trigger is not None
    due = trigger.first_due(task.trigger, now)
    if due is None:
        raise ConfigurationError(f"task {str(task)!r} is never due again: {trigger.describe(task.trigger)}")
    return lease.register(wanted.key, wanted.key.partition(":")[0], due, token, spec=wanted.spec)
