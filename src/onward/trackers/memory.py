"""A tracker that keeps what it is told in this process, for notebooks and tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from onward.trackers.base import Row, Series, Status

Curve = dict[int, float]
"""The value at each step."""


@dataclass(slots=True)
class Kept:
    """One series as it was told."""

    series: Series
    curves: dict[str, Curve] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    rewinds: list[tuple[int, int]] = field(default_factory=list)
    """For each time that steps came again: the newest one told before, and that gone back to."""
    status: Status | None = None

    @property
    def newest(self) -> int:
        """The newest step of all curves; -1 for none."""
        return max((step for curve in self.curves.values() for step in curve), default=-1)


class InMemory:
    """Keeps every series by its name. Give the same one to the runs that follow each other."""

    name = "memory"

    def __init__(self) -> None:
        self.kept: dict[str, Kept] = {}
        self.model: dict[str, Curve] = {}
        """The curves over increments."""
        self._at = ""

    def check(self, folder: Path | None) -> None:
        """It works everywhere."""

    def begin(self, series: Series) -> None:
        kept = self.kept.setdefault(series.name, Kept(series))
        if kept.newest > series.goes_on_at:
            kept.rewinds.append((kept.newest, series.goes_on_at))
        for curve in kept.curves.values():
            for step in [step for step in curve if step >= series.step]:
                del curve[step]
        kept.series, kept.status = series, None
        kept.facts.update(series.facts)
        self._at = series.name

    def tell(self, rows: Sequence[Row]) -> None:
        for row in rows:
            for name, value in row.values.items():
                self.kept[self._at].curves.setdefault(name, {})[row.step] = value

    def tell_model(self, rows: Sequence[Row]) -> None:
        for row in rows:
            for name, value in row.values.items():
                self.model.setdefault(name, {})[row.step] = value

    def note(self, facts: Mapping[str, str]) -> None:
        self.kept[self._at].facts.update(facts)

    def end(self, status: Status) -> None:
        self.kept[self._at].status = status
