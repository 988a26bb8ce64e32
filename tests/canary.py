"""The bird that sings when a password is shown: every password of the tests has `canary` in it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_SECRET: Final = "canary"


def leaks(lines: Iterable[str]) -> list[str]:
    """Returns the lines with a password in them."""
    return [line for line in lines if _SECRET in line]


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
        self.leaks += leaks([self.format(record)])
