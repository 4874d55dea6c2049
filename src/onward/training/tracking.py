"""What trackers are told of a run: when, on which step axis, and from where on after a kill.

The axis is `Run.global_step`, which grows over the model's whole life. A metric of `run.step` is
told once in every so many steps, at the first step of each such stretch; those of `run.log` and
`run.evaluate` are told each time. A checkpoint remembers what was told and what was not told yet,
so that a run that goes on from it tells the very steps that a run without a break would have.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

from onward.errors import UsageError
from onward.repository import Commit
from onward.repository.records import Scores
from onward.trackers import Row, Series, Tracker
from onward.trackers.base import Status
from onward.training.telling import Teller, Told, now_s

EVERY_STEPS = 10
_LAST_WORDS_S = 10.0
_MOST_KEPT = 1000
"""Rows that a checkpoint remembers as not told yet."""


class Tracking:
    """Between a run and its trackers; with none it does nothing, at next to no cost."""

    def __init__(
        self,
        trackers: Sequence[Tracker] = (),
        *,
        every_steps: int = EVERY_STEPS,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        if every_steps < 1:
            raise UsageError(
                f"track_every_steps is {every_steps}", do="give a whole number from 1 on"
            )
        self.status: Status = "killed"
        """How the run ends if it ends now."""
        self._tellers = [Teller(tracker, say=say) for tracker in trackers]
        self._every = every_steps
        self._told: dict[str, int] = {}
        self._seq = count()
        self._recent: deque[Told] = deque()
        self._left_by = ""  # the series that what is not told yet belongs to
        self._series: Series | None = None
        self._model_rows: list[Row] = []
        self._begun = self._ended = False

    def begin(self, series: Series, model_rows: Sequence[Row]) -> None:
        """The run is open, at the step `series.step`. Trackers hear of it with the first row."""
        if not self._tellers:
            return
        if self._left_by != series.name:
            self._recent.clear()  # the rows of another path, whose own series has them
        first = min([series.step, *(told.step for told in self._recent)])
        self._series = replace(series, step=first)
        self._model_rows = list(model_rows)
        for told in self._recent:
            self._put(told)

    # What the loop tells.

    def step(self, step: int, metrics: Mapping[str, Any]) -> None:
        """The metrics of `run.step`, after the optimizer step `step`."""
        if not self._tellers:
            return
        told, every = self._told, self._every
        due = [name for name in metrics if told.get(name, -every) // every != step // every]
        if due:
            self._tell(step, {name: metrics[name] for name in due})

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Metrics that are told each time, but one of a name at one step."""
        if not self._tellers:
            return
        due = {name: value for name, value in metrics.items() if self._told.get(name) != step}
        if due:
            self._tell(step, due)

    def scored(self, step: int, row: Scores | None) -> None:
        """The increment is over and scored: told before the checkpoint that says so exists."""
        if not self._tellers:
            return
        self.log(step, _scores(row))
        self.flush(_LAST_WORDS_S)

    def flush(self, timeout_s: float) -> bool:
        """Waits until trackers know everything; False where one does not within this time."""
        told = [teller.flush(timeout_s) for teller in self._tellers]  # each, whatever another did
        return all(told)

    def saved(self, commit: Commit, learning: Callable[[], Mapping[str, Any]]) -> None:
        """A checkpoint exists."""
        if not self._begun:
            return
        facts = {
            "checkpoint": commit.checkpoint,
            "checkpoint.step": str(commit.step),
        }
        known = learning()
        if known.get("new") is not None:
            facts["data"] = f"{known['new']:,} new, {known['known']:,} known"
        if commit.row is not None and commit.row.verdict:
            facts["verdict"] = commit.row.verdict
        rows = [Row(commit.step, model_values(commit), now_s())] if commit.finished else []
        for teller in self._tellers:
            teller.put(_noting(teller.tracker, facts))
            if rows:
                teller.put(_telling_model(teller.tracker, rows))

    def end(self) -> None:
        """Nothing more comes: tells what is left, but does not wait for long."""
        if self._ended:
            return
        self._ended = True
        atexit.unregister(self._at_exit)
        if not self._begun:
            return
        for teller in self._tellers:
            teller.put(_ending(teller.tracker, self.status))
        for teller in self._tellers:
            teller.close(_LAST_WORDS_S)

    # What a checkpoint remembers.

    def about(self, step: int) -> dict[str, Any]:
        """For the checkpoint at `step`: its trackers' state, or nothing where there are none."""
        if not self._tellers:
            return {}
        self._forget_told(step)
        rows = [told.row() for told in list(self._recent)[-_MOST_KEPT:]]
        untold = [
            [row.step, row.time_s, {name: repr(value) for name, value in row.values.items()}]
            for row in rows
        ]
        name = self._series.name if self._series is not None else ""
        return {"tracking": {"series": name, "told": dict(self._told), "untold": untold}}

    def go_on_from(self, about: Mapping[str, Any]) -> None:
        """Takes up what `about` said when the checkpoint of a resumed increment was made."""
        if not self._tellers:
            return
        self._left_by = str(about.get("series") or "")
        self._told = {str(name): int(step) for name, step in (about.get("told") or {}).items()}
        self._recent = deque(
            Told(next(self._seq), int(step), {str(n): float(v) for n, v in values.items()}, time_s)
            for step, time_s, values in about.get("untold") or ()
        )

    # Details.

    def _tell(self, step: int, values: Mapping[str, Any]) -> None:
        self._told.update(dict.fromkeys(values, step))
        told = Told(next(self._seq), step, {n: _kept(v) for n, v in values.items()}, now_s())
        self._recent.append(told)
        if len(self._recent) > 2 * _MOST_KEPT:
            self._forget_told(step)
        self._put(told)

    def _put(self, told: Told) -> None:
        if not self._begun:
            assert self._series is not None
            self._begun = True
            atexit.register(self._at_exit, os.getpid())
            for teller in self._tellers:
                teller.put(_beginning(teller.tracker, self._series))
                if self._model_rows:
                    teller.put(_telling_model(teller.tracker, self._model_rows))
        for teller in self._tellers:
            teller.put(told)

    def _forget_told(self, step: int) -> None:
        """Keeps the rows of `step`, which may come again, and all from the first untold step on.

        Whole steps, so that a tracker can take back all that it has from some step on.
        """
        recent = self._recent
        done = min(teller.done for teller in self._tellers)
        first = next((told.step for told in recent if told.seq >= done), step)
        while recent and recent[0].step < min(first, step):
            recent.popleft()

    def _at_exit(self, process: int) -> None:
        """For a script that ends without `finish`, `close` or a `with` block."""
        if os.getpid() != process:
            return
        if getattr(sys, "last_value", None) is not None:
            self.status = "failed"
        self.end()


def model_values(commit: Commit) -> dict[str, float]:
    """What the model's own curves show of a finished checkpoint."""
    metrics = {name: value for name, value in commit.metrics.items() if value is not None}
    return {**metrics, **_scores(commit.row)}


def _scores(row: Scores | None) -> dict[str, float]:
    after = row.after if row is not None else {}
    return {f"holdout/{name}": value for name, value in after.items() if value is not None}


def _kept(value: Any) -> Any:
    """`value` as it is now: a number, or a tensor of its own on an accelerator.

    Training never waits for it: a tensor is read by the thread that tells it.
    """
    detach = getattr(value, "detach", None)
    if detach is None:
        return value
    tensor = detach()
    # A loop may add up a loss in place, or reuse its memory: what was told must not change.
    if getattr(tensor, "is_cpu", False) and tensor.numel() == 1:
        return tensor.item()
    clone = getattr(tensor, "clone", None)
    return tensor if clone is None else clone()


def _beginning(tracker: Tracker, series: Series) -> Callable[[], None]:
    return lambda: tracker.begin(series)


def _telling_model(tracker: Tracker, rows: Sequence[Row]) -> Callable[[], None]:
    return lambda: tracker.tell_model(rows)


def _noting(tracker: Tracker, facts: Mapping[str, str]) -> Callable[[], None]:
    return lambda: tracker.note(facts)


def _ending(tracker: Tracker, status: Status) -> Callable[[], None]:
    return lambda: tracker.end(status)
