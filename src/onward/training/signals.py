"""Being asked to stop: SIGTERM and Ctrl-C become a flag that the loop obeys at a step's end."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class StopRequests:
    """Listens from `install` to `remove`. Outside of the main thread it hears nothing.

    The first signal sets `requested`; a second Ctrl-C interrupts at once, as without Onward.
    """

    def __init__(self) -> None:
        self.requested = ""
        self._previous: dict[int, Any] = {}

    @property
    def exit_code(self) -> int:
        """75: run the same command again to go on. 130: a person pressed Ctrl-C."""
        return 130 if self.requested == "SIGINT" else 75

    def install(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._on_signal)

    def remove(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number, previous in self._previous.items():
            signal.signal(number, previous if previous is not None else signal.SIG_DFL)
        self._previous.clear()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = self.requested or signal.Signals(number).name
