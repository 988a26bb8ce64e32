"""That a password in a log would be noticed."""

from __future__ import annotations

import logging

from tests.canary import Canary


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
