"""Frozen holdouts of a run: scored before and after an increment, compared with the champion."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onward.data.items import Digests, Items, Kind, locate
from onward.data.order import Indices, derive_seed
from onward.errors import UsageError
from onward.learning.evidence import Evidence
from onward.learning.gate import Verdict, judge
from onward.learning.holdouts import Holdout, Holdouts, When
from onward.repository.records import Scores

Outcomes = npt.NDArray[Any]


@dataclass(frozen=True)
class Scoring:
    """How items are scored: `function` gives, for a batch, one outcome for each row."""

    function: Callable[[Any], Any]
    metric: str
    higher_is_better: bool
    batch_size: int


@dataclass(frozen=True)
class _Place:
    """Where the items of a holdout are: in which loader, at which indices."""

    loader: Any
    indices: Indices


class Judging:
    """Knows the holdouts, where their items are, and how to score them.

    `evaluate` calls a function with the models in evaluation mode, and leaves no trace.
    """

    def __init__(
        self, *, increment: int, margin: float, evaluate: Callable[[Callable[[], Any]], Any]
    ) -> None:
        self.holdouts = Holdouts()
        self.scoring: Scoring | None = None
        self.verdict: Verdict | None = None
        self.champion: Callable[[], Evidence | None] = lambda: None
        self.began_from: str | None = None
        """The checkpoint that this increment went on from."""
        self.margin = margin
        """How much worse than the champion is still no loss."""
        self._increment = increment
        self._evaluate = evaluate
        self._places: dict[str, _Place] = {}
        self._given = Holdouts()  # by the script itself, not cut out of what it learns
        self.given: list[Items] = []
        """What the script itself gave as holdouts."""
        self._began = False
        self._untouched = True

    # Which there are.

    def declare(
        self,
        name: str,
        loader: Any,
        *,
        items: Items,
        clusters: npt.NDArray[np.int64] | None,
    ) -> None:
        """Freezes a holdout under `name`, or finds the one that is frozen already.

        Raises `DataChanged` where it is another one.
        """
        scoring = self._known_scoring()
        for holdouts in (self._given, self.holdouts):
            holdouts.freeze(
                name,
                digests=items.digests,
                count=items.count,
                increment=self._increment,
                metric=scoring.metric,
                higher_is_better=scoring.higher_is_better,
                clusters=clusters,
                kind=items.kind,
            )
        self.given.append(items)
        self._places[name] = _Place(loader, np.arange(items.count, dtype=np.int64))
        if self._began and self._untouched and self._is_new(name):
            self._score(name, when="before")

    def refuse_leaks(self, items: Items, names: Sequence[str] | None = None) -> None:
        """Raises `Leak` where some of these items, to learn or learned, were given as a holdout."""
        if items.digests is not None:
            self._given.refuse_leaks(items.digests, names)

    def adopt(self, holdouts: Mapping[str, Holdout]) -> None:
        """Freezes what another model was examined on."""
        for name, holdout in holdouts.items():
            if name not in self.holdouts.names:
                self.holdouts.freeze(
                    name,
                    digests=holdout.digests,
                    count=holdout.count,
                    increment=holdout.increment,
                    metric=holdout.metric,
                    higher_is_better=holdout.higher_is_better,
                    clusters=holdout.clusters,
                    kind=holdout.kind,
                )

    def cut_out(
        self, new: Indices, digests: Callable[[], Digests], *, share: float, kind: Kind
    ) -> npt.NDArray[np.bool_]:
        """Freezes about this share of the new items as the increment's own holdout.

        Which ones depends on what each is known by, and on nothing else: an item that belongs to a
        holdout does so in every run, in whatever order data arrives.
        """
        if not 0.0 < share < 1.0:
            raise UsageError(
                f"holdout is {share}", do="give the share of new items to hold out, such as 0.1"
            )
        scoring = self._known_scoring()
        name = f"increment {self._increment}"
        known_by = digests()
        chance = np.ascontiguousarray(known_by[new][:, :8]).view("<u8")[:, 0] / 2.0**64
        chosen = new[chance < share]
        if name not in self.holdouts.names and len(chosen):
            self.holdouts.freeze(
                name,
                digests=known_by[chosen],
                count=len(chosen),
                increment=self._increment,
                metric=scoring.metric,
                higher_is_better=scoring.higher_is_better,
                kind=kind,
            )
        cut = np.zeros(len(known_by), np.bool_)
        cut[chosen] = True
        return cut

    def find(self, loader: Any, digests: Digests) -> None:
        """Finds the holdouts that were cut out of this loader's data in earlier increments."""
        for name in self.holdouts.names:
            wanted = self.holdouts[name].digests
            if name in self._places or wanted is None:
                continue
            places = locate(wanted, digests)
            if len(places) and (places >= 0).all():
                self._places[name] = _Place(loader, places)

    # Scores.

    def begin(self, *, resumed: bool) -> None:
        """The increment begins: what is newly frozen is scored as the parent's weights are."""
        self._began, self._untouched = True, not resumed
        if resumed or self.scoring is None:
            return
        for name in self._places:
            if self._is_new(name):
                self._score(name, when="before")

    def after_step(self) -> None:
        """The weights are no longer those that the increment began with."""
        self._untouched = False

    def finish(self) -> Verdict | None:
        """The increment is over: scores every holdout, and compares with the champion."""
        if self.scoring is None:
            return None
        for name in self._places:
            self._score(name, when="after")
        champion = self.champion()
        if champion is not None:
            candidate = Evidence(
                checkpoint="", label=f"increment {self._increment}", began_from=self.began_from,
                holdouts={name: self.holdouts[name] for name in self.holdouts.names},
            )  # fmt: skip
            self.verdict = judge(champion, candidate, margin=self.margin)
        return self.verdict

    @property
    def scored(self) -> bool:
        """Whether there is a score after learning."""
        return bool(self.holdouts.scores("after"))

    def row(self) -> Scores | None:
        """This increment's row of the matrix, for its checkpoint's record."""
        return self.holdouts.row(self.verdict.text if self.verdict is not None else "")

    def omissions(self) -> list[str]:
        """A sentence for people about frozen holdouts that this run did not score, and why."""
        unreached = self.holdouts.names
        reason, remedy = "the script does not say how", "call run.scoring(function)"
        if self.scoring is not None:
            unreached = [name for name in unreached if name not in self._places]
            reason = "its items were not given again"
            remedy = "give it by run.holdout, or the data that it was cut out of to run.loader"
        return [f"holdout {name!r} was not scored: {reason}; {remedy}" for name in unreached]

    def _is_new(self, name: str) -> bool:
        holdout = self.holdouts[name]
        return holdout.increment == self._increment and holdout.before is None

    def _score(self, name: str, *, when: When) -> None:
        scoring, place = self._known_scoring(), self._places[name]

        def outcomes() -> Outcomes:
            found = []
            for start in range(0, len(place.indices), scoring.batch_size):
                some = place.indices[start : start + scoring.batch_size]
                batch = place.loader.load(some, seed=derive_seed(0, "score", start))
                found.append(_outcomes(scoring.function(batch), len(some)))
            return np.concatenate(found) if found else np.empty(0, bool)

        self.holdouts.record(name, self._evaluate(outcomes), when=when)

    def _known_scoring(self) -> Scoring:
        if self.scoring is None:
            raise UsageError(
                "a holdout needs a way to score its items",
                do="call run.scoring(function) first: it gives one outcome per row of a batch",
            )
        return self.scoring


def _outcomes(given: Any, rows: int) -> Outcomes:
    if "bfloat16" in str(getattr(given, "dtype", "")):
        given = given.float()  # NumPy has no such numbers
    for convert in ("detach", "cpu", "asnumpy", "numpy"):
        method = getattr(given, convert, None)
        if callable(method):
            given = method()
    found: Outcomes = np.asarray(given)
    if found.shape != (rows,) or found.dtype.kind not in "bfiu":
        raise UsageError(
            f"the scoring function gave {found.dtype} of shape {found.shape} for {rows} rows",
            do="give one value per row: right or wrong (bool), or a loss or score (float)",
        )
    return found if found.dtype.kind in "bf" else found.astype(np.float64)
