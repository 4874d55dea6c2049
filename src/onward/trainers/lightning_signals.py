"""SIGTERM and Ctrl-C while Lightning trains: Onward's handlers, and nobody else's.

Lightning's own handler ends the process with status 0 after the next batch, which may be among
accumulated gradients, and before anything is saved. Onward's saves first and ends with 75.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from typing import Any

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Handlers:
    """Who hears the signals: before the output was open, and while it is."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._before: dict[int, Any] = {}
        self._ours: dict[int, Any] = {}

    @contextmanager
    def replaced(self) -> Iterator[None]:
        """Within this, the handlers are set that `listen` shall set again."""
        self._before = _current()
        yield
        self._ours = _current()

    def listen(self) -> None:
        """Sets Onward's handlers in place of those that Lightning has set since."""
        if current_thread() is main_thread():
            for number, handler in self._ours.items():
                signal.signal(number, handler)
        # One that came meanwhile was heard by both; the run obeys it at the next step.
        self._trainer._signal_connector.received_sigterm = False
        self.give_back()

    def give_back(self) -> None:
        """Lets Lightning, when it is through, restore what was there before the output was open."""
        kept = self._trainer._signal_connector._original_handlers
        for number, handler in self._before.items():
            if number in kept:
                kept[number] = handler


def _current() -> dict[int, Any]:
    return {number: signal.getsignal(number) for number in _SIGNALS}
