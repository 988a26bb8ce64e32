"""A record of the log is one printable line, whatever names, stored values and errors have in them.

What an exception has to say in its own traceback is excepted: that has lines of its own by nature.
"""

from __future__ import annotations

import io
import json
import logging
import os
import re
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from anyscheduler import RepositoryError, Scheduler, runner
from anyscheduler.logs import get_logger
from anyscheduler.task import static_key
from tests.loop.damage import Scene
from tests.loop.scene import START, WatchedRepository, micros, running, shared, virtual, virtual_app

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyscheduler import AppContext, Context

ALLOWED = ("x\u202edegrof", "x\u2066forged\u2069", "x\u200bforged", "x\ue000forged", "x\U000e0041forged")
"""What a name may have in it: none of these ends a line, and some turn around how it is read."""

HOSTILE = (
    *ALLOWED,
    "x\n2026-01-01 00:00:00,000 ERROR forged",
    "x\rforged",
    "x\x1b[2J\x1b[31mforged",
    "x\x9b31mforged",
    "x\x85forged",
    "x\u2028forged",
    "x\bforged",
    "x\tforged",
    "x\x7fforged",
)
ALL = "".join(HOSTILE)

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def everything(caplog: pytest.LogCaptureFixture) -> None:
    """Logs at every level."""
    caplog.set_level(logging.DEBUG, logger="anyscheduler")


def check(caplog: pytest.LogCaptureFixture, *, told: str = "forged") -> None:
    """Checks that something was told, and that it was told in one printable line."""
    messages = [record.getMessage() for record in caplog.records if record.name.startswith("anyscheduler")]
    assert any(told in message for message in messages)
    assert [message for message in messages if not message.isprintable()] == []


@virtual
async def test_names_that_are_stored_are_shown_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene()
    for text in HOSTILE:
        await scene.smuggle(f"hello:{text}")
        await scene.smuggle(f"hello:damaged {text}", spec="{")
        await scene.smuggle(f"hello:fails {text}")
        await scene.smuggle(static_key(text), task=static_key(text), spec="")

    async with running(scene.app):
        await anyio.sleep(130)

    check(caplog)


@pytest.mark.parametrize("field", ["v", "schedule", "timezone", "interval", "execute_at", "failure_mode", "args"])
@virtual
async def test_values_that_are_stored_are_shown_in_one_line(field: str, caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene()
    for number, text in enumerate([*HOSTILE, ALL]):
        spec = {"v": 1, "schedule": "* * * * *"} if field == "timezone" else {"v": 1}
        await scene.smuggle(f"hello:{number}", spec=json.dumps(spec | {field: text}))
        await scene.smuggle(f"hello:{number} as a key", spec=json.dumps(spec | {field: {text: [text]}}))
        await scene.smuggle(f"hello:{number} bare", spec=text, state=text)

    async with running(scene.app):
        await anyio.sleep(6)

    check(caplog, told="set aside")


# `last` stands in it, since a schedule that has changed is counted from there: here not from 1970.
@pytest.mark.parametrize(
    "state", [{"fingerprint": ALL, "last": micros(0)}, {"last": ALL}, {"attempt": ALL}, {ALL: ALL}, ALL]
)
@virtual
async def test_the_state_of_a_static_task_is_shown_in_one_line(state: object, caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene()
    await scene.smuggle("other", task="other", spec="", state=json.dumps(state))

    async with running(scene.app):
        await anyio.sleep(60)

    check(caplog, told="other")


@virtual
async def test_names_that_were_registered_are_shown_in_one_line_whatever_happens_to_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    repository = WatchedRepository()
    app = virtual_app(repository_factory=shared(repository))

    async def body(context: Context) -> None:
        await anyio.sleep(1)
        if context.task.name.startswith("fails"):
            raise OSError(ALL)
        if context.task.name.startswith("loses"):
            repository.failing = {"write"}
            await anyio.sleep(120)
            repository.failing = set()

    dynamic = app.dynamic_task(name=f"dynamic {ALLOWED[0]}", lease_duration=timedelta(seconds=20))(body)
    for text in ALLOWED:
        app.task(interval=timedelta(seconds=10), name=text)(body)
        app.task(interval=timedelta(seconds=10), name=f"fails {text}")(body)

    async with running(app) as app_context:
        for text in ALLOWED:
            await app_context.schedule_task(dynamic, text, execute_at=START + timedelta(seconds=5), heartbeat=True)
            await app_context.schedule_task(dynamic, f"fails {text}", interval=timedelta(seconds=5))
            await app_context.schedule_task(dynamic, f"loses {text}", interval=timedelta(seconds=50), heartbeat=True)
        await anyio.sleep(300)

    check(caplog, told="the lease was lost while it runs")
    check(caplog, told="the execution due at")


@virtual
async def test_what_a_store_says_is_shown_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    class Talkative(WatchedRepository):
        async def _before(self, operation: str) -> None:
            if operation in self.failing:
                raise RepositoryError(f"forged {ALL}")

    repository = Talkative()
    app = virtual_app(repository_factory=shared(repository))

    @app.task(interval=timedelta(seconds=20), heartbeat=True, lease_duration=timedelta(seconds=4))
    async def task(context: Context) -> None:
        repository.failing = {"write", "claim", "read"}
        await anyio.sleep(3)
        repository.failing = set()

    async with running(app):
        await anyio.sleep(100)

    check(caplog, told="the store failed while")


def fail(error: Exception) -> None:
    raise error


def test_the_last_line_of_a_program_that_failed_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    app = Scheduler()

    @app.fixture()
    async def fails(app_context: AppContext) -> AsyncIterator[None]:
        fail(OSError(ALL))
        yield

    assert runner.run(app, backend="asyncio") == runner.FAILURE

    check(caplog, told="failed: OSError")
    assert caplog.records[-1].exc_info is not None


def test_that_a_store_could_not_be_opened_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    @asynccontextmanager
    async def factory() -> AsyncIterator[WatchedRepository]:
        fail(RepositoryError(ALL))
        yield WatchedRepository()

    assert runner.run(Scheduler(repository_factory=factory), backend="asyncio") == runner.FAILURE

    check(caplog, told="failed: RepositoryError")


def test_a_warning_is_one_line() -> None:
    assert runner._one_line(UserWarning(ALL), UserWarning, "file.py", 5).isprintable()


def test_a_name_that_the_terminal_cannot_show_is_escaped_and_its_line_is_not_lost() -> None:
    written = io.BytesIO()
    output = runner._Output(io.TextIOWrapper(written, encoding="ascii"))

    output.emit(logging.makeLogRecord({"msg": "na\u00efve \U0001f600"}))

    assert written.getvalue() == b"na\\xefve \\U0001f600\n"


def test_that_nobody_reads_the_log_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with suppress(BrokenPipeError), open(writer, "w", encoding="utf-8") as stream:  # noqa: PTH123  # it has no path
        output = runner._Output(stream)
        for _ in range(3):
            output.emit(logging.makeLogRecord({"msg": "hello"}))

    assert (
        capsys.readouterr().err == "anyscheduler: the log cannot be written: BrokenPipeError: [Errno 32] Broken pipe\n"
    )


class UnshowableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even that")


def test_every_module_has_its_logger_from_where_lines_are_made_printable() -> None:
    sources = {path: path.read_text(encoding="utf-8") for path in (ROOT / "anyscheduler").rglob("*.py")}

    assert sum("= get_logger(__name__)" in source for source in sources.values()) > 10
    others = [path.name for path, source in sources.items() if re.search(r"getLogger\((?!\"psycopg)", source)]
    assert others == ["logs.py"]


def test_text_that_prints_is_logged_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    get_logger("anyscheduler.tests").warning("%s costs %d €", r"C:\new", 5)

    assert caplog.messages == [r"C:\new costs 5 €"]
    assert caplog.records[0].args == (r"C:\new", 5)


def test_an_error_that_cannot_be_shown_ends_nobody_who_logs_it(caplog: pytest.LogCaptureFixture) -> None:
    get_logger("anyscheduler.tests").warning("it failed: %s", UnshowableError())

    assert caplog.messages == ["it failed: %s (it cannot be shown)"]


def command(directory: Path, target: str) -> str:
    """Returns what `anyscheduler run` says, without the end of its last line, when it refuses a target."""
    done = subprocess.run(
        [sys.executable, "-m", "anyscheduler", "run", target],
        cwd=directory,
        env={"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2
    return done.stderr.decode().removesuffix("\n")


@pytest.mark.parametrize("raised", ["OSError", "ConfigurationError"])
def test_that_a_module_cannot_be_imported_is_one_line(tmp_path: Path, raised: str) -> None:
    (tmp_path / "program.py").write_text(f"from anyscheduler import *\nraise {raised}({ALL!r})\n", encoding="utf-8")

    line = command(tmp_path, "program:app")

    assert "forged" in line
    assert line.isprintable()


def test_that_a_target_is_none_is_one_line(tmp_path: Path) -> None:
    assert command(tmp_path, f"program.py:{ALL}").isprintable()
