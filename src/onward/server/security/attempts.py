"""Failed attempts to sign in, by address: guessing is slow."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

_WINDOW_S = 60.0
_ALLOWED = 20
_ADDRESSES = 10_000


class FailedLogins:
    """Counts the failures of the last minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failed: dict[str, deque[float]] = {}

    def note(self, address: str) -> None:
        if len(self._failed) >= _ADDRESSES:
            self._failed.clear()
        self._failed.setdefault(address, deque(maxlen=_ALLOWED)).append(self._clock())

    def too_many(self, address: str) -> bool:
        """Whether this address has to wait. What it sends is then not even looked at."""
        found = self._failed.get(address)
        return found is not None and len(found) == _ALLOWED and self._clock() - found[0] < _WINDOW_S
