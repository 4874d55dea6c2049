"""What is promised: for each scenario the figures that Onward's strategies must reach."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.learning.figures import FIGURES, values
from benchmarks.learning.reference import JOINT, NONE
from benchmarks.learning.results import Line
from benchmarks.learning.statistics import Mean, mean


@dataclass(frozen=True)
class Target:
    """A method's figure (see `figures.FIGURES`) must be at least `low` and at most `high`."""

    scenario: str
    method: str
    share: float
    figure: str
    low: float = float("-inf")
    high: float = float("inf")

    @property
    def text(self) -> str:
        """Such as `≥ 99.5` or `93.6 – 97.6`."""
        if self.high == float("inf"):
            return f"≥ {self.low:g}"
        if self.low == float("-inf"):
            return f"≤ {self.high:g}"
        return f"{self.low:g} – {self.high:g}"

    def verdict(self, found: Mean) -> str:
        """`met`, if the whole 95 % interval meets it; `met by the mean`, or `MISSED`."""
        if self.low <= found.low and found.high <= self.high:
            return "met"
        return "met by the mean" if self.low <= found.value <= self.high else "MISSED"


def _hsu(method: str, published: float, within: float) -> Target:
    low, high = round(published - within, 2), round(published + within, 2)
    return Target("split-mnist-hsu", method, 1.0, "score", low, high)


TARGETS = (
    Target("fashion-growth", "onward: uniform", 0.1, "of retrain", low=99.5),
    Target("fashion-growth", "onward: uniform", 0.1, "excess forgetting", high=0.5),
    Target("fashion-classes", "onward: uniform", 0.1, "of retrain", low=98.0),
    Target("fashion-classes", "onward: uniform", 0.4, "of retrain", low=99.5),
    Target("fashion-classes", "onward: uniform", 0.1, "excess forgetting", high=1.5),
    Target("fashion-classes", "onward: uniform", 0.4, "excess forgetting", high=1.5),
    Target("fashion-classes", "onward: der++ 1920", 0.2, "of retrain", low=96.0),
    Target("newsgroups-topics", "onward: uniform", 0.2, "of retrain", low=93.0),
    Target("newsgroups-topics", "onward: uniform", 0.4, "of retrain", low=97.0),
    Target("movielens-window", "onward: uniform", 0.1, "of retrain", high=100.0),
    Target("movielens-window", "onward: uniform", 0.1, "excess forgetting", high=0.6),
    Target("split-mnist", "onward: der++ 1000", 1.0, "score", low=92.5),
    Target("split-mnist", "onward: er 1000", 1.0, "score", low=89.5),
    Target("split-mnist", NONE, 1.0, "score", low=19.0, high=21.0),
    Target("split-mnist", JOINT, 1.0, "score", low=95.5),
    _hsu("onward: er 4400", 95.59, 1.0),
    _hsu("onward: er 1100", 90.78, 1.0),
    _hsu("onward: ewc", 19.80, 2.0),
    _hsu("onward: si", 19.67, 2.0),
)


def judged(lines: list[Line]) -> Iterator[tuple[Target, Mean | None, int]]:
    """Each target whose scenario was run, with what was measured and over how many seeds."""
    for scenario in dict.fromkeys(line.scenario for line in lines):
        of_scenario = [line for line in lines if line.scenario == scenario]
        for target in TARGETS:
            if target.scenario == scenario:
                found = values(of_scenario, target.method, share=target.share, figure=target.figure)
                yield target, mean(found) if found else None, len(found)


assert all(target.figure in FIGURES for target in TARGETS)
