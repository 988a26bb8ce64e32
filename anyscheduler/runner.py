"""An app as a program: logging, signals, exit codes.

Knows: one app and the process it is alone in. Must not know: what the app does.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import warnings
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, Literal, TextIO

import anyio

from anyscheduler.errors import AnySchedulerError, ConfigurationError
from anyscheduler.logs import get_logger, in_one_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from anyscheduler.app import Scheduler
    from anyscheduler.app_context import AppContext

logger = get_logger(__name__)

SUCCESS: Final = 0
FAILURE: Final = 1
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_PATIENCE_WITH_SIGNALS: Final = 3
_NO_FD: Final = -1


def configure_logging(level: str | None = None) -> None:
    """Sends log lines to standard output, at `level`, else at the environment's `LOG_LEVEL`, else at INFO.

    Warnings issued through `warnings` go there too. An application that has configured logging keeps its own.

    Raises:
        ConfigurationError: There is no such level.
    """
    name = (level or os.environ.get("LOG_LEVEL") or "INFO").upper()
    if name not in logging.getLevelNamesMapping():
        source = "log level" if level else "the environment's LOG_LEVEL"
        raise ConfigurationError(f"{source} {name!r} is refused: DEBUG, INFO, WARNING, ERROR or CRITICAL")
    text = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    logging.basicConfig(level=name, handlers=[_Output(sys.stdout)], format=text)
    warnings.formatwarning = _one_line
    logging.captureWarnings(capture=True)


class _Output(logging.StreamHandler[TextIO]):
    """Writes log lines to a stream whatever it can take, and says once, and not for each line, that it takes none."""

    _has_complained = False

    def format(self, record: logging.LogRecord) -> str:
        # A name that the encoding of a terminal does not have is escaped; Python alone would drop the whole line.
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        return super().format(record).encode(encoding, "backslashreplace").decode(encoding)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802  # the name is part of the interface
        if not self._has_complained:
            self._has_complained = True
            error = sys.exc_info()[1]
            with suppress(AttributeError, OSError, ValueError):
                sys.stderr.write(f"anyscheduler: the log cannot be written: {type(error).__name__}: {error}\n")


def _one_line(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,  # noqa: ARG001  # the name is part of the interface
) -> str:
    return in_one_line(f"{filename}:{lineno}: {category.__name__}: {message}")


def run(app: Scheduler, *, backend: Literal["asyncio", "trio"], use_uvloop: bool = False) -> int:
    """Runs an app until it is stopped, and returns the exit code.

    0 after a graceful stop; 128 plus the number of the signal after a hard one; 1 after a failure, which is logged.
    """
    backend_options: dict[str, Any] = {"use_uvloop": True} if use_uvloop else {}
    with _Signals.received() as signals:
        try:
            _check_installed("uvloop" if use_uvloop else backend)
            code = anyio.run(_serve, app, signals, backend=backend, backend_options=backend_options)
        except BaseException as raised:  # the last line of a program that failed says why
            error = _only(raised)
            # An error of ours says all in one line; whatever else was raised needs its traceback.
            says_all = isinstance(error, AnySchedulerError) and not logger.isEnabledFor(logging.DEBUG)
            logger.critical("failed: %s: %s", type(error).__name__, error, exc_info=None if says_all else error)
            code = FAILURE
    if code != SUCCESS and any(not thread.daemon for thread in threading.enumerate()[1:]):
        # A plain function still runs in its thread, and the interpreter would wait for it.
        logging.shutdown()
        # Standard output can be closed, or missing altogether.
        with suppress(AttributeError, OSError, ValueError):
            sys.stdout.flush()
        os._exit(code)
    return code


def _check_installed(event_loop: str) -> None:
    if find_spec(event_loop) is None:
        raise ConfigurationError(f'{event_loop} is not installed: pip install "anyscheduler[{event_loop}]"')


async def _serve(app: Scheduler, signals: _Signals) -> int:
    """Runs the app under the rule of signals.

    1. While the store is opened and the fixtures are set up, the first signal cancels that, and tears down what is up.
    2. While the app runs, the first one stops it gracefully.
    3. The second one cancels whatever is going on.
    4. The third one ends the process; it does not come here.
    """
    code = SUCCESS
    running: AppContext | None = None
    signals.wake_the_loop_at_once()
    async with anyio.create_task_group() as group:

        async def obey() -> None:
            async for count in signals:
                if count == 1 and running is not None:
                    logger.info("%s: stopping gracefully; once more to stop hard", signals.name)
                    running.shutdown()
                else:
                    logger.warning("%s: stopping hard", signals.name)
                    group.cancel_scope.cancel()

        group.start_soon(obey)
        async with app.create() as app_context:
            running = app_context
            await app_context.run()
            if app_context.stopped_hard:
                code = signals.exit_code
        if not group.cancel_scope.cancel_called:
            group.cancel_scope.cancel()
            return code
    logger.warning("stopped hard")
    return signals.exit_code


def _only(error: BaseException) -> BaseException:
    """Returns what went wrong without the groups of one that task groups wrap it in."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


class _Signals:
    """Counts SIGINT and SIGTERM, tells the event loop, and ends the process at the third.

    It handles them itself, and not through the event loop: a loop that a body blocks would never see the third one. A
    byte through a socket wakes the loop, whichever it is.
    """

    def __init__(self, reader: socket.socket, writer: socket.socket) -> None:
        self._reader = reader
        self._writer = writer
        self._count = 0
        self._told = 0
        self._last = signal.SIGINT

    @classmethod
    @contextmanager
    def received(cls) -> Iterator[_Signals]:
        """Installs the handlers, and restores the ones before."""
        with ExitStack() as stack:
            reader, writer = (stack.enter_context(end) for end in socket.socketpair())
            for end in (reader, writer):
                end.settimeout(0)
            signals = cls(reader, writer)
            for number in _SIGNALS:
                stack.callback(signal.signal, number, signal.signal(number, signals._handle))
            # Loops put back what they found, so what is set in the end is ours.
            stack.callback(signal.set_wakeup_fd, _NO_FD)
            yield signals

    @property
    def name(self) -> str:
        """The signal that came last."""
        return self._last.name

    @property
    def exit_code(self) -> int:
        """The exit code of a process that this signal has ended."""
        return 128 + self._last

    def __aiter__(self) -> _Signals:
        return self

    async def __anext__(self) -> int:
        while self._told == self._count:
            await anyio.wait_readable(self._reader)
            self._reader.recv(64)
        self._told += 1
        return self._told

    def wake_the_loop_at_once(self) -> None:
        """Makes the interpreter itself write to the socket, unless the event loop has it write somewhere already.

        A handler runs in the main thread only, when that runs Python code again; where another thread received the
        signal, a main thread that waits for files would notice only when its wait is over. trio and uvloop see to
        that themselves. To be called inside of the event loop.
        """
        before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        if before != _NO_FD:
            signal.set_wakeup_fd(before, warn_on_full_buffer=False)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self._count += 1
        self._last = signal.Signals(number)
        if self._count >= _PATIENCE_WITH_SIGNALS:
            os.write(2, b"stopped at once\n")
            os._exit(self.exit_code)
        self._writer.send(b"!")
