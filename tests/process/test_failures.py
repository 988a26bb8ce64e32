"""What ends a program with exit code 1, and what the last lines of its log then say."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.process.programs import stored

if TYPE_CHECKING:
    from pathlib import Path

    from tests.process.programs import Programs

FIRST = """
app = Scheduler(sqlite_database="schedule.db")

@app.task(interval=timedelta(milliseconds=50))
async def tick(context):
    tell("tick")

@app.fixture()
async def first(app_context):
    tell("first up")
    try:
        yield
    finally:
        await anyio.sleep(0)
        tell("first down")
"""


def test_a_fixture_that_cannot_be_set_up_ends_the_program_with_its_own_exception(
    programs: Programs, loop: tuple[str, ...], tmp_path: Path
) -> None:
    source = f"""
{FIRST}
@app.fixture()
async def broken(app_context):
    raise ZeroDivisionError("no such server")
    yield

@app.fixture()
async def never(app_context):
    tell("never up")
    yield
"""
    program = programs.run(source, *loop)
    assert program.ends(troubled=True) == 1
    assert program.told == ["first up", "first down"]
    assert program.lines[-1] == "ZeroDivisionError: no such server"
    assert not program.matching("ExceptionGroup")
    assert stored(tmp_path) == {}


def test_a_fixture_that_cannot_be_torn_down_ends_the_program_with_code_1_after_the_others_are_down(
    programs: Programs, loop: tuple[str, ...]
) -> None:
    source = f"""
{FIRST}
@app.fixture()
async def broken(app_context):
    tell("broken up")
    yield
    raise ZeroDivisionError("no disk")

@app.fixture()
async def last(app_context):
    tell("last up")
    try:
        yield
    finally:
        tell("last down")
"""
    program = programs.run(source, *loop)
    program.until("> tick")
    program.send(signal.SIGINT)
    assert program.ends(troubled=True) == 1
    assert [line for line in program.told if line != "tick"] == [
        "first up",
        "broken up",
        "last up",
        "last down",
        "first down",
    ]
    assert program.lines[-1] == "ZeroDivisionError: no disk"
    assert not program.matching("ExceptionGroup")


def test_a_fixture_that_fails_while_a_hard_stop_tears_it_down_ends_the_program_with_code_1(
    programs: Programs, loop: tuple[str, ...]
) -> None:
    source = f"""
{FIRST}
@app.fixture()
async def broken(app_context):
    try:
        yield
    finally:
        raise ZeroDivisionError("no disk")

@app.task(interval=timedelta(milliseconds=50))
async def endless(context):
    tell("endless")
    await anyio.sleep(600)
"""
    program = programs.run(source, *loop)
    program.until("> endless")
    program.send(signal.SIGINT)
    program.until("stopping gracefully")
    program.send(signal.SIGINT)
    assert program.ends(troubled=True) == 1
    assert program.told[-1] == "first down"
    assert program.matching("ZeroDivisionError: no disk")


@pytest.mark.parametrize("spoilt", ["directory", "no database", "no such directory"])
def test_a_store_that_cannot_be_opened_ends_the_program_with_one_line_that_names_it(
    programs: Programs, tmp_path: Path, spoilt: str
) -> None:
    match spoilt:
        case "directory":
            (tmp_path / "schedule.db").mkdir()
        case "no database":
            (tmp_path / "schedule.db").write_text("this is a diary, not a database\n" * 100, encoding="utf-8")
        case _:
            pass
    path = "nowhere/schedule.db" if spoilt == "no such directory" else "schedule.db"
    program = programs.run(FIRST.replace("schedule.db", path))
    assert program.ends(troubled=True) == 1
    (line,) = program.lines
    assert "CRITICAL" in line
    assert f"/{path}' cannot be" in line


def test_a_body_that_raises_system_exit_or_keyboard_interrupt_does_not_end_the_program(
    programs: Programs, loop: tuple[str, ...]
) -> None:
    source = """
app = Scheduler()

@app.task(interval=timedelta(milliseconds=50), failure_mode=FailureMode.COMMIT)
async def leaves(context):
    tell("leaves")
    sys.exit(3)

@app.task(interval=timedelta(milliseconds=50), failure_mode=FailureMode.COMMIT)
async def interrupts(context):
    tell("interrupts")
    raise KeyboardInterrupt
"""
    program = programs.run(source, *loop)
    program.until("> leaves", times=3)
    program.until("> interrupts", times=3)
    program.send(signal.SIGINT)
    assert program.ends(troubled=True) == 0
    assert not program.matching("ERROR|CRITICAL")
