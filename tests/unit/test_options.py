"""Options: what is accepted comes back as it was given; a refusal names the option, the value and what to write."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyscheduler import options
from anyscheduler.errors import ConfigurationError
from anyscheduler.task import FailureMode

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


class Hostile:
    """A value that cannot even be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


# --- how a refusal reads ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (5, "5"),
        ("x", "'x'"),
        ("a\nb\x1b", r"'a\nb\x1b'"),
        ("x" * 78, repr("x" * 78)),
        ("x" * 79, "'" + "x" * 76 + "..."),
    ],
)
def test_a_value_is_shown_on_one_line_of_at_most_80_characters(value: object, text: str) -> None:
    assert options.shown(value) == text
    assert len(options.shown(value)) <= 80


@pytest.mark.parametrize("value", [Hostile(), [Hostile()], 10**5_000], ids=["raising", "nested", "endless number"])
def test_a_value_that_cannot_be_shown_is_refused_like_any_other(value: object) -> None:
    with pytest.raises(ConfigurationError, match=r"^batch_size=.* is refused: a whole number from 1 to 5$"):
        options.whole_number("batch_size", value, 1, 5)
    with pytest.raises(ConfigurationError, match=r"^interval=.* is refused: a datetime\.timedelta"):
        options.duration("interval", value, SECOND, MINUTE)


def test_a_refusal_names_the_option_the_value_and_what_is_allowed() -> None:
    with pytest.raises(ConfigurationError, match=r"^colour='red' is refused: blue$"):
        options.refuse("colour", "red", "blue")


# --- kinds of values --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [SECOND, MINUTE, timedelta(seconds=30)])
def test_a_duration_between_the_bounds_is_accepted_bounds_included(value: timedelta) -> None:
    assert options.duration("interval", value, SECOND, MINUTE) is value


@pytest.mark.parametrize("value", [timedelta(0), -MINUTE, SECOND - timedelta.resolution, MINUTE + timedelta.resolution])
def test_a_duration_out_of_bounds_is_refused_with_the_bounds(value: timedelta) -> None:
    with pytest.raises(ConfigurationError, match=r"^interval=.*a timedelta from 0:00:01 to 0:01:00$"):
        options.duration("interval", value, SECOND, MINUTE)


@pytest.mark.parametrize(
    ("value", "to_write"),
    [
        (5, "timedelta(seconds=5)"),
        (0.5, "timedelta(seconds=0.5)"),
        ("5s", "timedelta(seconds=5)"),
        (None, "timedelta(seconds=5)"),
        (True, "timedelta(seconds=5)"),
    ],
)
def test_what_is_no_timedelta_is_answered_with_the_timedelta_to_write(value: object, to_write: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        options.duration("interval", value, SECOND, MINUTE)

    assert to_write in str(caught.value)


@pytest.mark.parametrize("value", [1, 2, 100])
def test_a_whole_number_between_the_bounds_is_accepted(value: int) -> None:
    assert options.whole_number("batch_size", value, 1, 100) == value


@pytest.mark.parametrize("value", [0, -1, 101, 1.5, 1.0, True, "1", None, float("nan"), [1]])
def test_anything_else_is_no_whole_number(value: object) -> None:
    with pytest.raises(ConfigurationError, match=r"^batch_size=.*a whole number from 1 to 100$"):
        options.whole_number("batch_size", value, 1, 100)


@pytest.mark.parametrize("value", [0.5, 0.001, 1 - 2**-53])
def test_a_fraction_lies_between_0_and_1(value: float) -> None:
    assert options.fraction("lease_remaining_ratio", value) == value


@pytest.mark.parametrize("value", [0, 1, 0.0, 1.0, -0.5, 1.5, float("nan"), float("inf"), True, False, "0.5", None, 0j])
def test_anything_else_is_no_fraction(value: object) -> None:
    with pytest.raises(ConfigurationError, match=r"^lease_remaining_ratio=.*between 0 and 1"):
        options.fraction("lease_remaining_ratio", value)


def test_a_flag_is_true_or_false() -> None:
    assert options.flag("enabled", True) is True
    assert options.flag("enabled", False) is False


@pytest.mark.parametrize("value", [0, 1, None, "True", "", [], 1.0])
def test_anything_else_is_no_flag(value: object) -> None:
    with pytest.raises(ConfigurationError, match=r"^enabled=.*True or False$"):
        options.flag("enabled", value)


def test_a_choice_is_a_member_of_its_enum() -> None:
    assert options.choice("failure_mode", FailureMode.UNLOCK, FailureMode) is FailureMode.UNLOCK


class Other(StrEnum):
    NONE = "none"


@pytest.mark.parametrize("value", ["none", "UNLOCK", None, 0, FailureMode, pytest.param(Other.NONE, id="other enum")])
def test_anything_else_is_no_choice_and_the_members_are_listed(value: object) -> None:
    with pytest.raises(ConfigurationError, match=r"FailureMode\.NONE, FailureMode\.UNLOCK, FailureMode\.COMMIT$"):
        options.choice("failure_mode", value, FailureMode)


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "a",
        " ",
        "a b",
        "a:b",
        ":",
        "a/b",
        "100%",
        "{}",
        "*",
        "'\"`",
        "\\",
        "\U0001f600",
        "\u05e9\u05dc\u05d5\u05dd",
        "\u00e9",
        "e\u0301",
        "x" * 255,
        "\u00e9" * 127,
        "\U0001f600" * 63,
        "\uffff",
    ],
)
def test_a_name_may_be_any_printable_text_of_up_to_255_bytes(name: str) -> None:
    assert options.schedule_name("name", name) == name


# --- misspelt options -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keyword", "meant"),
    [
        ("lease_durations", "lease_duration"),
        ("lease_duratio", "lease_duration"),
        ("lease_durtaion", "lease_duration"),
        ("lease-duration", "lease_duration"),
        ("Interval", "interval"),
        ("itnerval", "interval"),
        ("nterval", "interval"),
        ("xinterval", "interval"),
    ],
)
def test_a_keyword_one_slip_away_from_an_option_is_refused_with_the_option(keyword: str, meant: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{keyword!r} is not an option; did you mean {meant!r}"):
        options.refuse_slips([keyword], ["lease_duration", "interval"])


@pytest.mark.parametrize(
    "keyword", ["interval", "intervals_of", "user", "lease", "duration", "nitervla", "LEASE_DURATION"]
)
def test_other_keywords_are_arguments(keyword: str) -> None:
    arguments = [keyword]
    options.refuse_slips(arguments, ["lease_duration", "interval"])
    assert arguments == [keyword]


def slips(word: str, alphabet: str) -> set[str]:
    """Every word that is one slip away from `word`, written down one after the other."""
    inserted = {word[:at] + letter + word[at:] for at in range(len(word) + 1) for letter in alphabet}
    deleted = {word[:at] + word[at + 1 :] for at in range(len(word))}
    replaced = {word[:at] + letter + word[at + 1 :] for at in range(len(word)) for letter in alphabet}
    swapped = {word[:at] + word[at + 1] + word[at] + word[at + 2 :] for at in range(len(word) - 1)}
    return (inserted | deleted | replaced | swapped) - {word}


@given(st.text("ab", max_size=6), st.text("ab", max_size=6))
def test_one_slip_is_an_insertion_a_deletion_a_substitution_or_a_swap(word: str, other: str) -> None:
    assert options._one_slip(word, other) == (word in slips(other, "ab"))


def test_an_unknown_option_is_refused_with_the_options_that_exist() -> None:
    with pytest.raises(
        ConfigurationError, match="Scheduler has no option 'colour'; its options are: batch_size, clock"
    ):
        options.refuse_unknown(["colour"], ["clock", "batch_size"], "Scheduler")
    with pytest.raises(ConfigurationError, match="did you mean 'clock'"):
        options.refuse_unknown(["clocks"], ["clock", "batch_size"], "Scheduler")


def test_known_options_are_not_taken_for_slips_of_each_other() -> None:
    given_options: dict[str, Any] = {"name": 1, "names": 2}
    options.refuse_unknown(given_options, ["name", "names"], "Scheduler")
    assert given_options == {"name": 1, "names": 2}
