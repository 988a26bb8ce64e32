"""The command `anyscheduler`.

Knows: the command line. Must not know: how an app runs.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Literal, NoReturn

import click

from anyscheduler import __version__, runner
from anyscheduler.app import Scheduler
from anyscheduler.errors import ConfigurationError
from anyscheduler.logs import in_one_line

_USAGE_ERROR = 2


_HELP = {"help_option_names": ["-h", "--help"]}


@click.group(context_settings=_HELP)
@click.version_option(__version__, prog_name="anyscheduler")
def main() -> None:
    """A distributed scheduler for async Python: asyncio and trio, on memory, SQLite, Redis or PostgreSQL."""


@main.command(context_settings=_HELP)
@click.argument("target", metavar="MODULE:APP")
@click.option("--backend", type=click.Choice(["asyncio", "trio"]), default="asyncio", show_default=True,
              help="The event loop to run on.")  # fmt: skip
@click.option("--uvloop", "use_uvloop", is_flag=True, help="Run asyncio on uvloop.")
@click.option("--log-level", metavar="LEVEL", help="DEBUG, INFO, WARNING or ERROR; else $LOG_LEVEL, else INFO.")
@click.option("--shutdown-timeout", type=click.FloatRange(min=0), metavar="SECONDS",
              help="How long a graceful stop may take before it becomes a hard one; by default no limit.")  # fmt: skip
@click.option("--verbose", is_flag=True, help="Show the traceback when the app cannot be imported.")
def run(
    target: str,
    backend: Literal["asyncio", "trio"],
    use_uvloop: bool,
    log_level: str | None,
    shutdown_timeout: float | None,
    verbose: bool,
) -> None:
    """Run the Scheduler that MODULE defines under the name APP, such as `hello:app`.

    The first SIGINT or SIGTERM stops gracefully, the second one hard, the third one ends the process.

    Exit codes: 0 after a graceful stop, 130 or 143 after a hard one, 1 if the app failed, 2 for a wrong command line.
    """
    if use_uvloop and backend != "asyncio":
        raise click.UsageError("--uvloop needs --backend asyncio")
    try:
        runner.configure_logging(log_level)
    except ConfigurationError as error:
        if log_level is None:
            raise click.UsageError(str(error)) from error
        raise click.BadParameter(str(error), param_hint="--log-level") from error
    app = _load(target, verbose=verbose)
    if shutdown_timeout is not None:
        try:
            app.set_shutdown_timeout(timedelta(seconds=shutdown_timeout))
        except (ValueError, OverflowError) as error:  # NaN, infinity, or what the option itself does not allow
            raise click.BadParameter(str(error), param_hint="--shutdown-timeout") from error
    sys.exit(runner.run(app, backend=backend, use_uvloop=use_uvloop))


def _load(target: str, *, verbose: bool) -> Scheduler:
    module_name, colon, name = target.partition(":")
    if module_name.endswith(".py"):
        guess = f"{module_name.removesuffix('.py').replace('/', '.').strip('.')}:{name or 'app'}"
        _fail(f"{target!r} is not of the form module:app; did you mean {guess}?")
    if not colon or not module_name or not name or not all(part.isidentifier() for part in module_name.split(".")):
        _fail(f"{target!r} is not of the form module:app, such as hello:app or package.module:app")
    # What is imported when it is first needed; a file of that name in the current directory must not stand in for it.
    for library in ("croniter", "dateutil.tz"):
        importlib.import_module(library)
    # As `python -m` does: what is in the current directory can be imported. If that was removed, nothing is.
    with suppress(OSError):
        sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except BaseException as error:  # noqa: BLE001  # whatever the module does, the cause belongs in one line
        if verbose:
            traceback.print_exc()
        if isinstance(error, ConfigurationError):
            _fail(f"module {module_name!r}: {error}")
        _fail(f"module {module_name!r} cannot be imported: {_in_words(error)}")
    try:
        app: object = getattr(module, name)
        if isinstance(app, Scheduler):
            return app
    except AttributeError:
        _fail(f"module {module_name!r} has no {name!r}")
    except BaseException as error:  # noqa: BLE001  # a module may make its attributes when they are asked for
        if verbose:
            traceback.print_exc()
        _fail(f"module {module_name!r} does not give {name!r}: {_in_words(error)}")
    return _fail(f"{target} is of type {type(app).__name__}, and not a Scheduler")


def _in_words(error: BaseException) -> str:
    try:
        text = " ".join(str(error).split())
    except Exception:  # noqa: BLE001  # it is anybody's error, and what went wrong is its name at least
        text = "it cannot be shown"
    return f"{type(error).__name__}: {text}"


def _fail(cause: str) -> NoReturn:
    click.echo(f"anyscheduler: {in_one_line(cause)}", err=True)
    sys.exit(_USAGE_ERROR)
