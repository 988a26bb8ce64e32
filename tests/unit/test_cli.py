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
