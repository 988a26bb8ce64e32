"""Checks of what users pass in; each refuses with the option's name, the value and what is allowed.

Knows: Python values. Must not know: tasks, stores, the event loop, the time of day.
"""

from __future__ import annotations

import unicodedata
from datetime import timedelta
from typing import TYPE_CHECKING, NoReturn, TypeVar

from anyscheduler.errors import ConfigurationError
from anyscheduler.logs import in_one_line

if TYPE_CHECKING:
    from collections.abc import Iterable
    from enum import StrEnum

Choice = TypeVar("Choice", bound="StrEnum")

_SHOWN = 80
_NAME_BYTES = 255
_ALLOWED_NAME = f"a string of 1 to {_NAME_BYTES} bytes in UTF-8 without NUL, control characters or lone surrogates"
_MOST_SECONDS = timedelta.max // timedelta(seconds=1)


def shown(value: object) -> str:
    """Returns the repr of `value`, cut to 80 characters."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001  # it is to be refused anyway: an int too long for repr, or a repr of its own
        text = f"<{type(value).__name__}>"
    text = in_one_line(text)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def refuse(option: str, value: object, allowed: str) -> NoReturn:
    """Raises the error that every refused option gets.

    Raises:
        ConfigurationError: Always; it names the option, the value cut to 80 characters, and what is allowed.
    """
    raise ConfigurationError(f"{option}={shown(value)} is refused: {allowed}")


def duration(option: str, value: object, least: timedelta, most: timedelta) -> timedelta:
    """Returns `value` if it is a timedelta from `least` to `most`, both included.

    Raises:
        ConfigurationError: It is something else. A plain number is answered with the timedelta to write.
    """
    if isinstance(value, timedelta):
        if least <= value <= most:
            return value
        refuse(option, value, f"a timedelta from {least} to {most}")
    meant = shown(value) if _is_number_of_seconds(value) else "5"
    refuse(option, value, f"a datetime.timedelta, such as timedelta(seconds={meant})")


def _is_number_of_seconds(value: object) -> bool:
    # Compared, since an int can be too large for math.isfinite.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _MOST_SECONDS


def whole_number(option: str, value: object, least: int, most: int) -> int:
    """Returns `value` if it is an int (not a bool) from `least` to `most`, both included.

    Raises:
        ConfigurationError: It is something else.
    """
    if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
        return value
    refuse(option, value, f"a whole number from {least} to {most}")


def fraction(option: str, value: object) -> float:
    """Returns `value` if it is a number between 0 and 1, both excluded.

    Raises:
        ConfigurationError: It is something else, NaN included.
    """
    if isinstance(value, int | float) and 0 < value < 1:
        return float(value)
    refuse(option, value, "a number between 0 and 1, both excluded")


def flag(option: str, value: object) -> bool:
    """Returns `value` if it is True or False.

    Raises:
        ConfigurationError: It is something else, 0 and 1 included.
    """
    if isinstance(value, bool):
        return value
    refuse(option, value, "True or False")


def choice(option: str, value: object, kind: type[Choice]) -> Choice:
    """Returns `value` if it is a member of the enum `kind`.

    Raises:
        ConfigurationError: It is something else; the error lists the members.
    """
    if isinstance(value, kind):
        return value
    refuse(option, value, "one of " + ", ".join(f"{kind.__name__}.{member.name}" for member in kind))


def schedule_name(option: str, value: object) -> str:
    """Returns `value` if it can name a task or an instance of one.

    A name has 1 to 255 bytes in UTF-8 and no control characters or lone surrogates. Names are compared as they are:
    upper and lower case, and the composed and decomposed forms of one word, are different names.

    Raises:
        ConfigurationError: It cannot.
    """
    if not isinstance(value, str) or not value:
        refuse(option, value, _ALLOWED_NAME)
    # Cc holds the control characters, Cs the surrogates; U+2028 and U+2029 would break a log line in two. Most names
    # are plain, and this runs for every row that is executed.
    plain = value.isascii() and value.isprintable()
    if not plain and any(unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} for character in value):
        refuse(option, value, _ALLOWED_NAME)
    if len(value.encode()) > _NAME_BYTES:
        refuse(option, value, _ALLOWED_NAME)
    return value


def schedule_key(option: str, value: object) -> str:
    """Returns `value` if it can be the key of a schedule, such as `list_tasks` gives as its token.

    Raises:
        ConfigurationError: It cannot.
    """
    if isinstance(value, str) and value and not any("\ud800" <= character <= "\udfff" for character in value):
        return value
    refuse(option, value, "the token of the page before")


def refuse_slips(keywords: Iterable[str], options: Iterable[str]) -> None:
    """Refuses keywords that are one slip of the keyboard away from an option; other keywords are arguments.

    Raises:
        ConfigurationError: One is; the error says which option was probably meant.
    """
    known = tuple(options)
    for keyword in keywords:
        for option in known:
            if _one_slip(keyword, option):
                raise ConfigurationError(
                    f"{shown(keyword)} is not an option; did you mean {option!r}? "
                    "(An argument needs a name of its own.)"
                )


def refuse_unknown(keywords: Iterable[str], options: Iterable[str], owner: str) -> None:
    """Refuses every keyword that is not an option of `owner`.

    Raises:
        ConfigurationError: One is not; the error lists the options.
    """
    known = tuple(options)
    refuse_slips((keyword for keyword in keywords if keyword not in known), known)
    for keyword in keywords:
        if keyword not in known:
            raise ConfigurationError(
                f"{owner} has no option {shown(keyword)}; its options are: {', '.join(sorted(known))}"
            )


def counted(number: int, noun: str) -> str:
    """Returns the number with its noun, for logs: `1 task`, `2 tasks`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _one_slip(word: str, other: str) -> bool:
    """Tells whether one insertion, deletion, substitution or swap of neighbours turns `word` into `other`."""
    if word == other or abs(len(word) - len(other)) > 1:
        return False
    start = 0
    while start < min(len(word), len(other)) and word[start] == other[start]:
        start += 1
    rest, wanted = word[start:], other[start:]
    return (
        rest[1:] == wanted
        or rest == wanted[1:]
        or rest[1:] == wanted[1:]
        or (rest[:2] == wanted[1::-1] and rest[2:] == wanted[2:])
    )
