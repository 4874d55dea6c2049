"""Requests to stop a job: SIGTERM, Ctrl-C, a closed terminal."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

from onward.errors import Stopped

_LISTENED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class StopSignals:
    """Hears signals from `with` on, in the main thread, while another thread does the work.

    As long as no script runs, a request to stop means to leave everything as it is, at once:
    `abandoned`. While one does (`guard`), requests are only counted, and the work passes them on.
    """

    def __init__(self) -> None:
        self.heard: list[int] = []
        """Requests, as signals: those that came as one, and those that came by `request`."""
        self.killing = False
        self.abandoned = False
        self.signals = 0
        """How many of `heard` came as signals."""
        self._requested = False
        self._guarding = False
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
            if self.heard and number == signal.SIGINT:
                # The process is about to end: one more Ctrl-C must not change how.
                previous = signal.SIG_IGN
            signal.signal(number, previous if previous is not None else signal.SIG_DFL)
        self._previous.clear()

    @contextmanager
    def guard(self) -> Iterator[None]:
        """A script is being run. Raises `Stopped` if it must not be started any more."""
        self._guarding = True
        try:
            # After the line above: a request either abandons the work or is seen here.
            if self.heard:
                raise self.stopped()
            yield
        finally:
            self._guarding = False

    def request(self, what: str) -> None:
        """What was asked for in another way than by a signal: `stop`, `kill`, or nothing.

        Repeating it changes nothing; and unlike one more signal, it never breaks off a last push.
        """
        self.killing = self.killing or what == "kill"
        if what and not self._requested:
            self._requested = True
            self._hear(signal.SIGTERM)

    def stopped(self) -> Stopped:
        return Stopped(f"stopped by {self.name}", code=self.exit_code)

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
        self.signals += 1
        self._hear(number)

    def _hear(self, number: int) -> None:
        self.heard.append(number)
        if not self._guarding:
            self.abandoned = True
