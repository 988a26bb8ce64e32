"""clean, quiet: logs that keep them, and logs that break each of them in one way."""

from __future__ import annotations

import pytest

from tests.servers.process import PASSWORD, QUOTED_PASSWORD
from tests.soak import invariants
from tests.soak.handwritten import ONCE, PLAIN, Log
from tests.soak.log import Kind


def test_the_names_are_those_of_the_table() -> None:
    table = "no-loss once cause one-lease final next clean not-early fair bound stop heal registry poison quiet"
    assert list(invariants.NAMES) == table.split()


def test_nothing_happened_and_nothing_is_broken() -> None:
    assert Log().broken == []


def finished(log: Log, *, code: int = 0) -> None:
    """A once-off that is executed, by a process that then stops."""
    log.scheduled(1, "1.0", "once:1", "once", due=2)
    log.executed(2, "0.0", "once:1", 2, "a", then=None)
    stops(log, code)


def stops(log: Log, code: int = 0) -> None:
    log.driver(Kind.SIGNAL, 3, "SIGTERM" if code == 0 else "SIGKILL", "0.0")
    log.driver(Kind.EXIT, 3.2, str(code), "0.0")


def test_clean_the_row_of_a_finished_once_off_is_found() -> None:
    log = Log(ONCE)
    finished(log)
    assert log.broken == []
    log.row("once:1", 2)
    assert log.broken == ["clean"]


def test_clean_an_index_entry_without_its_row_is_found() -> None:
    log = Log()
    log.driver(Kind.ORPHAN, 9, "'once:1' is to be claimed, and has no row")
    assert log.broken == ["clean"]


@pytest.mark.parametrize(("code", "broken"), [(0, ["clean", "clean"]), (-9, [])])
def test_clean_what_a_gracefully_stopped_process_still_holds_is_found(code: int, broken: list[str]) -> None:
    log = Log(PLAIN)
    log.granted(2, "0.0", "plain", 2, "a")
    log.started(2.1, "0.0", "plain", 2, "a")
    log.ended(2.2, "0.0", "plain", 2, "a")
    log.row("plain", 2, "a", until=5)
    stops(log, code)
    # Once in the store, and once in the log, which has no end of it.
    assert log.broken == broken


@pytest.mark.parametrize("answered", ["refused", "given up", "lease_lost"])
def test_what_was_refused_or_given_up_is_held_no_more(answered: str) -> None:
    log = Log(PLAIN)
    log.granted(2, "0.0", "plain", 2, "a")
    log.started(2.1, "0.0", "plain", 2, "a")
    if answered == "lease_lost":
        log.ended(5.5, "0.0", "plain", 2, "a", outcome=answered)
    else:
        log.ended(2.2, "0.0", "plain", 2, "a")
        log.lost(5.5, "0.0", "plain", 2, "a", kind="committed", why=answered, sent=2.3)
    log.driver(Kind.SIGNAL, 5.4, "SIGTERM", "0.0")
    log.driver(Kind.EXIT, 6.2, "0", "0.0")
    assert log.broken == []


def test_clean_a_commit_without_an_answer_is_none() -> None:
    log = Log(PLAIN)
    log.granted(2, "0.0", "plain", 2, "a")
    log.started(2.1, "0.0", "plain", 2, "a")
    log.ended(2.2, "0.0", "plain", 2, "a")
    log.sent(2.3, "0.0", "plain", 2, "a", kind="committed")
    stops(log)
    assert log.broken == ["clean"]


def traceback(last: str) -> str:
    head = '2026 WARNING failed\nTraceback (most recent call last):\n  File "x.py", line 1, in f\n    f()\n'
    return f"{head}{last}\n2026 INFO\n"


@pytest.mark.parametrize(
    ("last", "broken"),
    [
        ("ValueError: this body raises every other time", []),
        ("asyncio.exceptions.CancelledError", []),
        ("trio.Cancelled: cancelled due to explicit from task <Task 'cancelled'>", []),
        ("ValueError: something else", ["quiet"]),
        ("anyscheduler.errors.RepositoryError: the store failed", ["quiet"]),
    ],
)
def test_quiet_an_unexpected_traceback_is_found(last: str, broken: list[str]) -> None:
    log = Log()
    log.outputs["0.0"] = traceback("ValueError: this body raises every other time") + traceback(last)
    assert log.broken == broken


@pytest.mark.parametrize("secret", [PASSWORD, QUOTED_PASSWORD, "canary"])
def test_quiet_a_password_is_found(secret: str) -> None:
    log = Log()
    log.outputs["0.0"] = f"connected to redis://:{secret}@127.0.0.1\n"
    assert log.broken == ["quiet"]
    log.add(Kind.FAILPOINT, 1, "0.0", detail=secret)
    assert log.broken == ["quiet", "quiet"]


@pytest.mark.parametrize(("what", "more"), [("rss_kib", 70_000), ("connections", 9)])
@pytest.mark.parametrize(
    ("grown", "broken"), [(range(4, 20), []), (range(5, 20), ["quiet"]), (range(8, 12), []), (range(15, 20), ["quiet"])]
)
def test_quiet_a_warm_process_that_grows_and_stays_so_is_found(
    what: str, more: int, grown: range, broken: list[str]
) -> None:
    log = Log()
    for second in range(20):
        log.sample(second, "0.0", **({what: more} if second in grown else {}))
    assert log.broken == broken
