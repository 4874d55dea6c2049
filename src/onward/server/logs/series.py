"""Metrics of a job as series over its steps, from what all of its attempts told.

An attempt that goes on from a checkpoint trains some steps again: what it says of them replaces
what was said before. A series of many points is shown by fewer, and peaks stay in it.
"""

from __future__ import annotations

import os
import threading
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onward.server.logs.events import open_events, read_events
from onward.server.logs.finding import Place

_BLOCK = 1 << 20
_MOST_POINTS = 2_000_000
_MOST_NAMES = 200

Points = list[tuple[int, float | None]]


@dataclass(slots=True)
class _Told:
    """What one attempt told so far: for each name, steps and values."""

    offset: int = 0
    first_step: int | None = None
    steps: dict[str, array[int]] = field(default_factory=dict)
    values: dict[str, array[float]] = field(default_factory=dict)
    points: int = 0

    def hear(self, event: dict[str, Any]) -> None:
        step, metrics = event.get("step"), event.get("metrics")
        if event.get("kind") != "training" or not isinstance(step, int):
            return
        if not 0 <= step < 2**62:
            return
        if self.first_step is None:
            self.first_step = step
        for name, value in metrics.items() if isinstance(metrics, dict) else ():
            if isinstance(value, bool) or not isinstance(value, int | float | None):
                continue
            if name not in self.steps:
                if len(self.steps) >= _MOST_NAMES:
                    continue
                self.steps[name], self.values[name] = array("q"), array("d")
            steps = self.steps[name]
            if steps and step <= steps[-1]:
                if step == steps[-1]:
                    self.values[name][-1] = _number(value)
                continue
            steps.append(step)
            self.values[name].append(_number(value))
            self.points += 1


class SeriesCache:
    """Series of the jobs that were looked at last. What is told is read once, as it grows."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told: OrderedDict[Path, _Told] = OrderedDict()

    def series(
        self, places: Sequence[Place], *, names: Sequence[str] = (), first: int = 0,
        last: int = 2**62, points: int = 500,
    ) -> dict[str, Points]:  # fmt: skip
        """By name, the points from step `first` to step `last`, about `points` of each at most.

        A value that was not finite is None.
        """
        with self._lock:
            told = [self._hear(place.folder) for place in places]
            self._forget({place.folder for place in places})
            found: dict[str, Points] = {}
            for name in sorted({name for each in told for name in each.steps}):
                if not names or name in names:
                    found[name] = _reduced(*_joined(told, name, first, last), points)
            return found

    def _hear(self, folder: Path) -> _Told:
        told = self._told.pop(folder, None) or _Told()
        self._told[folder] = told
        fd = open_events(folder)
        if fd is None:
            return told
        try:
            while told.points < _MOST_POINTS:
                events, following = read_events(fd, told.offset, _BLOCK)
                for event in events:
                    told.hear(event)
                if following == told.offset:
                    break
                told.offset = following
        finally:
            os.close(fd)
        return told

    def _forget(self, used: set[Path]) -> None:
        total = sum(told.points for told in self._told.values())
        for folder in list(self._told):
            if total <= _MOST_POINTS or folder in used:
                return
            total -= self._told.pop(folder).points


def _joined(
    told: Sequence[_Told], name: str, first: int, last: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    steps: list[NDArray[np.int64]] = []
    values: list[NDArray[np.float64]] = []
    before = last + 1
    # From the newest attempt back: an older one counts up to where a newer one began.
    for each in reversed(told):
        if name in each.steps:
            own = np.frombuffer(each.steps[name], np.int64)
            part = slice(*np.searchsorted(own, (first, max(first, before))))
            # Copies: an array that is looked at cannot grow.
            steps.insert(0, own[part].copy())
            values.insert(0, np.frombuffer(each.values[name], np.float64)[part].copy())
        if each.first_step is not None:
            before = min(before, each.first_step)
    return np.concatenate([np.empty(0, np.int64), *steps]), np.concatenate([np.empty(0), *values])


def _reduced(steps: NDArray[np.int64], values: NDArray[np.float64], most: int) -> Points:
    """The first and the last, and of each stretch between them the lowest and the highest."""
    chosen = list(range(len(steps))) if len(steps) <= most else []
    if len(steps) > most:
        count = max(1, (most - 2) // 2)
        edges = np.linspace(1, len(steps) - 1, count + 1).astype(int)
        found = {0, len(steps) - 1}
        for start, end in pairwise(edges):
            stretch = values[start:end]
            if start == end or np.isnan(stretch).all():
                found.add(int(start))
            else:
                found |= {int(start + np.nanargmin(stretch)), int(start + np.nanargmax(stretch))}
        chosen = sorted(found)
    return [(int(steps[at]), None if np.isnan(values[at]) else float(values[at])) for at in chosen]


def _number(value: float | None) -> float:
    # Infinite is as little a point of a curve as what is no number.
    number = float("nan") if value is None else float(value)
    return number if abs(number) != float("inf") else float("nan")
