"""The thread of an agent that pushes while the script runs, and once more when it has ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from onward.errors import Indeterminate, OnwardError, StoreError, Unreachable
from onward.jobs.display import Display
from onward.jobs.open_files import FileId
from onward.jobs.output import JobOutput
from onward.training.lag import LagNotices, lag_text, waiting_text

_QUIET_S = 0.5
_LOOK_EVERY_S = 1.0


class Pushing:
    """Pushes in log order, every `every_s`; a store that stays away only delays it.

    What can never be pushed is `failure`, found while the script still runs: then it should be
    ended. After `finish` the last push is tried for `last_push_s`.
    """

    def __init__(
        self,
        output: JobOutput,
        display: Display,
        open_files: Callable[[], set[FileId]],
        *,
        every_s: float = 0.5,
        last_push_s: float = 120.0,
    ) -> None:
        self.failure: OnwardError | None = None
        self._output = output
        self._display = display
        self._open_files = open_files
        self._every_s = every_s
        self._last_push_s = last_push_s
        self._ended = threading.Event()
        self._in_order = False
        self._notices = LagNotices()
        self._next_look_s = 0.0
        self._behind = ""
        self._thread = threading.Thread(target=self._work, name="onward-push", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def look(self) -> str:
        """The lag in words, or ''; said aloud when it grows. Called while the script is watched."""
        now_s = time.monotonic()
        if now_s >= self._next_look_s:
            self._next_look_s = now_s + _LOOK_EVERY_S
            lag = self._output.lag()
            self._behind = lag_text(lag)
            notice = self._notices.about(lag)
            if notice:
                self._display.say(notice)
        return self._behind

    def finish(self, *, in_order: bool, abandon: Callable[[], bool]) -> None:
        """Waits for the last push, or until `abandon` says so; `failure` tells how it went."""
        self._in_order = in_order
        self._ended.set()
        self._thread.join(_QUIET_S)
        if self._thread.is_alive() and (lag := self._output.lag()).checkpoints:
            self._display.say(waiting_text(lag))
        while self._thread.is_alive():
            self._thread.join(0.05)
            if abandon():
                # It may die at any point: the next command pushes what is left.
                self.failure = self.failure or StoreError("the last push was interrupted")
                return

    def _work(self) -> None:
        try:
            delayed = False
            while not self._ended.wait(self._every_s):
                try:
                    self._output.push(self._open_files)
                    delayed = False
                except (StoreError, Indeterminate) as error:
                    if not delayed:
                        self._display.say(f"pushing is delayed, training goes on: {error.what}")
                    delayed = True
            self._push_rest()
        except OnwardError as error:
            self.failure = error
        except Exception as error:
            self.failure = StoreError("pushing failed", why=f"{type(error).__name__}: {error}")
            self.failure.__cause__ = error

    def _push_rest(self) -> None:
        end_s = time.monotonic() + self._last_push_s
        while True:
            try:
                self._output.push_rest(in_order=self._in_order)
                return
            except (Unreachable, Indeterminate) as error:
                if time.monotonic() >= end_s:
                    raise
                self._display.say(f"the last push is delayed, trying again: {error.what}")
                time.sleep(min(2.0, max(0.0, end_s - time.monotonic())))
