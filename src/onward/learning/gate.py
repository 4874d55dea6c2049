"""The gate: may this candidate take the champion's place?

Both were scored on the same frozen items, so they are compared item by item (`paired.py`). A
candidate passes when it is shown to be no worse than the champion by a margin, on every holdout. To
fail to show that it is worse is not enough: few items show nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any, Literal, TypeAlias

import numpy as np

from onward.data.items import locate
from onward.data.order import Indices, derive_seed
from onward.errors import DataChanged, DataError, UsageError
from onward.learning.evidence import Evidence
from onward.learning.holdouts import Holdout, Outcomes, mean_of
from onward.learning.paired import Comparison, compare_answers, compare_numbers, holm

MARGIN = 0.01
LEVEL = 0.05
MIN_ITEMS = 300
MIN_CLUSTERS = 30

Word: TypeAlias = Literal["better", "no change", "worse within noise", "regression", "insufficient"]
"""What the gate says of a holdout, and of all of them together.

better              the champion is worse, beyond chance; and nothing is lost
no change           worse by less than the margin at most, which is shown
worse within noise  seems worse; neither that it is, nor that it is not, can be shown
regression          worse, beyond chance, and not shown to be within the margin
insufficient        too few items to show anything, or not scored
"""

# What the worst holdout is, all of them are.
_WORST_FIRST: tuple[Word, ...] = (
    "regression", "worse within noise", "insufficient", "no change", "better"
)  # fmt: skip


@dataclass(frozen=True)
class Judged:
    """One holdout under the gate.

    `champion` and `candidate` are scores; `against` is what the candidate was compared with: the
    champion, or for a holdout that it does not know, the model that the increment went on from.
    `margin` is in the unit of the score. p-values of `comparison` are as they are; `p_worse` and
    `p_better` are adjusted for the number of holdouts.
    """

    name: str
    verdict: Word
    why: str
    new: bool
    metric: str
    against: str = ""
    champion: float | None = None
    candidate: float | None = None
    margin: float | None = None
    comparison: Comparison | None = None
    p_worse: float | None = None
    p_better: float | None = None


@dataclass(frozen=True)
class Verdict:
    """What the gate says, with its reasons."""

    verdict: Word
    champion: str
    candidate: str
    margin: float
    relative_margin: float | None
    level: float
    holdouts: Sequence[Judged]

    @property
    def passed(self) -> bool:
        """Whether the candidate may become the champion."""
        return self.verdict in ("better", "no change")

    @property
    def text(self) -> str:
        """One line, for the checkpoint's record."""
        worst = [judged.name for judged in self.holdouts if judged.verdict == self.verdict]
        if self.passed or not worst:
            return self.verdict
        return f"{self.verdict}: {', '.join(worst[:5])}{', …' if len(worst) > 5 else ''}"

    def lines(self) -> list[str]:
        """The verdict for people: one sentence, then two lines for each holdout."""
        lines = [f"{self.verdict}: {self.candidate} against {self.champion}"]
        for judged in self.holdouts:
            new = " (new)" if judged.new else ""
            lines.append(f"  {judged.name}{new}: {judged.verdict}")
            lines.append(f"    {_scores_text(judged)}{judged.why}")
        return lines

    def document(self) -> dict[str, Any]:
        """The verdict for programs, as plain JSON values."""
        return {
            "verdict": self.verdict,
            "passed": self.passed,
            "champion": self.champion,
            "candidate": self.candidate,
            "margin": self.margin,
            "relative_margin": self.relative_margin,
            "level": self.level,
            "holdouts": [_document(judged) for judged in self.holdouts],
        }


def judge(
    champion: Evidence,
    candidate: Evidence,
    *,
    margin: float = MARGIN,
    relative_margin: float | None = None,
    level: float = LEVEL,
) -> Verdict:
    """Compares a candidate with the champion on every holdout that either of them knows.

    `margin`: how much worse is still no loss, in the unit of the score (0.01 is one point of a
    share). With `relative_margin`, that share of the champion's score is the margin wherever the
    outcomes are numbers and not right or wrong. `level`: the accepted chance to pass a candidate
    that has lost the margin on a holdout, and to call one worse that is not.

    Right or wrong: McNemar's exact test and Tango's bound; numbers, and clustered items: the
    studentized paired bootstrap. "Worse" and "better" are claims about any of several holdouts, so
    their p-values are adjusted (Holm 1979). To pass, a candidate must be shown to be no worse on
    every single one, which needs no adjustment (Berger, Technometrics 24, 1982: an
    intersection-union test of level-α tests has level α).

    Below 300 items, or 30 clusters, nothing passes; a regression can be seen with fewer items
    where the test is exact. Raises `DataChanged` if a holdout has other items or another metric in
    one of them, `DataError` if outcomes are of two kinds, `UsageError` for a bad margin or level.
    """
    for what, value in (("margin", margin), ("relative margin", relative_margin)):
        if value is not None and not 0 < value < math.inf:
            raise UsageError(f"a {what} of {value} is impossible", do="give one above 0")
    if not 0 < level < 0.5:
        raise UsageError(f"a level of {level} is impossible", do="give one between 0 and 0.5")
    compared = [
        _compared(name, champion, candidate, (margin, relative_margin), level=level)
        for name in _all_names(champion, candidate)
    ]
    p_worse = holm({j.name: j.comparison.p_worse for j in compared if j.comparison})
    p_better = holm({j.name: j.comparison.p_better for j in compared if j.comparison})
    judged = [
        j if j.comparison is None
        else _judged(j, j.comparison, worse=p_worse[j.name], better=p_better[j.name], level=level)
        for j in compared
    ]  # fmt: skip
    found = {j.verdict for j in judged}
    overall: Word = next((word for word in _WORST_FIRST if word in found), "insufficient")
    if overall == "no change" and "better" in found:
        overall = "better"
    return Verdict(overall, champion.label, candidate.label, margin, relative_margin, level, judged)


def _all_names(champion: Evidence, candidate: Evidence) -> list[str]:
    return list(dict.fromkeys([*champion.holdouts, *candidate.holdouts]))


def _compared(
    name: str,
    champion: Evidence,
    candidate: Evidence,
    margins: tuple[float, float | None],
    *,
    level: float,
) -> Judged:
    """The holdout with its comparison, or with the reason why there is none."""
    known, theirs = champion.holdouts.get(name), candidate.holdouts.get(name)
    present = theirs if theirs is not None else known
    assert present is not None
    blank = Judged(name, "insufficient", "", new=known is None, metric=present.metric)
    if theirs is None or theirs.outcomes is None:
        return replace(blank, why="the candidate was not scored on it")
    blank = replace(blank, candidate=theirs.score("after"))
    if known is not None and known.outcomes is not None:
        _check_alike(name, known, theirs)
        first, against = _in_order_of(theirs, known), champion.label
    elif theirs.before is not None:
        from_champion = candidate.began_from == champion.checkpoint
        first = theirs.before
        against = champion.label if from_champion else "the model that this increment went on from"
    else:
        why = "the champion was not scored on it, nor the candidate before it learned"
        return replace(blank, why=why)
    if (first.dtype == np.bool_) != (theirs.outcomes.dtype == np.bool_):
        raise DataError(
            f"the outcomes of holdout {name!r} are of two kinds",
            why="one model's are right or wrong (bool), the other's are numbers (float)",
            do="score both in the same way",
        )
    old_score = mean_of(first)
    margin, relative = margins
    if relative is not None and first.dtype != np.bool_:
        margin = relative * abs(old_score)
    comparison = _comparison(name, first, theirs, margin=margin, level=level)
    return replace(blank, against=against, champion=old_score, margin=margin, comparison=comparison)


def _comparison(
    name: str, first: Outcomes, candidate: Holdout, *, margin: float, level: float
) -> Comparison:
    second = candidate.outcomes
    assert second is not None
    if first.dtype == np.bool_ and second.dtype == np.bool_ and candidate.clusters is None:
        return compare_answers(
            first.astype(np.bool_), second.astype(np.bool_), margin=margin, level=level
        )
    sign = 1.0 if candidate.higher_is_better else -1.0
    # Halves, for the difference of two finite numbers may not be finite.
    halves = sign * (second.astype(np.float64) / 2 - first.astype(np.float64) / 2)
    half = compare_numbers(
        halves, candidate.clusters, margin=margin / 2, level=level,
        seed=derive_seed("gate", name, len(halves)),
    )  # fmt: skip
    return replace(
        half, difference=2 * half.difference, standard_error=2 * half.standard_error,
        lower=2 * half.lower, upper=2 * half.upper,
    )  # fmt: skip


def _judged(
    judged: Judged, comparison: Comparison, *, worse: float, better: float, level: float
) -> Judged:
    assert judged.margin is not None
    clustered = comparison.units < comparison.items
    enough = comparison.items >= MIN_ITEMS and comparison.units >= MIN_CLUSTERS
    shown = comparison.p_inferior <= level
    word: Word
    if worse <= level and not (shown and enough) and (enough or comparison.exact):
        word, why = "regression", f"worse beyond chance ({_p(worse)})"
    elif not enough:
        units = f" in {comparison.units:,} clusters" if clustered else ""
        word = "insufficient"
        why = (
            f"{comparison.items:,} items{units} show nothing: at least {MIN_ITEMS} items"
            f"{f' and {MIN_CLUSTERS} clusters' if clustered else ''} are needed"
        )
    elif shown and better <= level:
        word, why = "better", f"better beyond chance ({_p(better)})"
    elif shown:
        word, why = "no change", f"not worse by {judged.margin:.3g} or more"
    elif comparison.difference < 0:
        word, why = "worse within noise", _needed(comparison, judged.margin, level)
    else:
        word, why = "insufficient", _needed(comparison, judged.margin, level)
    return replace(judged, verdict=word, why=why, p_worse=worse, p_better=better)


def _needed(comparison: Comparison, margin: float, level: float) -> str:
    """How many items would show, four times in five, that a model equal to the champion is so."""
    spread = comparison.standard_error * math.sqrt(comparison.items)
    quantiles = NormalDist().inv_cdf(1 - level) + NormalDist().inv_cdf(0.8)
    needed = 0.0
    if margin > 0:
        needed = min((quantiles * spread / margin) ** 2, 1e15)
        if comparison.exact:
            needed = max(needed, 4 / margin)
    wish = f"; about {math.ceil(needed):,} would" if needed > comparison.items else ""
    return f"{comparison.items:,} items do not show that it is not worse by {margin:.3g}{wish}"


def _check_alike(name: str, champion: Holdout, candidate: Holdout) -> None:
    ours = (champion.metric, champion.higher_is_better)
    theirs = (candidate.metric, candidate.higher_is_better)
    if ours != theirs or (champion.clusters is None) != (candidate.clusters is None):
        raise DataChanged(
            f"holdout {name!r} is another one for the candidate",
            why="its metric, its direction or its clusters are not those of the champion's",
            do="compare models that were scored in the same way",
        )


def _in_order_of(candidate: Holdout, champion: Holdout) -> Outcomes:
    """The champion's outcomes, item by item as the candidate's are."""
    outcomes = champion.outcomes
    assert outcomes is not None
    ours, theirs = champion.digests, candidate.digests
    places: Indices | None = None
    if ours is not None and theirs is not None:
        places = locate(theirs, ours)
    same_kind = (ours is None) == (theirs is None)
    if (
        not same_kind
        or champion.count != candidate.count
        or (places is not None and min(places) < 0)
    ):
        missing = "" if places is None else f": {np.count_nonzero(places < 0)} items differ"
        raise DataChanged(
            "the two models were scored on different items" + missing,
            why=f"{champion.count} items of the champion, {candidate.count} of the candidate",
            do="compare models of one lineage, whose holdouts are frozen",
        )
    return outcomes if places is None else outcomes[places]


def _scores_text(judged: Judged) -> str:
    comparison = judged.comparison
    if comparison is None or judged.champion is None or judged.candidate is None:
        return ""
    against = "" if not judged.new else f" against {judged.against}"
    return (
        f"{judged.metric} {judged.champion:.4g} → {judged.candidate:.4g}{against}: "
        f"gain {comparison.difference:+.2g}, "
        f"between {comparison.lower:+.2g} and {comparison.upper:+.2g}; "
    )


def _p(p_value: float) -> str:
    return f"p = {p_value:.2g}" if p_value >= 1e-6 else "p < 1e-6"


def _document(judged: Judged) -> dict[str, Any]:
    document: dict[str, Any] = {
        "holdout": judged.name,
        "verdict": judged.verdict,
        "why": judged.why,
        "new": judged.new,
        "metric": judged.metric,
        "against": judged.against,
        "champion_score": _plain(judged.champion),
        "candidate_score": _plain(judged.candidate),
        "margin": _plain(judged.margin),
    }
    if judged.comparison is not None:
        c = judged.comparison
        numbers: Mapping[str, float | None] = {
            "difference": c.difference, "lower": c.lower, "upper": c.upper,
            "p_worse": judged.p_worse, "p_better": judged.p_better, "p_inferior": c.p_inferior,
        }  # fmt: skip
        document |= {"items": c.items, "units": c.units}
        document |= {key: _plain(value) for key, value in numbers.items()}
    return document


def _plain(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
