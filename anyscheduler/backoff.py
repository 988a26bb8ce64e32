"""How long to wait before a store that failed is asked again, and how often to say so.

Knows: failures and seconds. Must not know: what was asked.
"""

from __future__ import annotations

import random
import time

from anyscheduler.logs import get_logger

logger = get_logger(__name__)


_REMINDER = 300.0
"""After how many seconds an outage that lasts is mentioned again."""


class Outage:
    """Says that the store is gone, each five minutes that it still is, and that it is back; whoever finds out first."""

    def __init__(self) -> None:
        self._failing: set[str] = set()
        self._since: float | None = None
        self._said = 0.0

    def noticed(self, activity: str, error: Exception) -> None:
        """Notes that an activity failed."""
        now = time.monotonic()
        if self._since is None:
            logger.warning("the store failed while %s, will retry until it is back: %s", activity, error)
            self._since = self._said = now
        elif now - self._said >= _REMINDER:
            # With the cause of today, which need not be the one of the beginning.
            logger.warning(
                "the store has failed for %.0f s now, the last time while %s: %s", now - self._since, activity, error
            )
            self._said = now
        self._failing.add(activity)

    def given_up(self, activity: str) -> None:
        """Notes that an activity is not tried any more, which says nothing about the store."""
        self._failing.discard(activity)

    def over(self, activity: str) -> None:
        """Notes that an activity has succeeded."""
        self._failing.discard(activity)
        if self._since is not None and not self._failing:
            logger.warning("the store is back after %.1f s", time.monotonic() - self._since)
            self._since = None


_FIRST = 0.1
_MOST = 5.0


class Backoff:
    """Doubling, jittered delays from 0.1 to 5 seconds, for one activity among those that an outage may hit."""

    def __init__(self, activity: str, outage: Outage) -> None:
        self._activity = activity
        self._outage = outage
        self._delay = 0.0

    def failed(self, error: Exception) -> float:
        """Notes a failure, and returns how many seconds to wait before the next attempt."""
        self._outage.noticed(self._activity, error)
        self._delay = min(_MOST, self._delay * 2 or _FIRST)
        # Full jitter would sometimes not wait at all; half of it spreads processes well enough.
        # Source: "Exponential Backoff And Jitter", AWS Architecture Blog (equal jitter).
        return self._delay * random.uniform(0.5, 1.0)  # noqa: S311  # not a secret

    def succeeded(self) -> None:
        """Notes that the store has answered."""
        self._outage.over(self._activity)
        self._delay = 0.0

    def given_up(self) -> None:
        """Notes that nobody wants it any more."""
        self._outage.given_up(self._activity)
        self._delay = 0.0
