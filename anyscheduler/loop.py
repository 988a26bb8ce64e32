"""The engine: claim what is due and has a free slot, start it, settle what came of it, sleep until the next instant.

Knows: one frozen plan, a repository, the lease rules. Must not know: decorators, options, signals, SQL.

One poll is one round trip. Nothing is claimed that cannot start, so nothing waits under a burning lease. Every row is
its own exception domain: a damaged one is set aside, and no other row is later for it.
"""

from __future__ import annotations

import logging
from collections import deque
from datetime import timedelta
from typing import TYPE_CHECKING, Final, assert_never

import anyio
import anyio.lowlevel

from anyscheduler import lease, trigger
from anyscheduler.alarm import AT_ONCE, NEVER, Alarm, ClockWatch
from anyscheduler.backoff import Backoff
from anyscheduler.clock import check_instant
from anyscheduler.context import Context, Execution
from anyscheduler.errors import LeaseLostError
from anyscheduler.execution import Outcome, execute, is_cancelled
from anyscheduler.options import counted, in_one_line
from anyscheduler.repository import ClaimRequest
from anyscheduler.settlement import Entry, Settlement
from anyscheduler.task import ExecutionMode, FailureMode, Task, load_spec, static_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyio.abc import TaskGroup, TaskStatus

    from anyscheduler.lease import Change, Row
    from anyscheduler.plan import Plan
    from anyscheduler.repository import Repository
    from anyscheduler.tokens import TokenSource

logger = logging.getLogger(__name__)

_SET_ASIDE: Final = 60_000_000
"""For how many microseconds a damaged row is kept out of the way, and so how often it is reported."""

_JUMP_GRACE: Final = 5_000_000
"""For how many microseconds at most nothing is claimed after the clock was set ahead."""

_HARD_STOP_PATIENCE: Final = 2.0
"""How many seconds a hard stop gives the store to take the releases."""


class Loop:
    """One run of the engine."""

    def __init__(
        self,
        plan: Plan,
        tasks: dict[str, Task],
        repository: Repository,
        *,
        now: Callable[[], int],
        new_token: TokenSource,
        make_context: Callable[[Execution], Context],
    ) -> None:
        self._plan = plan
        self._repository = repository
        self._now = now
        self._token = new_token
        self._make_context = make_context
        self._tasks = tasks
        self._static = {static_key(task.name): task for task in tasks.values() if not task.dynamic}
        self._requests = deque(ClaimRequest(task.name, task.lease_micros) for task in tasks.values())
        self._alarm = Alarm(now, plan.poll_interval.total_seconds())
        self._backoff = Backoff("claiming what is due")
        self._settlement = Settlement(repository, now)
        self._hard_stop = anyio.CancelScope()
        self._running: dict[Execution, None] = {}
        self._is_full = False
        self._stopping = False
        self._retry_micros = plan.poll_interval // timedelta(microseconds=1)
        self._clock_watch = ClockWatch(now)

    @property
    def stopped_hard(self) -> bool:
        """Whether the run ended before its executions did, because `shutdown_timeout` was over."""
        return self._hard_stop.cancelled_caught

    def stop(self) -> None:
        """Ends polling at once; `run` returns when what is running has finished and is settled."""
        self._stopping = True
        self._alarm.set_for(AT_ONCE)

    def wake_at(self, at: int) -> None:
        """Tells that something is claimable from `at` (microseconds since the epoch) on."""
        self._alarm.set_for(at)

    async def run(self, task_status: TaskStatus[None]) -> None:
        """Runs until `stop` is called and everything has finished, or until it is cancelled.

        Cancelled, it ends the bodies, releases what they held, and gives the store two seconds to take that.
        """
        # The caller's own task only waits. A native `asyncio.Task.cancel()` of it knows no shields, and would otherwise
        # tear a claim in two; here it ends that wait, and the task group passes it on as a cancellation that does.
        with self._hard_stop:
            async with anyio.create_task_group() as service:
                service.start_soon(self._settlement.run)
                await service.start(self._serve)
                task_status.started()

    async def _serve(self, *, task_status: TaskStatus[None]) -> None:
        try:
            async with anyio.create_task_group() as bodies:
                task_status.started()
                await self._poll_until_stopped(bodies)
                self._limit_shutdown()
            self._settlement.close()
            await self._settlement.finished.wait()
        finally:
            self._settlement.close(_HARD_STOP_PATIENCE)

    def _limit_shutdown(self) -> None:
        if self._running:
            logger.info("waiting for %s to end", counted(len(self._running), "running execution"))
        elif self._settlement.is_idle:
            return
        if self._plan.shutdown_timeout is not None:
            self._hard_stop.deadline = anyio.current_time() + self._plan.shutdown_timeout.total_seconds()

    async def _poll_until_stopped(self, bodies: TaskGroup) -> None:
        while not self._stopping:
            try:
                if self._clock_was_set_ahead():
                    self._alarm.set_for(self._now() + _JUMP_GRACE)
                elif await self._poll(bodies):
                    await anyio.lowlevel.checkpoint()
                    continue
            except Exception as error:  # noqa: BLE001  # a store that fails is waited for, whatever it raises
                self._alarm.set_for(self._now() + int(self._backoff.failed(error) * 1e6))
            late = await self._alarm.sleep()
            if late > 1:
                logger.warning(
                    "woke up %.1f s late: the process was suspended, or a body blocked the event loop "
                    "(a body that does not await should be a plain function; it then runs in a thread)",
                    late,
                )

    async def _poll(self, bodies: TaskGroup) -> bool:
        """Claims and starts what is due. Returns whether more may be claimed at once."""
        free = self._plan.concurrency_limit - len(self._running)
        self._is_full = free <= 0
        if self._is_full:
            return False
        limit = min(free, self._plan.batch_size)
        now = self._now()
        # Shielded: a claim that was cut off would leave leases that nobody knows of.
        with anyio.CancelScope(shield=True):
            claimed = await self._repository.claim(tuple(self._requests), limit, now, self._token())
        self._backoff.succeeded()
        if self._stopping or is_cancelled():
            for row in claimed.rows:
                self._submit(lease.release(row, row.due_at, self._token()), row)
            return False
        for row in claimed.rows:
            self._start(row, bodies)
        if len(claimed.rows) == limit:
            self._serve_next_first(claimed.rows[-1].task)
            self._is_full = len(self._running) >= self._plan.concurrency_limit
            return not self._is_full
        if claimed.next_claimable is not None:
            # At least a millisecond: a timer may fire a little early, and a store may see a due row that it cannot
            # give, because another process is about to.
            self._alarm.set_for(max(claimed.next_claimable, now + 1000))
        return False

    def _serve_next_first(self, served: str) -> None:
        """Lets the next claim begin with the task behind the one that the limit stopped at."""
        names = [request.task for request in self._requests]
        self._requests.rotate(-(names.index(served) + 1))

    def _start(self, row: Row, bodies: TaskGroup) -> None:
        try:
            task = self._task_of(row)
            first = self._first_write(task, row)
        except Exception as error:  # noqa: BLE001  # whatever is wrong with it, it is this row's own affair
            self._set_aside(row, error)
            return
        execution = Execution(task, row, self._extend)
        self._running[execution] = None
        bodies.start_soon(self._run, execution, first)

    def _task_of(self, row: Row) -> Task:
        check_instant(row.due_at)
        task = self._static.get(row.key)
        if task is not None:
            lease.static_state(row)
            return task
        lease.decode_state(row.state)
        template = self._tasks[row.task]
        if not template.dynamic:
            raise ValueError(f"it is an instance, and task {template.name!r} is not dynamic any more")
        return load_spec(template, row.key, row.spec)

    def _first_write(self, task: Task, row: Row) -> Change | None:
        """Returns what must be in the store before the body may start.

        1. At most once: the next occurrence.
        2. An instance with a lease duration of its own: that lease; the claim knew only the task's.
        3. Otherwise the claim is enough.
        """
        if task.execution_mode is ExecutionMode.AT_MOST_ONCE:
            return self._commit(task, row)
        if task.parent_task is not None and task.lease_duration != task.parent_task.lease_duration:
            until = self._now() + task.lease_micros
            return lease.Change(row.key, row.token, lease.extend(row, until))
        return None

    async def _run(self, execution: Execution, first: Change | None) -> None:
        try:
            if first is not None and not await self._write_first(execution, first):
                return
            started = self._now()
            outcome = await execute(execution, self._make_context(execution), self._plan.middlewares)
            self._settle(execution, outcome)
            if logger.isEnabledFor(logging.INFO):
                self._report(execution, outcome, started)
        finally:
            del self._running[execution]
            if self._is_full:
                self._alarm.set_for(AT_ONCE)
        try:
            await anyio.lowlevel.checkpoint()
        except anyio.get_cancelled_exc_class():
            # Without this a body that cancels its own asyncio task as the last thing it does would leave that to take
            # the task group down, and the app with it.
            if is_cancelled():
                raise

    async def _write_first(self, execution: Execution, change: Change) -> bool:
        """Writes `change` before the body starts; returns whether it may."""
        row = execution.row
        written = anyio.Event()
        applied: bool | None = None
        cancelled = False

        def done(result: bool | None) -> None:
            nonlocal applied
            applied = result
            written.set()
            if result and cancelled:
                self._settlement.submit(Entry(lease.give_back(row, change, self._token()), NEVER, _ignore))

        self._settlement.submit(Entry(change, row.claimable_at, done))
        try:
            await written.wait()
        except BaseException:
            cancelled = True
            if applied:
                done(applied)
            raise
        if not applied:
            logger.warning("%s: not started, it was replaced, removed or taken over after the claim", execution.task)
            return False
        if execution.task.execution_mode is ExecutionMode.AT_MOST_ONCE:
            self._wake_for(change)
        elif change.row is not None:
            execution.row = change.row
        return True

    async def _extend(self, execution: Execution) -> None:
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

    def _submit_extension(self, execution: Execution, done: Callable[[bool | None], None]) -> None:
        extended = lease.extend(execution.row, self._now() + execution.task.lease_micros)

        def note(applied: bool | None) -> None:
            if applied:
                execution.row = extended
            # Given up (None) is not lost: nobody may have claimed it since, and a commit will find that out.
            execution.lease_lost = applied is False
            done(applied)

        change = lease.Change(extended.key, extended.token, extended)
        self._settlement.submit(Entry(change, execution.row.claimable_at, note))

    def _settle(self, execution: Execution, outcome: Outcome) -> None:
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
                self._submit_commit(task, row)
            case Outcome.FAILED:
                match task.failure_mode:
                    case FailureMode.COMMIT:
                        self._submit_commit(task, row)
                    case FailureMode.UNLOCK:
                        self._submit(lease.release(row, self._now() + self._retry_micros, self._token()), row)
                    case FailureMode.NONE:
                        pass
                    case _:
                        assert_never(task.failure_mode)
            case Outcome.CANCELLED:
                self._submit(lease.release(row, row.due_at, self._token()), row)
            case Outcome.ABANDONED:
                logger.warning("%s: its thread cannot be stopped; it stays leased until that runs out", task)
            case Outcome.LEASE_LOST:
                logger.warning("%s: ended after its lease was lost; nothing is recorded", task)
            case _:
                assert_never(outcome)

    def _submit_commit(self, task: Task, row: Row) -> None:
        try:
            change = self._commit(task, row)
        except Exception as error:  # noqa: BLE001  # its own affair again; here the trigger can have raised
            self._set_aside(row, error)
            return
        self._submit(change, row)

    def _commit(self, task: Task, row: Row) -> Change:
        assert task.trigger is not None
        due = trigger.next_due(task.trigger, row.due_at, self._now(), fast_forward=task.fast_forward)
        if due is None and task.execute_at is None:
            logger.info("%s: its schedule has ended; this was the last occurrence", task)
        return lease.commit(row, due, self._token())

    def _set_aside(self, row: Row, error: Exception) -> None:
        logger.error("%s: set aside for a minute, the stored row cannot be executed: %s", in_one_line(row.key), error)
        self._submit(lease.release(row, self._now() + _SET_ASIDE, self._token()), row)

    def _submit(self, change: Change, held: Row) -> None:
        def done(applied: bool | None) -> None:
            if applied:
                self._wake_for(change)
                return
            name = in_one_line(held.key)
            if applied is None:
                logger.warning("%s: the store could not be reached before the lease ended; it will run again", name)
            else:
                logger.warning("%s: a late result was refused, the lease had ended or the schedule changed", name)

        self._settlement.submit(Entry(change, held.claimable_at, done))

    def _wake_for(self, change: Change) -> None:
        if change.row is not None:
            self._alarm.set_for(change.row.claimable_at)

    def _clock_was_set_ahead(self) -> bool:
        """Notices a wall clock that was set; extends what runs here if it was set ahead, and then returns True.

        Set ahead, every lease seems to have ended. So each process extends its own before it claims anything, and then
        waits, for one poll interval and five seconds at most, so that the others on this machine can do the same.
        """
        jump = self._clock_watch.jump()
        if not jump:
            return False
        logger.warning("the clock was set %s by %.1f s", "ahead" if jump > 0 else "back", abs(jump))
        if jump < 0:
            return False
        for execution in self._running:
            if execution.task.execution_mode is ExecutionMode.AT_LEAST_ONCE:
                self._submit_extension(execution, _ignore)
        return True

    def _report(self, execution: Execution, outcome: Outcome, started: int) -> None:
        due = execution.row.due_at
        logger.info(
            "%s: %s after %.3f s (started %.3f s after it was due)",
            execution.task,
            outcome.name.lower().replace("_", " "),
            (self._now() - started) / 1e6,
            (started - due) / 1e6,
        )


def _ignore(_applied: bool | None) -> None:
    pass
