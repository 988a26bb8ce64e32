"""That a password in a log would be noticed."""

from __future__ import annotations

import logging

import pytest

from tests.canary import Canary
from tests.conftest import pytest_runtest_makereport


def test_a_password_in_a_line_or_in_its_traceback_is_noticed() -> None:
    canary = Canary()
    logger = logging.getLogger("tests.apart")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    logger.addHandler(canary)

    logger.info("connecting to %s", "redis://:***@host")
    assert canary.leaks == []
    logger.info("connecting to %s", "redis://:canary-1@host")
    logger.info("it failed", exc_info=ValueError("postgresql://app:canary-2@host/db"))

    assert len(canary.leaks) == 2
    assert "connecting to redis://:canary-1@host" in canary.leaks[0]
    assert "canary-2" in canary.leaks[1]


@pytest.mark.parametrize(
    ("name", "outcome"),
    [("Captured stdout call", "failed"), ("Captured stderr teardown", "failed"), ("Captured log call", "passed")],
)
def test_a_password_in_the_output_of_a_test_fails_it_and_one_in_its_log_is_left_to_those_who_listen(
    name: str, outcome: str
) -> None:
    report = pytest.TestReport("test", ("file", 1, "test"), {}, "passed", None, "call", [(name, "a\ncanary-3")])
    hook = pytest_runtest_makereport()
    next(hook)

    with pytest.raises(StopIteration) as ended:
        hook.send(report)

    assert ended.value.value.outcome == outcome
    assert report.longrepr == (None if outcome == "passed" else "a password was written:\ncanary-3")
