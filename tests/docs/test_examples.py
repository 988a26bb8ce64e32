"""Every example runs as it stands: it starts, does what it shows, and ends with exit code 0.

So do the programs that README and the tutorial let their reader write.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.canary import leaks

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
PATIENCE = 30.0
"""Seconds after which a program that should have ended is taken to hang."""

ENDING: list[tuple[str, list[str]]] = [
    (
        "middlewares_and_fixtures.py",
        [
            "fixture: the database is open",
            "pay: starts",
            "pay_and_fail: ends",
            "the payments sum up to ",
            "fixture: closing the database",
        ],
    ),
    (
        "dynamic_tasks.py",
        [
            "scheduled: greet:john, arguments {'greeting': 'Hello', 'username': 'John'}",
            "Hello Bill! (greet:bill)",
            "Hi Steve! (greet:steve)",
            "once, and then never again: the once-off task stops the app",
            "nothing is scheduled any more",
        ],
    ),
    (
        "embedding_asyncio.py",
        ["the program does its own work", "remember: milk", "the program stops the scheduler", "has finished"],
    ),
    (
        "embedding_trio.py",
        ["the program does its own work", "tick, in trio's task", "the program stops the scheduler", "has finished"],
    ),
]
STOPPED = ["hello.py", "starlette_lifespan.py", "workers.py"]


class Program:
    """A Python program that is being run in a directory of its own, its output read line by line."""

    def __init__(self, arguments: list[str], directory: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "LOG_LEVEL": "INFO"}
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=directory,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.seen: list[str] = []

    def read_until(self, text: str) -> str:
        """Returns the output up to the line with `text` in it; fails when the program ends before."""
        assert self.process.stdout is not None
        seen = ""
        for line in self.process.stdout:
            self.seen.append(line)
            seen += line
            if text in line:
                return seen
        pytest.fail(f"it ended without saying {text!r}:\n{seen}")

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def end(self) -> tuple[int, str]:
        """Waits for the end, and returns the exit code and the rest of the output."""
        output, _ = self.process.communicate(timeout=PATIENCE)
        self.seen += output.splitlines()
        return self.process.returncode, output


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    programs: list[Program] = []

    def start_program(*arguments: str) -> Program:
        programs.append(Program(list(arguments), tmp_path))
        return programs[-1]

    yield start_program
    for program in programs:
        with program.process:
            program.process.kill()
        assert leaks(program.seen) == []


def test_every_example_is_run_by_a_test_below() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == {name for name, _ in ENDING} | set(STOPPED)


@pytest.mark.parametrize(("name", "lines"), ENDING)
def test_an_example_that_ends_by_itself_shows_what_it_promises(name: str, lines: list[str], start: Any) -> None:
    code, output = start(str(EXAMPLES / name)).end()

    assert code == 0, output
    for line in lines:
        assert line in output
        # Each one after the one before it.
        output = output.partition(line)[2]


@pytest.mark.parametrize(
    "arguments", [[str(EXAMPLES / "hello.py")], ["-m", "anyscheduler", "run", "examples.hello:app"]]
)
def test_the_first_example_runs_its_tasks_and_stops_gracefully(
    arguments: list[str], start: Any, tmp_path: Path
) -> None:
    program = start(*arguments)

    begin = program.read_until("hello: succeeded after")
    program.interrupt()
    code, rest = program.end()

    assert code == 0, rest
    assert re.search(r"running 2 tasks on SQLite file '/.*/hello\.db'", begin)
    assert "hello: hello at" in begin
    assert "stopping gracefully" in rest
    assert "stopped" in rest.splitlines()[-1]
    assert (tmp_path / "hello.db").exists()


def test_the_first_example_goes_on_where_it_stopped(start: Any) -> None:
    first = start(str(EXAMPLES / "hello.py"))
    due = re.search(r"task hello: .*next due (.*)", first.read_until("task slow"))
    first.interrupt()
    code, _ = first.end()

    second = start(str(EXAMPLES / "hello.py"))
    still_due = re.search(r"task hello: .*next due (.*)", second.read_until("task slow"))

    assert code == 0
    assert due is not None
    assert still_due is not None
    assert still_due[1] == due[1]


def test_the_web_app_schedules_from_requests_and_stops_with_the_server(start: Any) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    program = start(str(EXAMPLES / "starlette_lifespan.py"), str(port))
    program.read_until("tick, beside the requests")

    request = urllib.request.Request(f"http://127.0.0.1:{port}/reminders/milk", method="POST")
    with urllib.request.urlopen(request, timeout=PATIENCE) as response:  # noqa: S310  # our own
        assert response.status == 201
    program.read_until("remember: milk")
    program.interrupt()
    code, rest = program.end()

    assert code == 0, rest


@pytest.mark.usefixtures("stores")
@pytest.mark.parametrize("store", ["POSTGRES_URL", "REDIS_URL", None])
def test_the_workers_share_the_store_that_the_environment_names(
    store: str | None, start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for other in {"POSTGRES_URL", "REDIS_URL"} - {store}:
        monkeypatch.delenv(other)
    first, second = (start(str(EXAMPLES / "workers.py")) for _ in range(2))
    first.read_until("task greet: dynamic")
    second.read_until("task greet: dynamic")

    scheduled, told = start(str(EXAMPLES / "workers.py"), "Bill").end()
    first.interrupt()
    first_code, output = first.end()
    if "hello Bill" not in output:
        output = second.read_until("hello Bill")
    second.interrupt()
    second_code, rest = second.end()

    assert (scheduled, first_code, second_code) == (0, 0, 0), told + output + rest
    assert "scheduled: greet Bill" in told
    assert (output + rest).count("hello Bill") == 1


def snippets_with_main() -> list[Any]:
    found: list[Any] = []
    for page in ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))):
        text = (ROOT / page).read_text(encoding="utf-8")
        snippets = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        programs = [snippet for snippet in snippets if re.search(r"^    app\.main\(", snippet, re.MULTILINE)]
        found += [pytest.param(program, id=f"{page}-{number}") for number, program in enumerate(programs, 1)]
    return found


@pytest.mark.usefixtures("stores")
@pytest.mark.parametrize("snippet", snippets_with_main())
def test_a_snippet_with_main_is_a_program_that_runs_until_it_is_interrupted(
    snippet: str, start: Any, tmp_path: Path
) -> None:
    (tmp_path / "program.py").write_text(snippet, encoding="utf-8")
    program = start("program.py")

    begin = program.read_until("next due")
    program.interrupt()
    code, rest = program.end()

    assert code == 0, rest
    assert "running" in begin
    assert "stopping gracefully" in rest


def test_an_app_whose_file_cannot_be_opened_says_so_in_one_line(start: Any, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "from anyscheduler import Scheduler\napp = Scheduler(sqlite_database='missing/hello.db')\n", encoding="utf-8"
    )

    code, output = start("-m", "anyscheduler", "run", "app:app").end()

    assert code == 1
    assert "missing/hello.db' cannot be opened: No such file or directory" in output
    assert len(output.splitlines()) == 1
