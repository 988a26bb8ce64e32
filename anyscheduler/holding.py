"""Holding claimed rows: what is written to the store for them, from the claim to the end of the execution.

Knows: executions and their outcomes, the lease rules, the settlement queue. Must not know: polling, the store itself.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, assert_never

import anyio

from anyscheduler import lease, trigger
from anyscheduler.alarm import AT_ONCE, NEVER
from anyscheduler.errors import LeaseLostError
from anyscheduler.events import EventKind
from anyscheduler.execution import Outcome
from anyscheduler.logs import get_logger
from anyscheduler.settlement import Entry, Pending, Settlement
from anyscheduler.task import ExecutionMode, FailureMode, Task, display_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from anyscheduler.context import Execution
    from anyscheduler.events import Reporter
    from anyscheduler.lease import Change, Row
    from anyscheduler.tokens import TokenSource

logger = get_logger(__name__)

_FRESH: Final = 0.8
"""Which part of its lease a body that is about to start has at least, as far as the store can be asked for more."""

_SET_ASIDE: Final = 60_000_000
"""For how many microseconds a damaged row is kept out of the way, and so how often it is reported."""


class Holder:
    """Everything that this process writes for the rows that it holds.

    Args:
        settlement: The queue that the changes go into.
        retry_after: How long an occurrence waits for another attempt under `FailureMode.UNLOCK`, in microseconds.
        now: The time, in microseconds since the epoch.
        new_token: Draws fence tokens.
        wake_at: Called with the instant from which on something that was written is claimable.
        reporter: Is told of what is written; None if nobody wants to know.
    """

    def __init__(
        self,
        settlement: Settlement,
        *,
        retry_after: int,
        now: Callable[[], int],
        new_token: TokenSource,
        wake_at: Callable[[int], None],
        reporter: Reporter | None,
    ) -> None:
        self._settlement = settlement
        self._retry_after = retry_after
        self._now = now
        self._token = new_token
        self._wake_at = wake_at
        self._reporter = reporter
        self._unwritten: dict[_Result, None] = {}
        """What is queued or being written of executions that have ended, and of rows that were not started."""
        self._is_waited_for = False
        """Whether there was a late one when that was last asked."""

    @property
    def has_late_results(self) -> bool:
        """Whether a result is still to be written whose lease has ended.

        A claim at this moment would take that occurrence from it, and with a body that is always longer than its lease
        would do so for ever.
        """
        now = self._now()
        self._is_waited_for = any(result.worth_until() <= now for result in self._unwritten)
        return self._is_waited_for

    def release(self, row: Row, execution: Execution | None = None) -> None:
        """Gives a row back, so that another process can run it now; with the execution, if there is one."""
        self._submit(row, lambda _now, token: lease.release(row, row.due_at, token), execution, announce=True)

    def first_write(self, task: Task, row: Row) -> Callable[[int, str], Change] | None:
        """Returns how to work out what must be in the store before the body may start; None if nothing must.

        1. At most once: the next occurrence.
        2. An instance with a lease duration of its own: that lease; the claim knew only the task's.
        3. A whole lease, if much of it was lost on the way: the reply of the claim was late, or this process was
           suspended. Somebody else may have claimed the row meanwhile, and the store then refuses.
        4. Otherwise the claim is enough.
        """
        now = self._now()
        if task.execution_mode is ExecutionMode.AT_MOST_ONCE:
            change = self._commit(task, row, now, self._token())
            return lambda _now, _token: change
        own = task.parent_task is not None and task.lease_duration != task.parent_task.lease_duration
        if own or row.claimable_at - now < _FRESH * task.lease_micros:
            return partial(_extend, task, row)
        return None

    async def write_first(self, execution: Execution, work_out: Callable[[int, str], Change]) -> bool:
        """Writes before the body starts what `first_write` has returned; returns whether it may start."""
        while True:
            written = await self._written(execution, work_out)
            if written is None:
                logger.warning(
                    "%s: not started, it was replaced, removed or taken over after the claim", execution.task
                )
                return False
            if execution.task.execution_mode is ExecutionMode.AT_MOST_ONCE:
                self._wake_for(written)
                return True
            if written.row is not None:
                execution.row = written.row
            if execution.row.claimable_at > self._now():
                return True
            # The store has answered so late that this lease is over as well. Nobody else may have the row yet.
            work_out = partial(_extend, execution.task, execution.row)

    async def _written(self, execution: Execution, work_out: Callable[[int, str], Change]) -> Change | None:
        """Writes a change and returns it, or None if it did not apply; undone if the execution is cancelled."""
        row = execution.row
        written = anyio.Event()
        applied: Change | None = None
        cancelled = False

        def done(change: Change, result: bool | None) -> None:
            nonlocal applied
            applied = change if result else None
            written.set()
            if result and cancelled:
                self._give_back(row, change)

        self._queue(row, Entry(row.key, work_out, lambda: row.claimable_at, done))
        try:
            await written.wait()
        except BaseException:
            cancelled = True
            if applied is not None:
                self._give_back(row, applied)
            raise
        return applied

    def _give_back(self, row: Row, written: Change) -> None:
        """Undoes the start of an execution whose body never ran.

        What that start has removed is put back unguarded, there is no token left to compare. So it is tried once: were
        it repeated because a reply was lost, somebody else might have executed and removed it between the two.
        """
        worth_until = NEVER if written.row is not None else AT_ONCE

        def work_out(_now: int, token: str) -> Change:
            return lease.give_back(row, written, token)

        def done(_change: Change, applied: bool | None) -> None:
            if applied is None:
                logger.warning("%s: not started, and the store did not take it back", display_name(row.key))

        self._queue(row, Entry(row.key, work_out, lambda: worth_until, done, announce=True))

    async def extend(self, execution: Execution) -> None:
        """Extends the lease of an execution; see `Context.heartbeat`."""
        if execution.task.execution_mode is ExecutionMode.AT_MOST_ONCE:
            return
        if execution.lease_lost:
            raise LeaseLostError(str(execution.task))
        written = anyio.Event()
        applied: bool | None = None

        def done(result: bool | None) -> None:
            nonlocal applied
            applied = result
            written.set()

        self._submit_extension(execution, done)
        await written.wait()
        if not applied:
            raise LeaseLostError(str(execution.task))

    def extend_all(self, executions: Iterable[Execution]) -> None:
        """Extends every lease that is held, without waiting for the result."""
        for execution in executions:
            if execution.task.execution_mode is ExecutionMode.AT_LEAST_ONCE:
                self._submit_extension(execution, lambda _applied: None)

    def _submit_extension(self, execution: Execution, done: Callable[[bool | None], None]) -> None:
        def work_out(now: int, token: str) -> Change:
            return _extend(execution.task, execution.row, now, token)

        def note(change: Change, applied: bool | None) -> None:
            if applied and change.row is not None:
                execution.row = change.row
            # Given up (None) is not lost: nobody may have claimed it since, and a commit will find that out.
            execution.lease_lost = applied is False
            done(applied)

        row = execution.row
        self._queue(row, Entry(row.key, work_out, lambda: execution.row.claimable_at, note))

    def settle(self, execution: Execution, outcome: Outcome) -> None:
        """Queues what the outcome means for the stored schedule.

        1. At most once: everything was written before the body started.
        2. Success, or a failure that counts as one: the next occurrence.
        3. Failure: by the failure mode; NONE leaves the lease to end by itself.
        4. Stopped hard: released, so that another process can run it now; unless the body still runs in a thread.
        5. Lease lost: it is somebody else's.
        """
        task, row = execution.task, execution.row
        if task.execution_mode is ExecutionMode.AT_MOST_ONCE:
            return
        match outcome:
            case Outcome.SUCCEEDED | Outcome.SKIPPED:
                self._submit(row, None, execution)
            case Outcome.FAILED:
                match task.failure_mode:
                    case FailureMode.COMMIT:
                        self._submit(row, None, execution)
                    case FailureMode.UNLOCK:
                        retry_after = self._retry_after
                        self._submit(row, lambda now, token: lease.release(row, now + retry_after, token), execution)
                    case FailureMode.NONE:
                        pass
                    case _:
                        assert_never(task.failure_mode)
            case Outcome.CANCELLED:
                self.release(row, execution)
            case Outcome.ABANDONED:
                logger.warning("%s: its thread cannot be stopped; it stays leased until that runs out", task)
            case Outcome.LEASE_LOST:
                logger.warning("%s: ended after its lease was lost; nothing is recorded", task)
            case _:
                assert_never(outcome)

    def set_aside(self, row: Row, error: Exception) -> None:
        """Keeps a row that cannot be executed out of the way for a minute, otherwise as it is, and says so."""
        self._submit(row, partial(_set_aside, row, error))

    def _submit(
        self,
        row: Row,
        work_out: Callable[[int, str], Change] | None,
        execution: Execution | None = None,
        *,
        announce: bool = False,
    ) -> None:
        result = _Result(self, row, work_out, execution, announce)
        self._unwritten[result] = None
        self._queue(row, result)

    def commit_or_set_aside(self, task: Task, row: Row, now: int, token: str) -> Change:
        """Returns the change to the next occurrence, or the one that keeps the row away if there is no telling."""
        try:
            return self._commit(task, row, now, token)
        except Exception as error:  # noqa: BLE001  # the row's own affair again; here the trigger can have raised
            return _set_aside(row, error, now, token)

    def _commit(self, task: Task, row: Row, now: int, token: str) -> Change:
        assert task.trigger is not None
        due = trigger.next_due(task.trigger, row.due_at, now, fast_forward=task.fast_forward)
        if due is None and not isinstance(task.trigger, trigger.OnceTrigger):
            logger.info("%s: its schedule has ended; this was the last occurrence", task)
        if self._reporter is not None and task.fast_forward:
            first = trigger.next_due(task.trigger, row.due_at, now, fast_forward=False)
            if first is not None and first != due:
                self._reporter.tell(EventKind.SKIPPED, row._replace(due_at=first), until=due)
        return lease.commit(row, due, token)

    def _queue(self, held: Row, entry: Pending) -> None:
        self._settlement.submit(entry if self._reporter is None else _reported(self._reporter, held, entry))

    def result_done(self, result: _Result, change: Change, applied: bool | None) -> None:
        """Takes note of what the store has made of a result."""
        del self._unwritten[result]
        if self._is_waited_for:
            self._wake_at(AT_ONCE)
        if applied:
            self._wake_for(change)
            return
        name = display_name(change.key)
        if applied is None:
            logger.warning("%s: the store could not be reached before the lease ended; it will run again", name)
        else:
            logger.warning("%s: a late result was refused, the lease had ended or the schedule changed", name)

    def _wake_for(self, change: Change) -> None:
        if change.row is not None:
            self._wake_at(change.row.claimable_at)


class _Result:
    """What settles a held row, as a `Pending`; without functions of its own, since each execution makes one.

    Args:
        holder: Works out the next occurrence, and is told what came of it.
        row: What is settled.
        work_out: As in `Pending`; None for the next occurrence.
        execution: What has ended. An extension of its lease may be on its way still; None for a row that was not
            started, whose lease is the claim's.
        announce: As in `Pending`.
    """

    __slots__ = ("_execution", "_holder", "_row", "_work_out", "announce", "key")

    def __init__(
        self,
        holder: Holder,
        row: Row,
        work_out: Callable[[int, str], Change] | None,
        execution: Execution | None,
        announce: bool,
    ) -> None:
        self.key = row.key
        self.announce = announce
        self._holder = holder
        self._row = row
        self._work_out = work_out
        self._execution = execution

    def work_out(self, now: int, token: str) -> Change:
        """See `Pending.work_out`."""
        if self._work_out is not None:
            return self._work_out(now, token)
        assert self._execution is not None
        return self._holder.commit_or_set_aside(self._execution.task, self._row, now, token)

    def worth_until(self) -> int:
        """See `Pending.worth_until`."""
        return (self._row if self._execution is None else self._execution.row).claimable_at

    def done(self, change: Change, applied: bool | None) -> None:
        """See `Pending.done`."""
        self._holder.result_done(self, change, applied)


def _reported(reporter: Reporter, held: Row, entry: Pending) -> Entry:
    """Returns the entry as one that tells when it is written, and what came of that."""

    def work_out(now: int, token: str) -> Change:
        change = entry.work_out(now, token)
        reporter.sent(held, change)
        return change

    def done(change: Change, applied: bool | None) -> None:
        reporter.answered(held, change, applied)
        entry.done(change, applied)

    return Entry(entry.key, work_out, entry.worth_until, done, entry.announce)


def _extend(task: Task, row: Row, now: int, _token: str) -> Change:
    return lease.Change(row.key, row.token, lease.extend(row, now + task.lease_micros))


def _set_aside(row: Row, error: Exception, now: int, token: str) -> Change:
    logger.error("%s: set aside for a minute, the stored row cannot be executed: %s", display_name(row.key), error)
    return lease.release(row, now + _SET_ASIDE, token)
