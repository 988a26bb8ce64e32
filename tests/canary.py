"""The bird that sings when a password is logged: every password of the tests has `canary` in it."""

from __future__ import annotations

import logging


class Canary(logging.Handler):
    """Listens to every log line, its traceback included.

    Attributes:
        leaks: The lines with a password in them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.leaks: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Takes a line down if there is a password in it."""
        line = self.format(record)
        if "canary" in line:
            self.leaks.append(line)
