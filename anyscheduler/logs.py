"""Loggers whose records are one printable line each, whatever names, stored values and errors are in them.

Knows: text, and the logging module. Must not know: what is logged, and where to.

Whoever can choose a name or write a row could otherwise forge log lines, or send escape sequences to a terminal. What
an exception says in its own traceback has lines of its own, by nature.
"""

from __future__ import annotations

import logging


def in_one_line(text: str) -> str:
    """Returns a text with everything that does not print (line ends, escapes, marks of direction) escaped."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


class _OneLine(logging.Filter):
    """Escapes the message of a record where that is needed; it drops none."""

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001  # what is logged may be anybody's error, of which str() fails
            record.msg, record.args = f"{record.msg} (it cannot be shown)", None
        else:
            if not message.isprintable():
                record.msg, record.args = in_one_line(message), None
        return True


_one_line = _OneLine()


def get_logger(name: str) -> logging.Logger:
    """Returns the logger of a module of this package."""
    logger = logging.getLogger(name)
    logger.addFilter(_one_line)
    return logger
