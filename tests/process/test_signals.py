"""How a program ends: gracefully at the first signal, hard at the second one, at once at the third one."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest

from anyscheduler.lease import HEAD_START
from tests.process.programs import LOOPS, leased, pause_between_signals, stored

if TYPE_CHECKING:
    from pathlib import Path

    from tests.process.programs import Programs

BOTH_SIGNALS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)

FIXTURES = """
@app.fixture()
async def first(app_context):
    tell("first up")
    try:
        yield
    finally:
        await anyio.sleep(0)
        tell("first down")

@app.fixture()
async def second(app_context):
    tell("second up")
    try:
        yield
    finally:
        await anyio.sleep(0)
        tell("second down")
"""

SLOW = f"""
app = Scheduler(sqlite_database="schedule.db")
{FIXTURES}
@app.task(interval=timedelta(milliseconds=100))
async def slow(context):
    tell("begins", micros(context.scheduled_at))
    await anyio.sleep(0.3)
    tell("ends")
"""

# The lease is long, so that a row without a lease afterwards has been released, and not run out.
ENDLESS = f"""
app = Scheduler(sqlite_database="schedule.db")
{FIXTURES}
@app.task(interval=timedelta(milliseconds=100), name="a", lease_duration=timedelta(hours=1))
@app.task(interval=timedelta(milliseconds=100), name="b", lease_duration=timedelta(hours=1))
@app.task(interval=timedelta(hours=1), name="not due yet")
async def endless(context):
    tell("begins", context.task.name, micros(context.scheduled_at))
    try:
        await anyio.sleep(600)
    except anyio.get_cancelled_exc_class():
        tell("cancelled", context.task.name)
        raise

@app.dynamic_task(lease_duration=timedelta(hours=1))
async def once(context):
    await endless(context)

@app.dynamic_task(execution_mode=ExecutionMode.AT_MOST_ONCE)
async def at_most_once(context):
    await endless(context)

@app.fixture()
async def schedules(app_context):
    await app_context.schedule_task(once, "c", execute_at=datetime.now(UTC))
    await app_context.schedule_task(at_most_once, "d", execute_at=datetime.now(UTC))
    yield
"""


@BOTH_SIGNALS
def test_the_first_signal_lets_a_body_finish_settles_it_and_tears_fixtures_down_in_reverse(
    programs: Programs, loop: tuple[str, ...], number: signal.Signals, tmp_path: Path
) -> None:
    program = programs.run(SLOW, *loop)
    program.until("> begins")
    program.send(number)
    assert program.ends() == 0
    at = int(program.told[2].removeprefix("begins "))
    assert program.told == ["first up", "second up", f"begins {at}", "ends", "second down", "first down"]
    assert stored(tmp_path)["slow"] == (at + 100_000, at + 100_000 - HEAD_START)


def test_a_program_with_nothing_to_do_ends_at_once_at_the_first_signal(
    programs: Programs, loop: tuple[str, ...]
) -> None:
    source = """
app = Scheduler(sqlite_database="schedule.db", poll_interval=timedelta(hours=1))

@app.task(schedule="0 0 29 2 *")
async def rare(context):
    tell("begins")
"""
    program = programs.run(source, *loop)
    program.until("rare: .*, next due")
    began = time.monotonic()
    program.send(signal.SIGTERM)
    assert program.ends() == 0
    # The end of the interpreter is in it, and whatever else the machine does; polling would take an hour.
    assert time.monotonic() - began < 2
    assert program.told == []


@BOTH_SIGNALS
def test_the_second_signal_cancels_bodies_releases_what_they_held_and_tears_fixtures_down(
    programs: Programs, loop: tuple[str, ...], number: signal.Signals, tmp_path: Path
) -> None:
    program = programs.run(ENDLESS, *loop)
    program.until("> begins", times=4)
    assert leased(tmp_path) == {"a", "b", "once:c"}
    program.send(number)
    program.until("stopping gracefully")
    program.send(number)
    assert program.ends() == 128 + number
    begun = {line.split()[1]: int(line.split()[2]) for line in program.told if line.startswith("begins")}
    assert {line for line in program.told if line.startswith("cancelled")} == {f"cancelled {name}" for name in "abcd"}
    assert program.told[-2:] == ["second down", "first down"]
    rows = stored(tmp_path)
    assert rows.keys() == {"a", "b", "not due yet", "once:c"}  # the occurrence that runs at most once has begun
    assert leased(tmp_path) == set()
    assert {key: rows[key].due_at for key in ("a", "b", "once:c")} == {
        "a": begun["a"],
        "b": begun["b"],
        "once:c": begun["c"],
    }


def test_what_a_hard_stop_released_runs_at_once_in_the_next_process(programs: Programs, loop: tuple[str, ...]) -> None:
    program = programs.run(ENDLESS, *loop)
    begun = program.until("> begins [ab] ", times=2)
    program.send(signal.SIGINT)
    program.until("stopping gracefully")
    program.send(signal.SIGINT)
    assert program.ends() == 130
    successor = programs.run(ENDLESS, *loop)
    # Both lease their rows for an hour.
    assert set(begun) <= set(successor.until("> begins [ab] ", times=2))


def test_the_exit_code_of_a_hard_stop_names_the_last_signal(programs: Programs) -> None:
    program = programs.run(ENDLESS)
    program.until("> begins", times=4)
    program.send(signal.SIGINT)
    program.until("stopping gracefully")
    program.send(signal.SIGTERM)
    assert program.ends() == 143


def test_the_third_signal_ends_the_process_even_while_a_body_blocks_the_event_loop(
    programs: Programs, loop: tuple[str, ...]
) -> None:
    source = """
app = Scheduler()

@app.task(interval=timedelta(milliseconds=100))
async def blocking(context):
    tell("begins")
    time.sleep(60)
    tell("ends")
"""
    program = programs.run(source, *loop)
    program.until("> begins")
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
        program.send(number)
        pause_between_signals()
    assert program.ends() == 130
    assert program.told == ["begins"]


def test_the_third_signal_ends_the_process_even_while_a_body_refuses_its_cancellation(
    programs: Programs, loop: tuple[str, ...]
) -> None:
    source = """
app = Scheduler()

@app.task(interval=timedelta(milliseconds=100))
async def stubborn(context):
    tell("begins")
    try:
        await anyio.sleep(600)
    finally:
        with anyio.CancelScope(shield=True):
            tell("refuses")
            await anyio.sleep(600)
"""
    program = programs.run(source, *loop)
    program.until("> begins")
    program.send(signal.SIGINT)
    program.until("stopping gracefully")
    program.send(signal.SIGINT)
    program.until("> refuses")
    program.send(signal.SIGINT)
    assert program.ends() == 130


def test_a_signal_while_fixtures_are_set_up_tears_down_what_is_up_and_starts_nothing(
    programs: Programs, loop: tuple[str, ...], tmp_path: Path
) -> None:
    source = f"""
app = Scheduler(sqlite_database="schedule.db")
{FIXTURES}
@app.fixture()
async def slow(app_context):
    try:
        tell("slow begins")
        await anyio.sleep(600)
        yield
    finally:
        tell("slow ends")

@app.fixture()
async def never(app_context):
    tell("never up")
    yield

@app.task(interval=timedelta(milliseconds=1))
async def tick(context):
    tell("tick")
"""
    program = programs.run(source, *loop)
    program.until("> slow begins")
    program.send(signal.SIGTERM)
    assert program.ends() == 143
    assert program.told == ["first up", "second up", "slow begins", "slow ends", "second down", "first down"]
    assert stored(tmp_path) == {}


def test_after_the_shutdown_timeout_a_graceful_stop_becomes_a_hard_one(
    programs: Programs, loop: tuple[str, ...], tmp_path: Path
) -> None:
    program = programs.run(ENDLESS, *loop, "--shutdown-timeout", "0.3")
    program.until("> begins", times=4)
    program.send(signal.SIGTERM)
    assert program.ends() == 143
    assert {line for line in program.told if line.startswith("cancelled")} == {f"cancelled {name}" for name in "abcd"}
    assert program.told[-2:] == ["second down", "first down"]
    assert leased(tmp_path) == set()


def test_the_shutdown_timeout_does_not_matter_to_bodies_that_end_before_it(programs: Programs) -> None:
    program = programs.run(SLOW, "--shutdown-timeout", "60")
    program.until("> begins")
    program.send(signal.SIGTERM)
    assert program.ends() == 0
    assert program.told[-3:] == ["ends", "second down", "first down"]


THREAD = f"""
app = Scheduler(sqlite_database="schedule.db")
{FIXTURES}
@app.task(interval=timedelta(milliseconds=100))
def thread(context):
    tell("begins")
    time.sleep(600)
"""


def test_a_body_that_never_ends_in_its_thread_is_left_leased_and_does_not_keep_a_hard_stop_from_its_end(
    programs: Programs, loop: tuple[str, ...], tmp_path: Path
) -> None:
    program = programs.run(THREAD, *loop)
    program.until("> begins")
    program.send(signal.SIGINT)
    program.until("stopping gracefully")
    program.send(signal.SIGINT)
    assert program.ends() == 130
    assert program.told == ["first up", "second up", "begins", "second down", "first down"]
    # Nobody may start it again while it may still be at work: from outside, the end of the process does not show.
    assert leased(tmp_path) == {"thread"}


def test_a_thread_that_never_ends_does_not_keep_a_program_that_failed_from_its_end(
    programs: Programs, loop: tuple[str, ...]
) -> None:
    source = f"""
{THREAD}
@app.fixture()
async def failing(app_context):
    yield
    raise ValueError("torn")
"""
    program = programs.run(source, *loop, "--shutdown-timeout", "0.1")
    program.until("> begins")
    program.send(signal.SIGINT)
    assert program.ends(troubled=True) == 1
    assert program.matching("ValueError: torn")


@pytest.mark.parametrize("loop_name", LOOPS)
def test_main_obeys_signals_like_the_command(programs: Programs, loop_name: str, tmp_path: Path) -> None:
    arguments = {"asyncio": "", "trio": 'backend="trio"', "uvloop": "use_uvloop=True"}[loop_name]
    source = f"""
{ENDLESS}
if __name__ == "__main__":
    app.main({arguments})
    tell("after main")
"""
    program = programs.script(source)
    program.until("> begins", times=4)
    program.send(signal.SIGTERM)
    program.until("stopping gracefully")
    program.send(signal.SIGTERM)
    assert program.ends() == 143
    assert program.told[-2:] == ["second down", "first down"]
    assert leased(tmp_path) == set()


def test_main_returns_after_a_graceful_stop_and_gives_the_signals_back(programs: Programs) -> None:
    source = f"""
{SLOW}
if __name__ == "__main__":
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    app.main()
    after = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    tell("given back", before == after)
"""
    program = programs.script(source)
    program.until("> begins")
    program.send(signal.SIGINT)
    assert program.ends() == 0
    assert program.told[-3:] == ["second down", "first down", "given back True"]


def test_a_hard_stop_keeps_its_exit_code_without_a_standard_output(programs: Programs) -> None:
    # What Python makes of a file that was closed by whoever started the process, as `>&-` does in a shell.
    source = f"""
{THREAD}
if __name__ == "__main__":
    sys.stdout = None
    app.main()
"""
    program = programs.script(source)
    program.until("> begins")
    program.send(signal.SIGINT)
    program.until("stopping gracefully")
    program.send(signal.SIGINT)
    assert program.ends() == 130
