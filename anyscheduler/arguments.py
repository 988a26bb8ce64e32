"""What may be an argument of a task: JSON, and only such JSON as comes back equal.

Knows: JSON values. Must not know: tasks, stores.
"""

from __future__ import annotations

import json
import math
from typing import Any, Final, NoReturn

from anyscheduler.errors import ConfigurationError
from anyscheduler.options import shown

DEFAULT_SIZE_LIMIT: Final = 64 * 1024
"""How many bytes the arguments of one schedule may take as JSON, unless the app says otherwise."""

_DEPTH_LIMIT: Final = 100
# Some 4,214 digits. Python converts 4,300, unless it is told otherwise.
_MOST_BITS: Final = 14_000


def check(arguments: dict[str, Any], size_limit: int = DEFAULT_SIZE_LIMIT) -> dict[str, Any]:
    """Returns a copy of `arguments` that shares no part with the caller's.

    Raises:
        ConfigurationError: A value would not come back equal from JSON (a tuple, a set, bytes, a datetime, NaN, a key
            that is no string, a string with NUL or a lone surrogate), is a whole number of thousands of digits, is
            nested deeper than 100, or all of them take more than `size_limit` bytes. The error names the place, as in
            `args['a'][3]`.
    """
    if not arguments:
        return {}
    _Walk(size_limit).check(arguments, "args", 0)
    text = json.dumps(arguments, allow_nan=False)
    if len(text) > size_limit:
        _refuse_size(size_limit)
    copied: dict[str, Any] = json.loads(text)
    return copied


class _Walk:
    """One walk through the arguments.

    It counts the values, each of which takes a byte at least, and so ends early where one list that stands in many
    places would be walked through again and again.
    """

    def __init__(self, size_limit: int) -> None:
        self._size_limit = size_limit
        self._left = size_limit

    def check(self, value: object, path: str, depth: int) -> None:
        if depth > _DEPTH_LIMIT:
            raise ConfigurationError(f"{path[:80]}... is nested deeper than {_DEPTH_LIMIT}, or contains itself")
        self._left -= 1
        if self._left < 0:
            _refuse_size(self._size_limit)
        match value:
            case None | bool():
                return
            case int() | float():
                _check_number(value, path)
            case str():
                _check_text(value, path)
            case list():
                for index, item in enumerate(value):
                    self.check(item, f"{path}[{index}]", depth + 1)
            case dict():
                for key, item in value.items():
                    if not isinstance(key, str):
                        _refuse(key, f"a key of {path}", "a key must be a string")
                    _check_text(key, f"a key of {path}")
                    self.check(item, f"{path}[{shown(key)}]", depth + 1)
            case _:
                _refuse(value, path, f"a {type(value).__name__} would not come back equal from JSON")


def _check_number(number: float, path: str) -> None:
    if isinstance(number, int):
        if number.bit_length() > _MOST_BITS:
            _refuse(number, path, f"a whole number may have {_MOST_BITS} bits")
    elif not math.isfinite(number):
        _refuse(number, path, "JSON has no such number")


def _check_text(text: str, path: str) -> None:
    if "\x00" in text:
        _refuse(text, path, "a string must not contain NUL")
    if any("\ud800" <= character <= "\udfff" for character in text):
        _refuse(text, path, "a string must not contain a lone surrogate")


def _refuse_size(size_limit: int) -> NoReturn:
    raise ConfigurationError(
        f"args take more than {size_limit} bytes as JSON; "
        "store large data elsewhere and pass its name, or raise args_size_limit= of the Scheduler"
    )


def _refuse(value: object, path: str, reason: str) -> NoReturn:
    raise ConfigurationError(f"{path}={shown(value)} is refused: {reason}")
