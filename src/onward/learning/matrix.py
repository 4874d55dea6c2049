"""The evaluation matrix: how the model scored on every frozen holdout after every increment.

R[i][j] is the score on holdout j after increment i. Rows are increments of one lineage, columns
holdouts in the order in which they were frozen; f(j) is the increment that froze holdout j. In the
papers increment and holdout bear the same number, f(j) = j.

Summaries are means over the holdouts for which they are defined and scored, and None where there is
none, or where the holdouts have different metrics: these have no common mean (see `of_metric`).
Where lower scores are better, differences change their sign: a positive transfer is always a gain,
and positive forgetting always a loss. `accuracy` stays in the unit of the score.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from onward.learning.evidence import ancestors
from onward.repository import Commit, FrozenHoldout, History

Chance: TypeAlias = float | Mapping[str, float] | None
"""The score of a model that knows nothing: one for all holdouts, or one for each."""


@dataclass(frozen=True)
class Matrix:
    """R[i][j], of one lineage.

    `rows`: increment → holdout → score; what was not scored is absent, and a score that was not
    finite is None. `start`: what the untrained model scored before the first increment.
    """

    holdouts: Mapping[str, FrozenHoldout] = field(default_factory=dict)
    rows: Mapping[int, Mapping[str, float | None]] = field(default_factory=dict)
    start: Mapping[str, float | None] = field(default_factory=dict)
    checkpoints: Mapping[int, str] = field(default_factory=dict)
    verdicts: Mapping[int, str] = field(default_factory=dict)

    def __getitem__(self, place: tuple[int, str]) -> float | None:
        """R[i][j] for (i, j); None where it is not known."""
        increment, holdout = place
        return self.rows.get(increment, {}).get(holdout)

    @property
    def last(self) -> int | None:
        """The newest increment, T."""
        return max(self.rows, default=None)

    @property
    def metrics(self) -> list[str]:
        """The metrics of the holdouts, with the direction of those where lower is better."""
        return list(dict.fromkeys(metric_text(frozen) for frozen in self.holdouts.values()))

    def of_metric(self, metric: str) -> Matrix:
        """Only the holdouts with one of `metrics`."""
        return replace(
            self, holdouts={n: f for n, f in self.holdouts.items() if metric_text(f) == metric}
        )

    def accuracy(self) -> float | None:
        """ACC = mean over j of R[T][j].

        SOURCE: Lopez-Paz & Ranzato, Gradient Episodic Memory for Continual Learning, 2017,
        equation 2.
        """
        return self._mean(self._final(j) for j in self.holdouts)

    def backward_transfer(self) -> float | None:
        """BWT = mean over j with f(j) < T of R[T][j] - R[f(j)][j]; negative: something was lost.

        SOURCE: Lopez-Paz & Ranzato 2017, equation 3.
        """
        return self._mean(
            self._gain(j, self[self.holdouts[j].increment, j], self._final(j)) for j in self._old()
        )

    def forward_transfer(self, chance: Chance = None) -> float | None:
        """FWT = mean over j with f(j) > 1 of R[f(j) - 1][j] - b[j]: what was known before learning.

        b is `chance`, or by default what the fresh model scored before the first increment.
        SOURCE: Lopez-Paz & Ranzato 2017, equation 4, with b of a random initialization.
        """
        first = min(self.rows, default=0)
        later = [j for j, frozen in self.holdouts.items() if frozen.increment > first]
        return self._mean(
            self._gain(j, self._baseline(j, chance), self[self.holdouts[j].increment - 1, j])
            for j in later
        )

    def forgetting(self) -> float | None:
        """Mean over j with f(j) < T of the best score in the past minus R[T][j].

        Negative where all that is old is known better than ever.
        SOURCE: Chaudhry et al., Riemannian Walk for Incremental Learning, 2018, section 3.2.
        """
        return self._mean(map(self.forgotten, self._old()))

    def forgotten(self, holdout: str) -> float | None:
        """The best score on one holdout after an earlier increment, minus that after the last."""
        past = [row[holdout] for i, row in self.rows.items() if i != self.last and holdout in row]
        final = self._final(holdout)
        losses = [self._gain(holdout, final, score) for score in past]
        return max((loss for loss in losses if loss is not None), default=None)

    def excess_forgetting(self, retrain_scores: Mapping[str, float]) -> float | None:
        """Mean over j with f(j) < T of a full retrain's score minus R[T][j].

        What incremental learning lost that a model trained on all data at once did not: a plain
        drop overstates it, because more classes are harder for any model. Ours: no paper's.
        """
        return self._mean(self._gain(j, self._final(j), retrain_scores.get(j)) for j in self._old())

    def _old(self) -> list[str]:
        last = self.last
        return [j for j, frozen in self.holdouts.items() if last and frozen.increment < last]

    def _final(self, holdout: str) -> float | None:
        return None if self.last is None else self[self.last, holdout]

    def _baseline(self, holdout: str, chance: Chance) -> float | None:
        if chance is None:
            return self.start.get(holdout)
        return chance.get(holdout) if isinstance(chance, Mapping) else chance

    def _gain(self, holdout: str, old: float | None, new: float | None) -> float | None:
        if old is None or new is None:
            return None
        return old - new if self.holdouts[holdout].lower else new - old

    def _mean(self, values: Iterable[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known and len(self.metrics) == 1 else None


def metric_text(frozen: FrozenHoldout) -> str:
    """`accuracy`, or `mse (lower is better)`."""
    return frozen.metric + (" (lower is better)" if frozen.lower else "")


def matrix_of(history: History, commit: Commit | None = None) -> Matrix:
    """The matrix of the lineage that ends with `commit`, by default with the latest checkpoint.

    Reads the log only. An increment is what its last finished checkpoint says; dropped ones still
    tell. What an increment scored before it learned, where nothing was scored after the one
    before, stands in that one's row.
    """
    commit = commit or history.latest()
    if commit is None:
        return Matrix()
    finished: dict[int, Commit] = {}
    for ancestor in [commit, *ancestors(history, commit)]:
        if ancestor.finished:
            finished.setdefault(ancestor.increment, ancestor)
    if not any(found.row for found in finished.values()):
        return Matrix()
    holdouts: dict[str, FrozenHoldout] = {}
    rows: dict[int, dict[str, float | None]] = {}
    start: dict[str, float | None] = {}
    for increment, found in sorted(finished.items()):
        row = found.row
        if row is not None:
            for name, frozen in row.frozen.items():
                holdouts.setdefault(name, frozen)
            before = rows.get(increment - 1, {}) if rows else start
            for name, score in row.before.items():
                before.setdefault(name, score)
        rows[increment] = {} if row is None else dict(row.after)
    for row_ in [*rows.values(), start]:
        for name in row_.keys() - holdouts.keys():
            del row_[name]
    return Matrix(
        holdouts=holdouts,
        rows=rows,
        start=start,
        checkpoints={increment: found.checkpoint for increment, found in sorted(finished.items())},
        verdicts={i: c.row.verdict for i, c in sorted(finished.items()) if c.row and c.row.verdict},
    )
