"""Requests to stop a job: SIGTERM, Ctrl-C, a closed terminal."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any, Self

from onward.errors import Stopped

_LISTENED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class StopSignals:
    """Hears signals from `with` on. While no script runs, they end the job at once by `Stopped`.

    While one does (`guarding`), they are only counted: the agent passes them on.
    """

    def __init__(self) -> None:
        self.heard: list[int] = []
        self.guarding = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in _LISTENED:
            # Somebody who ignores a signal (nohup) means it for the job as well.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, previous if previous is not None else signal.SIG_DFL)
        self._previous.clear()

    @property
    def exit_code(self) -> int:
        """130 if a person pressed Ctrl-C, 75 for other requests to stop, 0 for none."""
        if not self.heard:
            return 0
        return 130 if self.heard[0] == signal.SIGINT else 75

    @property
    def name(self) -> str:
        return signal.Signals(self.heard[0]).name if self.heard else ""

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.heard.append(number)
        if not self.guarding:
            raise Stopped(f"stopped by {self.name}", code=self.exit_code)
