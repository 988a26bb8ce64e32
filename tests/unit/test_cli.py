"""The command line: what it refuses, with which exit code and in which words."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import anyscheduler
from anyscheduler.cli import main

_REPOSITORY = Path(anyscheduler.__file__).parents[1]

APP = """
from datetime import timedelta
from anyscheduler import Scheduler
app = Scheduler()
number = 5
def factory():
    return app
"""


def run(directory: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the command in a process of its own: it configures logging and imports what it is told to."""
    return subprocess.run(
        [sys.executable, "-m", "anyscheduler", *arguments],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(_REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("target", "source", "cause"),
    [
        pytest.param("program", APP, "'program' is not of the form module:app", id="no colon"),
        pytest.param("program:", APP, "'program:' is not of the form module:app", id="no app"),
        pytest.param(":app", APP, "':app' is not of the form module:app", id="no module"),
        pytest.param("", APP, "'' is not of the form module:app", id="empty"),
        pytest.param("program.py:app", APP, "program.py", id="a file in place of a module"),
        pytest.param("./program.py:app", APP, "'./program.py:app' is not of the form module:app", id="a path"),
        pytest.param("/srv/program:app", APP, "'/srv/program:app' is not of the form", id="an absolute path"),
        pytest.param("..program:app", APP, "'..program:app' is not of the form", id="a relative module"),
        pytest.param("program:app:app", APP, "app:app", id="two colons"),
        pytest.param("absent:app", APP, "No module named 'absent'", id="no such module"),
        pytest.param("absent.part:app", APP, "No module named 'absent'", id="no such package"),
        pytest.param("program:nothing", APP, "module 'program' has no 'nothing'", id="no such attribute"),
        pytest.param("program:number", APP, "program:number is of type int, and not a Scheduler", id="an int"),
        pytest.param("program:factory", APP, "program:factory is of type function, and not", id="a factory"),
        pytest.param("program:Scheduler", APP, "is of type type, and not a Scheduler", id="the class itself"),
        pytest.param("program:app", "import absent_library", "No module named 'absent_library'", id="import inside"),
        pytest.param("program:app", "1 / 0", "ZeroDivisionError: division by zero", id="exception"),
        pytest.param("program:app", "def", "SyntaxError: invalid syntax", id="syntax error"),
        pytest.param("program:app", "raise SystemExit('go away')", "SystemExit: go away", id="SystemExit"),
        pytest.param("program:app", "import sys; sys.exit(0)", "SystemExit: 0", id="exit code 0"),
        pytest.param("program:app", "raise KeyboardInterrupt", "KeyboardInterrupt", id="KeyboardInterrupt"),
        pytest.param("program:app", "raise ValueError('two\\nlines')", "ValueError: two", id="two lines"),
        pytest.param(
            "program:app",
            "from anyscheduler import Scheduler\napp = Scheduler(poll_intervall=5)",
            "module 'program': 'poll_intervall' is not an option; did you mean 'poll_interval'?",
            id="wrong option",
        ),
        pytest.param("program.py:app", APP, "did you mean program:app?", id="a file with a module of its name"),
        pytest.param("./package/program.py:app", APP, "did you mean package.program:app?", id="a path in a package"),
    ],
)
def test_a_target_that_is_no_scheduler_gives_one_line_with_the_cause_and_exit_code_2(
    tmp_path: Path, target: str, source: str, cause: str
) -> None:
    (tmp_path / "program.py").write_text(source, encoding="utf-8")
    done = run(tmp_path, "run", target)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("anyscheduler: ")
    assert cause in line


def test_a_module_that_cannot_be_imported_shows_its_traceback_if_asked_for(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("def divide():\n    1 / 0\ndivide()\n", encoding="utf-8")
    done = run(tmp_path, "run", "program:app", "--verbose")
    assert done.returncode == 2
    assert "in divide" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("anyscheduler: ")


def test_the_module_may_be_in_a_package_in_the_current_directory(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "program.py").write_text(APP, encoding="utf-8")
    done = run(tmp_path, "run", "package.program:number")
    assert done.returncode == 2
    assert "package.program:number is of type int" in done.stderr


@pytest.mark.parametrize("seconds", ["-1", "-inf", "inf", "nan", "1e300", "1e12", "soon", ""])
def test_a_shutdown_timeout_that_is_no_usable_number_of_seconds_is_refused(tmp_path: Path, seconds: str) -> None:
    # An app that fails at its start, so that a timeout that is accepted does not make this wait for its end.
    (tmp_path / "program.py").write_text(f"{APP}\napp.create = None\n", encoding="utf-8")
    done = run(tmp_path, "run", "program:app", f"--shutdown-timeout={seconds}")
    assert done.returncode == 2
    assert "shutdown-timeout" in done.stderr or "shutdown_timeout" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (["run"], "Missing argument 'MODULE:APP'"),
        (["run", "program:app", "more"], "unexpected extra argument"),
        (["run", "program:app", "--backend", "curio"], "'curio' is not one of 'asyncio', 'trio'"),
        (["run", "program:app", "--backend", "trio", "--uvloop"], "--uvloop needs --backend asyncio"),
        (["run", "program:app", "--log-level", "nonsense"], "--log-level"),
        (["run", "program:app", "--nonsense"], "No such option"),
        (["nonsense"], "No such command 'nonsense'"),
    ],
)
def test_a_wrong_command_line_names_what_is_wrong_with_it_and_ends_with_exit_code_2(
    arguments: list[str], cause: str
) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert cause in result.stderr
    assert result.stdout == ""


def test_a_bad_log_level_is_refused_with_the_levels_that_there_are() -> None:
    result = CliRunner().invoke(main, ["run", "program:app", "--log-level", "nonsense"])
    assert result.exit_code == 2
    assert all(level in result.stderr for level in ("DEBUG", "INFO", "WARNING", "ERROR"))


def test_a_bad_log_level_in_the_environment_is_refused_by_the_name_of_the_variable() -> None:
    result = CliRunner().invoke(main, ["run", "program:app"], env={"LOG_LEVEL": "nonsense"})
    assert result.exit_code == 2
    assert "LOG_LEVEL" in result.stderr


def test_a_bad_log_level_in_the_environment_is_an_error_of_main_that_names_the_variable(tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    path.write_text(f"{APP}\napp.main()\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(path)],
        env={**os.environ, "PYTHONPATH": str(_REPOSITORY), "LOG_LEVEL": "nonsense"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert done.stderr.count("\n") == 1
    assert "LOG_LEVEL" in done.stderr.splitlines()[-1]


def test_the_version_is_that_of_the_package() -> None:
    result = CliRunner().invoke(main, ["--version"])
    assert result.exit_code == 0
    assert result.stdout.split() == ["anyscheduler,", "version", anyscheduler.__version__]


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_the_help_names_the_commands(option: str) -> None:
    result = CliRunner().invoke(main, [option])
    assert result.exit_code == 0
    assert "run" in result.stdout
    assert "--version" in result.stdout


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_the_help_of_run_names_every_option_the_signals_and_the_exit_codes(option: str) -> None:
    result = CliRunner().invoke(main, ["run", option], terminal_width=100)
    assert result.exit_code == 0
    for text in (
        "MODULE:APP",
        "--backend [asyncio|trio]",
        "--uvloop",
        "--log-level LEVEL",
        "--shutdown-timeout SECONDS",
        "--verbose",
        "SIGINT",
        "130 or 143",
    ):
        assert text in result.stdout


def test_python_m_anyscheduler_is_the_command_under_its_own_name(tmp_path: Path) -> None:
    done = run(tmp_path, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: anyscheduler [OPTIONS] COMMAND")
    assert done.stderr == ""
