"""Wrong command lines: exit code 2, one line with the cause, and a traceback only for those who ask for it."""

from __future__ import annotations

import logging
import sys
import warnings
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from anyscheduler.cli import main
from tests.bad_inputs.refusals import label

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

APP = """
from datetime import timedelta
from anyscheduler import Scheduler
app = Scheduler()
number = 5
def factory():
    return app
"""
LAZY = "def __getattr__(name): raise {}"


@pytest.fixture(autouse=True)
def own_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A directory, modules, logging and warnings as a process has them that the command is started in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LOG_LEVEL", raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    modules, level, handlers = set(sys.modules), logging.root.level, [*logging.root.handlers]
    yield
    logging.captureWarnings(capture=False)
    logging.root.setLevel(level)
    logging.root.handlers[:] = handlers
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def refused(result: Result, cause: str) -> None:
    """Expects exit code 2, and one printable line with the cause."""
    assert result.exit_code == 2
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("anyscheduler: ")
    assert cause in line
    assert line.isprintable()


# --- what to run ------------------------------------------------------------------------------------------------------

BAD_TARGETS = [
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
    # As many again: parts that are none,
    *(
        pytest.param(target, APP, f"{target!r} is not of the form module:app", id=label(target))
        for target in (
            ":",
            "::",
            ":app:",
            ".",
            "..",
            ".:app",
            "..:app",
            ".program:app",
            "program.:app",
            "package..program:app",
            "program/app",
            "../program:app",
            "~/program:app",
            "program\\x:app",
            " program:app",
            "program :app",
            "program;x:app",
            "program\n:app",
            "program\0:app",
            "\ud800:app",
            "1program:app",
            "\U0001f600:app",
            "\u202eprogram:app",
            "pro-gram:app",
            "program()",
            "*:app",
            "$(id):app",
            "program,x:app",
        )
    ),
    # names that nothing has,
    *(
        pytest.param(f"program:{name}", APP, f"module 'program' has no {name!r}", id=f"no {label(name)}")
        for name in (
            "app.create",
            "app.__class__",
            "app()",
            " app",
            "app ",
            ":app",
            "app:",
            "\U0001f600",
            "a\nb",
            "a\0b",
            "\ud800",
            "__import__('os')",
            "app;x",
            "..",
            "*",
            "x" * 5_000,
        )
    ),
    # modules that are there and should not be,
    pytest.param("builtins:print", APP, "is of type builtin_function_or_method, and not a Scheduler", id="builtins"),
    pytest.param("sys:modules", APP, "sys:modules is of type dict, and not a Scheduler", id="sys"),
    pytest.param("program:__builtins__", APP, "is of type dict, and not a Scheduler", id="dunder"),
    pytest.param("class:app", APP, "No module named 'class'", id="keyword"),
    pytest.param("x" * 5_000 + ":app", APP, "cannot be imported", id="endless module"),
    pytest.param("sys.path:app", APP, "cannot be imported: ModuleNotFoundError", id="no package"),
    pytest.param("C:\\program:app", APP, "No module named 'C'", id="drive"),
    pytest.param("file:///program:app", APP, "No module named 'file'", id="URL"),
    # and modules that do whatever they like.
    pytest.param(
        "program:app", "raise ValueError('\\x1b[31m\\0')", "ValueError: \\x1b[31m\\x00", id="control characters"
    ),
    pytest.param(
        "program:app", "raise BaseExceptionGroup('', [KeyboardInterrupt()])", "BaseExceptionGroup", id="group"
    ),
    pytest.param("program:app", "raise GeneratorExit", "GeneratorExit", id="GeneratorExit"),
    pytest.param("program:app", "def f(): f()\nf()", "RecursionError", id="endless recursion"),
    pytest.param("program:app", "\0", "cannot be imported: SyntaxError", id="NUL"),
    pytest.param("program:app", "x = '\\ud800'.encode()", "UnicodeEncodeError", id="a lone surrogate"),
    pytest.param(
        "program:app",
        "class Mute(Exception):\n    def __str__(self): raise OSError\nraise Mute",
        "Mute: it cannot be shown",
        id="an error that cannot be shown",
    ),
    pytest.param("program:app", LAZY.format("ValueError('no')"), "does not give 'app': ValueError: no", id="lazy"),
    pytest.param("program:app", LAZY.format("SystemExit(0)"), "does not give 'app': SystemExit: 0", id="lazy exit"),
    pytest.param("program:app", LAZY.format("AttributeError"), "module 'program' has no 'app'", id="lazy and missing"),
    pytest.param(
        "program:app",
        "class Sly:\n    @property\n    def __class__(self): raise OSError('sly')\napp = Sly()",
        "does not give 'app': OSError: sly",
        id="an object without a class",
    ),
]


@pytest.mark.parametrize(("target", "source", "cause"), BAD_TARGETS)
def test_a_target_that_is_no_scheduler_gives_one_line_with_the_cause_and_exit_code_2(
    tmp_path: Path, target: str, source: str, cause: str
) -> None:
    (tmp_path / "program.py").write_text(source, encoding="utf-8")
    refused(run("run", "--", target), cause)


def test_a_directory_that_was_removed_holds_no_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    refused(run("run", "program:app"), "No module named 'program'")


@pytest.mark.parametrize(
    "source", ["def divide(): 1 / 0\ndivide()", "def divide(): 1 / 0\ndef __getattr__(name): divide()"]
)
def test_the_traceback_is_shown_to_those_who_ask_for_it(tmp_path: Path, source: str) -> None:
    (tmp_path / "program.py").write_text(source, encoding="utf-8")
    result = run("run", "program:app", "--verbose")
    assert result.exit_code == 2
    assert "in divide" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("anyscheduler: ")


# --- how to run it ----------------------------------------------------------------------------------------------------

BAD_ARGUMENTS: list[tuple[list[str], str]] = [
    (["run"], "Missing argument 'MODULE:APP'"),
    (["run", "program:app", "more"], "unexpected extra argument"),
    (["run", "program:app", "--backend", "curio"], "'curio' is not one of 'asyncio', 'trio'"),
    (["run", "program:app", "--backend", "trio", "--uvloop"], "--uvloop needs --backend asyncio"),
    (["run", "program:app", "--log-level", "nonsense"], "--log-level"),
    (["run", "program:app", "--nonsense"], "No such option"),
    (["nonsense"], "No such command 'nonsense'"),
    # As many again.
    ([], "Usage: "),
    ([""], "No such command ''"),
    (["--nonsense"], "No such option"),
    (["-x"], "No such option"),
    (["RUN", "program:app"], "No such command 'RUN'"),
    (["run", "program:app", "--backend"], "requires an argument"),
    (["run", "program:app", "--backend="], "'' is not one of 'asyncio', 'trio'"),
    (["run", "program:app", "--backend", "ASYNCIO"], "'ASYNCIO' is not one of"),
    (["run", "program:app", "--backend", "\U0001f600\0"], "is not one of"),
    (["run", "program:app", "--uvloop=1"], "does not take a value"),
    (["run", "program:app", "--verbose=1"], "does not take a value"),
    (["run", "program:app", "--log-level", "5"], "--log-level"),
    (["run", "program:app", "--log-level", "INFO "], "--log-level"),
    (["run", "program:app", "--log-level", "\U0001f600\0"], "--log-level"),
    (["run", "program:app", "--log-level", "x" * 5_000], "--log-level"),
    (["run", "program:app", "--shutdown-timeout"], "requires an argument"),
    (["run", "program:app", "--back", "trio", "--uvloop"], "No such option"),
    (["run", "@program:app"], "not of the form"),
]


@pytest.mark.parametrize(("arguments", "cause"), BAD_ARGUMENTS, ids=label)
def test_a_wrong_command_line_names_what_is_wrong_with_it_and_ends_with_exit_code_2(
    arguments: list[str], cause: str
) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert cause in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "seconds", ["-1", "-inf", "inf", "nan", "1e300", "1e12", "soon", "", "-0.001", "1e400", "5s", "0x5", "\0", "1_0_"]
)
def test_a_shutdown_timeout_that_is_no_usable_number_of_seconds_is_refused(tmp_path: Path, seconds: str) -> None:
    # An app that fails at its start, so that a timeout that is accepted does not make this wait for its end.
    (tmp_path / "program.py").write_text(f"{APP}\napp.create = None\n", encoding="utf-8")
    result = run("run", "program:app", f"--shutdown-timeout={seconds}")
    assert result.exit_code == 2
    assert "shutdown-timeout" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_bad_log_level_is_refused_with_the_levels_that_there_are() -> None:
    result = run("run", "program:app", "--log-level", "nonsense")
    assert result.exit_code == 2
    assert all(level in result.stderr for level in ("DEBUG", "INFO", "WARNING", "ERROR"))


@pytest.mark.parametrize("level", ["nonsense", "5", " ", "INFO,DEBUG", "\U0001f600"])
def test_a_bad_log_level_in_the_environment_is_refused_by_the_name_of_the_variable(
    monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    monkeypatch.setenv("LOG_LEVEL", level)
    result = run("run", "program:app")
    assert result.exit_code == 2
    assert "LOG_LEVEL" in result.stderr
