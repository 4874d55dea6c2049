"""Statistics of two models on the same items: is the second worse, better, not worse than a margin?

Only paired tests are here: what both models get right or wrong says nothing about which is better,
and much about the items. All p-values are one-sided.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from onward.data.order import Indices, permutation

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

RESAMPLES = 4_000
_MAX_GROUPS = 10_000
_DRAWS_AT_ONCE = 1 << 16
_CONTINUITY = 0.5


@dataclass(frozen=True, slots=True)
class Comparison:
    """How a candidate does against a champion; a positive `difference` is in its favour.

    `units` are what was drawn independently: clusters, else items; `exact` says that `p_worse` and
    `p_better` hold for however few of them. `lower` and `upper` bound the
    difference, each with error `level`. `p_worse` is against "not worse", `p_better` against "not
    better", `p_inferior` against "worse by the margin or more".
    """

    items: int
    units: int
    difference: float
    standard_error: float
    lower: float
    upper: float
    p_worse: float
    p_better: float
    p_inferior: float
    exact: bool = False


def compare_answers(
    champion: Bools, candidate: Bools, *, margin: float, level: float
) -> Comparison:
    """Compares two models by which items they get right; items are independent of each other.

    Worse or better: McNemar's test (1947) in its exact form, a binomial test on the items that one
    model gets right and the other does not. Not worse than the margin, and the bounds: the score
    test of Tango (Statistics in Medicine 17, 1998, 891-908) with half an item's correction for
    continuity. Without the correction its error passes 5 % where few answers differ (6.0 % at 300
    items and a margin of 2 points); with it, it stays below for 300 items or more.
    """
    items = len(champion)
    lost = int(np.count_nonzero(champion & ~candidate))
    won = int(np.count_nonzero(candidate & ~champion))
    difference = (won - lost) / items
    variance = max((won + lost) / items - difference**2, 0.0)
    return Comparison(
        items=items,
        units=items,
        difference=difference,
        standard_error=math.sqrt(variance / items),
        lower=score_bound(won, lost, items, level=level),
        upper=-score_bound(lost, won, items, level=level),
        p_worse=binomial_tail(lost, won + lost),
        p_better=binomial_tail(won, won + lost),
        p_inferior=normal_tail(score(won, lost, items, margin=margin)),
        exact=True,
    )


def binomial_tail(successes: int, trials: int) -> float:
    """The chance of at least so many heads in so many tosses of a fair coin."""
    if successes <= 0:
        return 1.0
    # log C(trials, k) for k = 0 … trials, without factorials that no float can hold
    k = np.arange(1, trials + 1)
    logs = np.concatenate([[0.0], np.cumsum(np.log((trials - k + 1) / k))])
    return min(float(np.exp(logs[successes:] - trials * math.log(2)).sum()), 1.0)


def normal_tail(z: float) -> float:
    """The chance that a standard normal variable is above `z`."""
    return 0.5 * math.erfc(z / math.sqrt(2))


def score(won: int, lost: int, items: int, *, margin: float) -> float:
    """Tango's statistic against "the candidate is worse by `margin`", continuity corrected.

    `margin` is a share of the items, in -1 … 1; large values speak for the candidate. The variance
    is that under the hypothesis: the share of items that only the candidate gets right is its
    maximum likelihood estimate given that the share which only the champion gets right is larger
    by `margin` (equation 6 there, a quadratic).
    """
    b = won + lost - (2 * items + won - lost) * margin
    root = math.sqrt(max(b * b + 8 * items * won * margin * (1 - margin), 0.0))
    share = (b + root) / (4 * items)
    variance = items * (2 * share + margin * (1 - margin))
    over = won - lost + items * margin - _CONTINUITY
    if variance <= 0:
        return math.copysign(math.inf, over)
    return over / math.sqrt(variance)


def score_bound(won: int, lost: int, items: int, *, level: float) -> float:
    """The lower bound of the difference: what is below it, `score` rejects at `level`."""
    wanted = NormalDist().inv_cdf(1 - level)
    low, high = -1.0, 1.0  # of the margin; the statistic grows with it
    for _ in range(60):
        middle = (low + high) / 2
        if score(won, lost, items, margin=middle) > wanted:
            high = middle
        else:
            low = middle
    return -high


def compare_numbers(
    gains: Floats, clusters: Indices | None, *, margin: float, level: float, seed: int
) -> Comparison:
    """Compares two models by a number for each item: how much better the candidate's is.

    `gains`: float64 [items], positive where the candidate is better. The studentized bootstrap
    (Davison & Hinkley, Bootstrap Methods and their Application, 1997, section 5.2) of the mean
    gain, 4,000 resamples of whole `clusters` (their section 3.8), else of items. `seed` decides
    the resamples, so that the same evidence always has the same verdict. Of more than 10,000
    clusters, chance puts some together first, which leaves their mean and its error as they are.
    """
    scale = float(np.max(np.abs(gains))) or 1.0  # squares of very large numbers overflow
    sums, sizes = _summed(gains / scale, clusters)
    units = len(sums)
    sums, sizes = _grouped(sums, sizes, seed)
    columns = np.stack([sums, sizes, sums * sums, sums * sizes, sizes * sizes], axis=1)
    means, errors = _of_totals(columns.sum(axis=0)[None], len(sums))
    mean, error = float(means[0]), float(errors[0])
    studentized = np.sort(_studentized(columns, mean, seed))

    def chance_above(value: float) -> float:
        """The chance of a gain so far above `value` if the true one is no more than that."""
        if error == 0:
            return 0.0 if mean > value else 1.0
        above = len(studentized) - np.searchsorted(studentized, (mean - value) / error, "left")
        return float(above + 1) / (len(studentized) + 1)

    def chance_below(value: float) -> float:
        if error == 0:
            return 0.0 if mean < value else 1.0
        below = np.searchsorted(studentized, (mean - value) / error, "right")
        return float(below + 1) / (len(studentized) + 1)

    beyond = max(math.floor(level * (len(studentized) + 1)), 1)
    return Comparison(
        items=len(gains),
        units=units,
        difference=mean * scale,
        standard_error=error * scale,
        lower=_bound(mean, float(studentized[-beyond]), error) * scale,
        upper=_bound(mean, float(studentized[beyond - 1]), error) * scale,
        p_worse=chance_below(0.0),
        p_better=chance_above(0.0),
        p_inferior=chance_above(-margin / scale),
    )


def _bound(mean: float, quantile: float, error: float) -> float:
    return mean - quantile * error if error else mean


def _summed(gains: Floats, clusters: Indices | None) -> tuple[Floats, Floats]:
    if clusters is None:
        return gains, np.ones(len(gains))
    _, which = np.unique(clusters, return_inverse=True)
    return _totals(which, gains), _totals(which, np.ones(len(gains)))


def _grouped(sums: Floats, sizes: Floats, seed: int) -> tuple[Floats, Floats]:
    if len(sums) <= _MAX_GROUPS:
        return sums, sizes
    groups = permutation(len(sums), seed) % _MAX_GROUPS
    return _totals(groups, sums), _totals(groups, sizes)


def _totals(groups: npt.NDArray[np.integer[Any]], values: Floats) -> Floats:
    return np.bincount(groups, values).astype(np.float64, copy=False)


def _of_totals(totals: Floats, units: int) -> tuple[Floats, Floats]:
    """The mean gain of an item and its standard error, for each row of totals over clusters.

    A row has the totals of gain, size, gain², gain times size, size²; the mean is a ratio of sums.
    """
    gain, size, gain_gain, gain_size, size_size = totals.T
    mean = gain / size
    squares = gain_gain - 2 * mean * gain_size + mean**2 * size_size
    # What rounding leaves of a sum of squares that is nought is nought.
    squares = np.where(squares > 1e-12 * gain_gain, squares, 0.0)
    correction = units / max(units - 1, 1)
    errors: Floats = np.sqrt(squares * correction) / size
    return mean, errors


def _studentized(columns: Floats, mean: float, seed: int) -> Floats:
    """(resampled mean - mean) / resampled error; infinite where a resample shows no spread."""
    units = len(columns)
    stream = np.random.Philox(key=seed)
    at_once = max(_DRAWS_AT_ONCE // units, 1)
    offsets = np.repeat(np.arange(at_once, dtype=np.uint64) * np.uint64(units), units)
    totals = np.empty((RESAMPLES, columns.shape[1]))
    for first in range(0, RESAMPLES, at_once):
        # Half a raw word for each draw, scaled to the number of units.
        words = stream.random_raw((units * at_once + 1) // 2).view(np.uint32)[: units * at_once]
        drawn = ((words.astype(np.uint64) * np.uint64(units)) >> np.uint64(32)) + offsets
        times = np.bincount(drawn.view(np.int64), minlength=units * at_once)
        found = times.reshape(at_once, units).astype(np.float64) @ columns
        totals[first : first + at_once] = found[: RESAMPLES - first]
    means, errors = _of_totals(totals, units)
    away = means - mean
    away = np.where(np.abs(away) > 1e-12, away, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        studentized = away / errors
    return np.where(np.isnan(studentized), 0.0, studentized)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """p-values adjusted for their number, so that no false rejection has a chance above the level.

    SOURCE: Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of
    Statistics 6 (1979), 65-70.
    """
    adjusted: dict[str, float] = {}
    worst = 0.0
    ordered = sorted(p_values.items(), key=lambda pair: pair[1])
    for position, (name, p_value) in enumerate(ordered):
        worst = max(worst, min(1.0, p_value * (len(ordered) - position)))
        adjusted[name] = worst
    return {name: adjusted[name] for name in p_values}
