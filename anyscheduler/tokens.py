"""Drawing fence tokens.

Knows: the clock and randomness, which `lease.py` must not. Must not know: what a token is drawn for.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from anyscheduler.lease import new_token

if TYPE_CHECKING:
    from collections.abc import Callable


class TokenSource:
    """Draws tokens, each greater than the one before: also when the clock stands still, or is set back."""

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self._last = 0

    def __call__(self) -> str:
        """Returns a token that nobody else has."""
        self._last = max(self._now(), self._last + 1)
        return new_token(self._last, random.getrandbits(64))
