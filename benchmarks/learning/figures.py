"""The numbers that are read out of measured lines; those beside a full retrain are paired by seed.

- `score`: accuracy in percent, RMSE, or for a sequence ACC, the mean accuracy over its stages in
  the end (Lopez-Paz and Ranzato 2017)
- `of retrain`: the score in percent of the full retrain's (an RMSE below 100 % is better)
- `old`: the score on the base's holdout
- `excess forgetting`: how much worse than the full retrain on the base's holdout, in points of
  accuracy, or percent of RMSE. A plain drop since the base overstates forgetting: telling more
  classes apart is harder for everyone
"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.learning.reference import RETRAIN
from benchmarks.learning.results import Line, by_method

RATED_BY_ERROR = ("movielens-window",)
OLD = "holdout 1"


def _excess(line: Line, retrain: Line) -> float:
    ours, full = line.metrics[OLD], retrain.metrics[OLD]
    return 100 * (ours / full - 1) if line.scenario in RATED_BY_ERROR else full - ours


ALONE: dict[str, Callable[[Line], float]] = {
    "score": lambda line: line.metrics["score"],
    "old": lambda line: line.metrics[OLD],
    "seconds": lambda line: line.seconds,
}
PAIRED: dict[str, Callable[[Line, Line], float]] = {
    "of retrain": lambda line, full: 100 * line.metrics["score"] / full.metrics["score"],
    "excess forgetting": _excess,
}
FIGURES = (*ALONE, *PAIRED)


def values(lines: list[Line], method: str, *, share: float, figure: str) -> list[float]:
    """One value a seed; for a paired figure of those seeds for which a retrain was run too."""
    methods = by_method(lines)
    found = methods.get((method, share), {})
    if figure in ALONE:
        return [ALONE[figure](found[seed]) for seed in sorted(found)]
    full = methods.get((RETRAIN, 1.0), {})
    return [PAIRED[figure](found[seed], full[seed]) for seed in sorted(found.keys() & full.keys())]
