"""Tells one tracker behind the loop's back: in order, again where it failed, never in the way."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from onward.errors import UsageError
from onward.trackers import Row, Tracker
from onward.training.metrics import number

_GATHER_S = 1.0
_RETRY_AFTER_S = 30.0
_MOST_WAITING = 10_000


@dataclass(eq=False)
class Told:
    """The metrics of one step as the loop told them: numbers, or tensors still on their way."""

    seq: int
    step: int
    values: Mapping[str, Any]
    time_s: float

    def row(self) -> Row:
        """As numbers; waits for an accelerator. What is none is left out: saving says so."""
        found = {}
        for name, value in self.values.items():
            try:
                found[name] = number(value, name)
            except UsageError:
                continue
        self.values = found  # a tensor is read once, whoever asks
        return Row(self.step, found, self.time_s)


Job: TypeAlias = Callable[[], None]


class Teller:
    """A thread of its own for each tracker: one that hangs holds up neither training nor others.

    What fails is kept and tried again every half minute; only the first failure is spoken of.
    """

    def __init__(self, tracker: Tracker, *, say: Callable[[str], None]) -> None:
        self.tracker = tracker
        self.done = 0
        """All that has a lower `seq` is told."""
        self._say = say
        self._waiting: deque[Told | Job] = deque()
        self._change = threading.Condition()
        self._thread: threading.Thread | None = None
        self._hurried = self._closing = self._failing = False
        self._in_hand: list[Told | Job] = []
        self._lost = self._failures = 0

    @property
    def begun(self) -> bool:
        """Whether there was ever anything to tell."""
        return self._thread is not None

    def put(self, what: Told | Job) -> None:
        """Never waits for the tracker."""
        with self._change:
            self._waiting.append(what)
            if len(self._waiting) > _MOST_WAITING:
                self._forget_one()
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, name=f"onward-{self.tracker.name}", daemon=True
                )
                self._thread.start()

    def flush(self, timeout_s: float) -> bool:
        """Tells all that waits, now; False where the tracker fails, or the time is over."""
        with self._change:
            failures = self._failures
            self._hurried = True
            self._change.notify_all()
            self._change.wait_for(
                lambda: self._failures > failures or not (self._waiting or self._in_hand),
                timeout_s,
            )
            return not (self._waiting or self._in_hand)

    def close(self, timeout_s: float) -> None:
        """Tells what is left, if that can be done in this time; says what could not."""
        if self._thread is None:
            return
        self.flush(timeout_s)
        with self._change:
            self._closing = True
            self._change.notify_all()
            rows = sum(isinstance(what, Told) for what in (*self._in_hand, *self._waiting))
            all_told = not (self._in_hand or self._waiting or self._lost)
        if all_told:
            self._thread.join()
        else:
            self._say(
                f"{self.tracker.name} was not told everything: {rows + self._lost:,} rows of "
                "metrics are missing there"
            )

    def _work(self) -> None:
        while True:
            with self._change:
                pause_s = _RETRY_AFTER_S if self._failing else _GATHER_S
                self._change.wait_for(lambda: self._hurried or self._closing, pause_s)
                if not self._waiting:
                    self._hurried = False
                    self._change.notify_all()
                    if self._closing:
                        return
                    continue
                if self._failing and self._closing:
                    return
                self._in_hand = list(self._waiting)
                self._waiting.clear()
            left = self._tell(self._in_hand)
            with self._change:
                self._waiting.extendleft(reversed(left))
                self._in_hand = []
                self._hurried = self._hurried and not left
                self._failures += bool(left)
                self._change.notify_all()

    def _tell(self, taken: list[Told | Job]) -> list[Told | Job]:
        """Returns what could not be told, from the first on."""
        at = 0
        try:
            while at < len(taken):
                what = taken[at]
                if isinstance(what, Told):
                    end = at + 1
                    while end < len(taken) and isinstance(taken[end], Told):
                        end += 1
                    run = [told for told in taken[at:end] if isinstance(told, Told)]
                    self.tracker.tell([told.row() for told in run])
                    self.done = run[-1].seq + 1
                    at = end
                else:
                    what()
                    at += 1
        except Exception as error:  # a tracker may raise anything, and must not stop training
            if not self._failing:
                self._say(
                    f"{self.tracker.name} does not take what it is told, training goes on, and "
                    f"it is tried again every {_RETRY_AFTER_S:g} s: {_in_a_line(error)}"
                )
            self._failing = True
            return taken[at:]
        if self._failing:
            self._failing = False
            self._say(f"{self.tracker.name} takes what it is told again")
        return []

    def _forget_one(self) -> None:
        """The oldest row: what is newest matters more, and what is no row must come."""
        for index, what in enumerate(self._waiting):
            if isinstance(what, Told):
                del self._waiting[index]
                self.done = max(self.done, what.seq + 1)
                self._lost += 1
                return


def _in_a_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}"


def now_s() -> float:
    return time.time()
