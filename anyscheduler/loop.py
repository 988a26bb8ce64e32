"""The engine: claim what is due and has a free slot, start it, settle what came of it, sleep until the next instant.

Knows: one frozen plan, a repository, the lease rules. Must not know: decorators, options, signals, SQL.

One poll is one round trip. Nothing is claimed that has no free slot, so nothing waits for one under a burning lease.
Every row is its own exception domain: a damaged one is set aside, and no other row is later for it.
"""

from __future__ import annotations

import logging
import math
import random
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import anyio
import anyio.lowlevel

from anyscheduler import lease
from anyscheduler.alarm import AT_ONCE, Alarm, ClockWatch
from anyscheduler.backoff import Backoff, Outage
from anyscheduler.claiming import Answer, Claimer
from anyscheduler.clock import check_instant, duration_micros
from anyscheduler.context import Context, Execution
from anyscheduler.early import EarlyRows
from anyscheduler.events import EventKind
from anyscheduler.execution import Outcome, execute, is_cancelled
from anyscheduler.holding import Holder
from anyscheduler.logs import get_logger
from anyscheduler.options import counted
from anyscheduler.repository import ClaimRequest
from anyscheduler.settlement import Settlement
from anyscheduler.spec import load_spec
from anyscheduler.starting import Starter

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from anyio.abc import TaskGroup, TaskStatus

    from anyscheduler.events import Reporter
    from anyscheduler.lease import Change, Row
    from anyscheduler.plan import Plan
    from anyscheduler.repository import Claimed, Repository
    from anyscheduler.task import Task
    from anyscheduler.timekeeper import Timekeeper
    from anyscheduler.tokens import TokenSource

    _Started: TypeAlias = tuple[Execution, Callable[[int, str], Change] | None]
    """An execution whose turn is to come, and how to work out what is written before its body starts."""

logger = get_logger(__name__)

_JUMP_GRACE: Final = 5.0
"""For how many seconds at most nothing is claimed after the clock was set ahead."""

_LATE: Final = 1.0
"""How many seconds late the engine may wake up without saying so."""

_AT_A_TIME: Final = 100
"""How many bodies are handed to the event loop before it is their turn."""

_OVERTAKEN: Final = (3_000, 7_000)
"""After how many microseconds, from the one to the other, due rows that another process was taking are looked for."""

_MOST_OVERTAKEN: Final = 10
"""How often that is doubled while they are still not to be had, to 3 to 7 seconds at most."""

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
        now: Timekeeper,
        outage: Outage,
        new_token: TokenSource,
        make_context: Callable[[Execution], Context],
        reporter: Reporter | None,
        look_after: Callable[[Loop], Coroutine[Any, Any, None]],
    ) -> None:
        self._plan = plan
        self._repository = repository
        self._now = now
        self._make_context = make_context
        self._reporter = reporter
        self._look_after = look_after
        self._of_column = {column: task for task in tasks.values() for column in task.columns()}
        # A static one may be claimed so much before it is due, and is to have its lease from then on.
        requests = (
            ClaimRequest(column, task.lease_micros + (lease.HEAD_START if task.is_static else 0))
            for column, task in self._of_column.items()
        )
        self._claimer = Claimer(repository, requests, now=now, new_token=new_token)
        self._ahead: list[Answer | None] = []
        """What came of a claim that was made while the rows of the one before were being started."""
        self._unstarted = 0
        """How many rows are claimed whose turn, or whose time, is still to come."""
        self._alarm = Alarm(now, plan.poll_interval.total_seconds())
        self._backoff = Backoff("claiming what is due", outage)
        self._settlement = Settlement(repository, now=now, new_token=new_token, outage=outage)
        self._holder = Holder(
            self._settlement,
            retry_after=duration_micros(plan.poll_interval),
            now=now,
            new_token=new_token,
            wake_at=self._alarm.set_for,
            reporter=reporter,
        )
        self._hard_stop = anyio.CancelScope()
        self._listening = anyio.CancelScope()
        self._running: dict[Execution, None] = {}
        self._is_full = False
        self._overtaken = 0
        self._stopping = False
        self._clock_watch = ClockWatch(now)
        self._quiet_until = -math.inf
        """Until when nothing is claimed because the clock was set ahead."""

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

    async def pause(self, seconds: float) -> None:
        """Sleeps for so long, or until `stop` is called."""
        self._alarm.set_for(self._now() + int(seconds * 1e6))
        await self._alarm.sleep()

    async def run(self, task_status: TaskStatus[None]) -> None:
        """Runs until `stop` is called and everything has finished, or until it is cancelled.

        Cancelled, it ends the bodies, releases what they held, and gives the store two seconds to take that.
        """
        # The caller's own task only waits. A native `asyncio.Task.cancel()` of it knows no shields, and would otherwise
        # tear a claim in two; here it ends that wait, and the task group passes it on as a cancellation that does.
        with self._hard_stop:
            async with anyio.create_task_group() as service:
                service.start_soon(self._settlement.run)
                service.start_soon(self._listen)
                await service.start(self._serve)
                task_status.started()

    async def _listen(self) -> None:
        try:
            with self._listening:
                async with anyio.create_task_group() as meanwhile:
                    meanwhile.start_soon(self._repository.listen, self._alarm.set_for)
                    meanwhile.start_soon(self._look_after, self)
        finally:
            # However this run ends: from now on a claim that the store does not answer is not waited for much longer.
            self._claimer.hurry(_HARD_STOP_PATIENCE)

    async def _serve(self, *, task_status: TaskStatus[None]) -> None:
        bodies = anyio.create_task_group()
        starter = Starter(bodies, self._run)
        early = EarlyRows(bodies, self._now, lambda rows: self._start_all(rows, starter), self._give_back)
        try:
            try:
                async with bodies:
                    task_status.started()
                    await self._poll_until_stopped(starter, early)
                    self._listening.cancel()
                    self._limit_shutdown()
            finally:
                # There is something if a body has cancelled tasks of asyncio that are not its own.
                for execution, _ in starter.left():
                    self._holder.release(execution.row)
                early.give_back_left()
            self._settlement.close()
            await self._settlement.finished.wait()
        finally:
            self._listening.cancel()
            self._settlement.close(_HARD_STOP_PATIENCE)

    def _limit_shutdown(self) -> None:
        if self._running:
            logger.info("waiting for %s to end", counted(len(self._running), "running execution"))
        elif self._settlement.is_idle and not self._unstarted:
            return
        if self._plan.shutdown_timeout is not None:
            self._hard_stop.deadline = anyio.current_time() + self._plan.shutdown_timeout.total_seconds()

    async def _poll_until_stopped(self, starter: Starter[_Started], early: EarlyRows) -> None:
        try:
            while not self._stopping:
                answer = self._ahead.pop() if self._ahead else await self._ask()
                if answer is not None and await self._use(answer, starter, early):
                    await anyio.lowlevel.checkpoint()
                else:
                    _report_late(await self._alarm.sleep())
        finally:
            for answer in filter(None, self._ahead):
                self._give_back(answer.claimed.rows)

    async def _ask(self) -> Answer | None:
        """Claims what is due; None if nothing may be claimed now, or the store failed. The alarm is then set."""
        if self._is_ending:
            return None
        try:
            # Before anything else: the leases of a process that may claim nothing seem to have ended as well.
            if self._clock_was_set_ahead():
                grace = min(self._plan.poll_interval.total_seconds(), _JUMP_GRACE)
                self._quiet_until = anyio.current_time() + grace
            quiet_for = (self._quiet_until - anyio.current_time()) * 1e6
            if quiet_for >= 1:
                self._alarm.set_for(self._now() + int(quiet_for))
                return None
            free = self._free
            self._is_full = free <= 0
            if self._is_full or self._holder.has_late_results:
                return None
            answer = await self._claimer.claim(min(free, self._plan.batch_size))
        except Exception as error:  # noqa: BLE001  # a store that fails is waited for, whatever it raises
            self._alarm.set_for(self._now() + int(self._backoff.failed(error) * 1e6))
            return None
        if answer is None:
            return None
        self._unstarted += len(answer.claimed.rows)
        self._backoff.succeeded()
        if self._reporter is not None:
            for row in answer.claimed.rows:
                self._reporter.tell(EventKind.CLAIMED, row, at=answer.claimed.now, until=row.claimable_at)
        return answer

    async def _use(self, answer: Answer, starter: Starter[_Started], early: EarlyRows) -> bool:
        """Starts what was claimed. Returns whether more may be claimed at once."""
        claimed = answer.claimed
        due = early.hold(claimed.rows, claimed.now)
        if not answer.is_complete and self._plan.concurrency_limit > self._plan.batch_size:
            async with anyio.create_task_group() as meanwhile:
                return await self._start_all(due, starter, meanwhile)
        if not await self._start_all(due, starter):
            return False
        if not answer.is_complete:
            return True
        if not claimed.rows and self._alarm.rang:
            # Another process was faster. Sleeping as long as that one now does would let it win every time.
            interval = self._plan.poll_interval.total_seconds()
            self._alarm.set_for(claimed.now + int(interval * random.uniform(0.5, 1.0) * 1e6))  # noqa: S311  # not a secret
        self._wake_for_next(claimed)
        return False

    @property
    def _free(self) -> int:
        return self._plan.concurrency_limit - len(self._running) - self._unstarted

    @property
    def _is_ending(self) -> bool:
        return self._stopping or is_cancelled()

    def _wake_for_next(self, claimed: Claimed) -> None:
        if claimed.next_claimable is None:
            return
        if claimed.next_claimable > claimed.now:
            self._overtaken = 0
            self._alarm.set_for(claimed.next_claimable)
            return
        # A due row that was not given: another process is about to take it, or somebody has locked it for longer.
        # Asking again before they are done would only slow them down.
        wait = random.randrange(*_OVERTAKEN) << self._overtaken  # noqa: S311  # not a secret
        self._overtaken = min(self._overtaken + 1, _MOST_OVERTAKEN)
        self._alarm.set_for(claimed.now + wait)

    async def _start_all(
        self, rows: Sequence[Row], starter: Starter[_Started], meanwhile: TaskGroup | None = None
    ) -> bool:
        """Starts what was claimed, in order; releases what is left, and returns False, once the run is to end.

        With `meanwhile` more is expected to be due, and claimed there as soon as a whole batch has free slots: the
        store is then at work at the same time as this process. Smaller ones would cost more than that saves.
        """
        if rows:
            self._overtaken = 0
        # A turn of the event loop takes as long as several executions, so bodies have theirs after many rows were read.
        # Outcomes are written when all have begun.
        with self._settlement.held_back():
            for begin in range(0, len(rows), _AT_A_TIME):
                if self._is_ending:
                    self._give_back(rows[begin:])
                    break
                if meanwhile is not None and self._free >= self._plan.batch_size:
                    meanwhile.start_soon(self._ask_ahead)
                    meanwhile = None
                for row in rows[begin : begin + _AT_A_TIME]:
                    self._start(row, starter)
                handed_over = anyio.current_time()
                await anyio.lowlevel.cancel_shielded_checkpoint()
                _report_late(anyio.current_time() - handed_over)
        return not self._is_ending

    async def _ask_ahead(self) -> None:
        self._ahead.append(await self._ask())

    def _give_back(self, rows: Sequence[Row]) -> None:
        self._unstarted -= len(rows)
        for row in rows:
            self._holder.release(row)
        self._slot_is_free()

    def _slot_is_free(self) -> None:
        if self._is_full:
            self._alarm.set_for(AT_ONCE)

    def _start(self, row: Row, starter: Starter[_Started]) -> None:
        self._unstarted -= 1
        try:
            task = self._task_of(row)
            first = self._holder.first_write(task, row)
        except Exception as error:  # noqa: BLE001  # whatever is wrong with it, it is this row's own affair
            self._holder.set_aside(row, error)
            self._slot_is_free()
            return
        execution = Execution(task, row, self._holder.extend)
        self._running[execution] = None
        # What is written before the body starts is written for all of a batch together, so they have to wait together.
        waits = first is not None or task.heartbeat or not task.is_async
        starter.start((execution, first), row.task, row.key, waits=waits)

    def _task_of(self, row: Row) -> Task:
        check_instant(row.due_at)
        task = self._of_column[row.task]
        if task.is_static and row.key == row.task:
            lease.static_state(row)
            return task
        lease.decode_state(row.state)
        if not task.dynamic:
            raise ValueError(f"it is an instance, and task {task.name!r} is not dynamic any more")
        return load_spec(task, row.key, row.spec)

    async def _run(self, item: _Started) -> None:
        execution, first = item
        try:
            if first is not None and not await self._holder.write_first(execution, first):
                return
            is_told = logger.isEnabledFor(logging.INFO)
            started = self._now() if is_told else 0
            if self._reporter is not None:
                self._reporter.tell(EventKind.STARTED, execution.row)
            outcome = await execute(execution, self._make_context(execution), self._plan.middlewares)
            if self._reporter is not None:
                self._reporter.tell(EventKind.ENDED, execution.row, detail=outcome.name.lower())
            self._holder.settle(execution, outcome)
            if is_told:
                _report(execution, outcome, started, self._now())
        finally:
            del self._running[execution]
            self._slot_is_free()

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
        self._holder.extend_all(self._running)
        return True


def _report_late(seconds: float) -> None:
    if seconds > _LATE:
        logger.warning(
            "woke up %.1f s late: the process was suspended, or a body blocked the event loop "
            "(a body that does not await should be a plain function; it then runs in a thread)",
            seconds,
        )


def _report(execution: Execution, outcome: Outcome, started: int, ended: int) -> None:
    logger.info(
        "%s: %s after %.3f s (started %.3f s after it was due)",
        execution.task,
        outcome.name.lower().replace("_", " "),
        (ended - started) / 1e6,
        (started - execution.row.due_at) / 1e6,
    )
