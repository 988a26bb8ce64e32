"""How long to wait before a store that failed is asked again, and how often to say so.

Knows: failures and seconds. Must not know: what was asked.
"""

from __future__ import annotations

import logging
import random

logger = logging.getLogger(__name__)

_FIRST = 0.1
_MOST = 5.0


class Backoff:
    """Doubling, jittered delays from 0.1 to 5 seconds; one log line when the trouble begins and one when it ends."""

    def __init__(self, activity: str) -> None:
        self._activity = activity
        self._delay = 0.0

    def failed(self, error: Exception) -> float:
        """Notes a failure, and returns how many seconds to wait before the next attempt."""
        if not self._delay:
            logger.warning("the store failed while %s, will retry until it is back: %s", self._activity, error)
        self._delay = min(_MOST, self._delay * 2 or _FIRST)
        # Full jitter would sometimes not wait at all; half of it spreads processes well enough.
        # Source: "Exponential Backoff And Jitter", AWS Architecture Blog (equal jitter).
        return self._delay * random.uniform(0.5, 1.0)  # noqa: S311  # not a secret

    def succeeded(self) -> None:
        """Notes that the store answers again."""
        if self._delay:
            logger.warning("the store is back after failing while %s", self._activity)
            self._delay = 0.0
