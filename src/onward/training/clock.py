"""How long an increment has trained, over all processes that worked on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from onward.training.reporting import monotonic_s


class Clock:
    """Seconds of training; what only looks (scoring holdouts, filling memories) is left out."""

    def __init__(self, *, now_s: Callable[[], float] = monotonic_s) -> None:
        self.before_s = 0.0
        """Of this increment, in earlier processes."""
        self._now_s = now_s
        self._began_s = now_s()
        self._stopped_s = 0.0

    def elapsed_s(self) -> float:
        """Since the increment began."""
        return self.before_s + self._now_s() - self._began_s - self._stopped_s

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Time in here does not count."""
        began_s = self._now_s()
        try:
            yield
        finally:
            self._stopped_s += self._now_s() - began_s
