"""The bill: what each increment cost, and what a full retrain costs. Pure.

Steps and bytes come from the log, which knows every checkpoint that there ever was. Samples and
seconds are told by manifests; of checkpoints that are gone they are known only as far as a later
one includes them. A full retrain is *measured* where an audit trained one, *scaled* where an audit
trained on a sample, else *estimated*: its planned steps at the best pace of any increment.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from onward.learning.rounds import Round, rounds
from onward.repository import Audit, Commit, History

Basis: TypeAlias = Literal["itself", "measured", "scaled", "estimated", "unknown"]
FIELDS = ("steps", "samples", "seconds", "stored")
_TEXT = 200
_MOST = 1e18  # beyond this nothing was counted; sums and shares of it stay finite


@dataclass(frozen=True, slots=True)
class Told:
    """What the manifest of a checkpoint says: `about`, and how the run that made it began."""

    about: Mapping[str, Any]
    verb: str = "fresh"


@dataclass(frozen=True, slots=True)
class Cost:
    """Optimizer steps, samples handed to the optimizer, seconds of training, bytes stored.

    None is unknown. `at_least` names the fields that are known only in part.
    """

    steps: float | None = None
    samples: float | None = None
    seconds: float | None = None
    stored: float | None = None
    at_least: frozenset[str] = frozenset()

    def of(self, name: str) -> float | None:
        """The field called so."""
        value: float | None = getattr(self, name)
        return value


@dataclass(frozen=True, slots=True)
class Gap:
    """A holdout as the increment scored on it, and as its full retrain did.

    `excess` is the excess forgetting: by how much the retrain is better, whichever direction is;
    below zero it is worse. None where either did not score, or not with a finite number.
    """

    holdout: str
    metric: str
    ours: float | None
    retrain: float | None
    excess: float | None


@dataclass(frozen=True, slots=True)
class IncrementBill:
    """One increment: what it used, what a full retrain in its place costs, and how that is known.

    `told` is what its newest readable checkpoint says in `about["learning"]`, empty if nothing.
    """

    increment: int
    finished: bool
    tip: Commit
    checkpoints: int
    dropped: int
    used: Cost
    retrain: Cost
    basis: Basis
    audit: Audit | None = None
    gaps: tuple[Gap, ...] = ()
    told: Mapping[str, Any] = field(default_factory=dict)

    def ratio(self, name: str) -> float | None:
        """What was used as a share of the retrain: 0.1 is a tenth of it."""
        return _ratio(self.used.of(name), self.retrain.of(name))

    @property
    def strategy(self) -> str:
        value = self.told.get("strategy")
        return value[:_TEXT] if isinstance(value, str) else ""

    @property
    def is_exact(self) -> bool:
        """Whether the retrain's cost is one that was measured."""
        return self.basis in ("itself", "measured")


@dataclass(frozen=True, slots=True)
class Total:
    """One field over the model's life.

    `used` is all of it. `compared` and `retrain` are over the `increments` that are finished and
    whose retrain is known: what they used, and what retraining each time costs.
    """

    used: float | None
    at_least: bool
    compared: float
    retrain: float
    increments: int
    estimated: bool

    @property
    def ratio(self) -> float | None:
        return _ratio(self.compared, self.retrain) if self.increments else None

    @property
    def saved(self) -> float | None:
        return self.retrain - self.compared if self.increments else None


@dataclass(frozen=True, slots=True)
class Bill:
    """All increments in the order in which they began, and the totals by field."""

    increments: tuple[IncrementBill, ...]
    totals: Mapping[str, Total]


def make_bill(history: History, told: Mapping[str, Told]) -> Bill:
    """The bill of an output; `told` has what could be read of the checkpoints that `telling` names.

    >>> make_bill(History(), {}).increments
    ()
    """
    bills = _at_the_best_pace([_increment(its, history, told) for its in rounds(history)])
    return Bill(bills, {name: _total(name, bills) for name in FIELDS})


def _at_the_best_pace(bills: list[IncrementBill]) -> tuple[IncrementBill, ...]:
    """Estimates at the fewest seconds per step that any increment of the output needed.

    A short increment is mostly its beginning: its own pace would flatter it beside a long retrain.
    """
    paces = [
        bill.used.seconds / bill.used.steps
        for bill in bills
        if bill.used.steps and bill.used.seconds and "seconds" not in bill.used.at_least
    ]
    if not paces:
        return tuple(bills)
    return tuple(
        replace(bill, retrain=replace(bill.retrain, seconds=bill.retrain.steps * min(paces)))
        if bill.basis == "estimated" and bill.retrain.steps is not None
        else bill
        for bill in bills
    )


def gaps(ours: Commit, audit: Audit) -> tuple[Gap, ...]:
    """Each holdout that either was scored on, in the order in which they were frozen."""
    row = ours.row
    frozen = {**audit.scores.frozen, **(row.frozen if row else {})}
    names = [*frozen, *(row.after if row else {}), *audit.scores.after]
    found = []
    for name in dict.fromkeys(names):
        mine = row.after.get(name) if row else None
        theirs = audit.scores.after.get(name)
        of = frozen.get(name)
        excess = None
        if mine is not None and theirs is not None:
            excess = mine - theirs if of and of.lower else theirs - mine
            excess = excess if math.isfinite(excess) else None
        if mine is not None or theirs is not None:
            found.append(Gap(name, of.metric if of else "", mine, theirs, excess))
    return tuple(found)


def teller(its: Round, told: Mapping[str, Told]) -> Commit | None:
    """The checkpoint that speaks for a round: its tip, else the newest that could be read."""
    return next((c for c in (its.tip, *reversed(its.commits)) if c.checkpoint in told), None)


def learning_of(about: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a run wrote of its increment's learning; empty for checkpoints of early versions."""
    value = about.get("learning")
    return value if isinstance(value, Mapping) else {}


def amount(value: Any) -> float | None:
    """A number that can be a count or a time; None for whatever else a manifest may hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if 0 <= value <= _MOST else None


def _increment(its: Round, history: History, told: Mapping[str, Told]) -> IncrementBill:
    live = [c for c in its.commits if c.checkpoint not in history.dropped]
    newest = teller(its, told)
    learning = learning_of(told[newest.checkpoint].about) if newest is not None else {}
    used = _used(its, told)
    audited = _best_audit(its, history)
    if audited is not None:
        audit, commit = audited
        retrain = _of_audit(audit)
        basis: Basis = "measured" if audit.share == 1 else "scaled"
        found = gaps(commit, audit)
    else:
        audit, found = None, ()
        retrain, basis = _estimated(its, used, learning, told)
    return IncrementBill(
        its.increment, its.finished, its.tip, len(its.commits), len(its.commits) - len(live), used,
        retrain, basis, audit, found, learning,
    )  # fmt: skip


def _used(its: Round, told: Mapping[str, Told]) -> Cost:
    samples, some_samples = _told_sum(its, told, lambda about: learning_of(about).get("samples"))
    seconds, some_seconds = _told_sum(its, told, _seconds)
    at_least = {"samples"} if some_samples else set()
    if some_seconds:
        at_least.add("seconds")
    return Cost(
        steps=sum(steps for _, steps in its.edges()),
        samples=_whole(samples),
        seconds=seconds,
        stored=sum(commit.stored for commit in its.commits),
        at_least=frozenset(at_least),
    )


def _seconds(about: Mapping[str, Any]) -> Any:
    own = learning_of(about).get("seconds")
    return about.get("seconds") if amount(own) is None else own


def _told_sum(its: Round, told: Mapping[str, Told], read: Any) -> tuple[float | None, bool]:
    """A cumulative amount over all lines of a round, and whether part of it is not known.

    Each checkpoint tells its line's amount from the round's beginning. What lines share is counted
    once; where nobody tells the amount at which they part, in proportion to the steps.
    """
    steps = {commit.checkpoint: count for commit, count in its.edges()}
    by_id = {commit.checkpoint: commit for commit in its.commits}
    known: dict[str, float] = {}
    counted: set[str] = set()
    total = 0.0
    for commit in its.commits:
        its_own = told.get(commit.checkpoint)
        value = amount(read(its_own.about)) if its_own is not None else None
        if value is None:
            continue
        known[commit.checkpoint] = value
        line, before, at = [], 0.0, by_id.get(commit.checkpoint)
        while at is not None:
            if at is not commit and at.checkpoint in known:
                before = known[at.checkpoint]
                break
            line.append(at.checkpoint)
            at = by_id.get(at.parent) if at.parent is not None else None
        all_steps = sum(steps[id_] for id_ in line)
        fresh = sum(steps[id_] for id_ in line if id_ not in counted)
        share = fresh / all_steps if all_steps else 1.0
        total += max(0.0, value - before) * share
        counted.update(line)
    if not known:
        return None, False
    missing = any(count and id_ not in counted for id_, count in steps.items())
    return total, missing


def _best_audit(its: Round, history: History) -> tuple[Audit, Commit] | None:
    """The newest audit in full of any checkpoint of the round, else the newest on a sample."""
    found = [
        (audit, commit)
        for commit in its.commits
        for audit in history.audits.get(commit.checkpoint, [])
    ]
    return max(found, key=lambda pair: (pair[0].share == 1, pair[0].seq), default=None)


def _of_audit(audit: Audit) -> Cost:
    """An audit on a sample, scaled to all data. Bytes are left: they do not grow with the data."""
    return Cost(
        steps=_whole(amount(audit.steps / audit.share)),
        samples=None if audit.samples is None else _whole(amount(audit.samples / audit.share)),
        seconds=amount(audit.seconds / audit.share),
        stored=audit.stored,
    )


def _estimated(
    its: Round, used: Cost, learning: Mapping[str, Any], told: Mapping[str, Told]
) -> tuple[Cost, Basis]:
    first = told.get(its.commits[0].checkpoint)
    if its.parent is None and its.increment <= 1 and (first is None or first.verb == "fresh"):
        return used, "itself"
    planned = learning.get("retrain")
    steps = amount(planned.get("steps")) if isinstance(planned, Mapping) else None
    if steps is None or not isinstance(planned, Mapping):
        return Cost(), "unknown"
    per_step = steps / used.steps if used.steps else None
    return Cost(
        steps=steps,
        samples=amount(planned.get("samples")),
        seconds=_scaled(used.seconds, per_step),
        stored=_whole(_scaled(used.stored, per_step)),
        at_least=used.at_least & {"seconds"},
    ), "estimated"


def _scaled(value: float | None, factor: float | None) -> float | None:
    return None if value is None or factor is None else value * factor


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


def _ratio(used: float | None, retrain: float | None) -> float | None:
    return None if used is None or not retrain else used / retrain


def _total(name: str, bills: Iterable[IncrementBill]) -> Total:
    used: float | None = 0
    at_least = False
    compared: float = 0
    retrain: float = 0
    increments = 0
    estimated = False
    some = False
    for bill in bills:
        mine, theirs = bill.used.of(name), bill.retrain.of(name)
        at_least |= name in bill.used.at_least or mine is None
        if mine is None:
            continue
        some = True
        used = (used or 0) + mine
        if bill.finished and theirs is not None:
            compared, retrain = compared + mine, retrain + theirs
            increments += 1
            estimated |= not bill.is_exact
    return Total(
        used if some else None, at_least and some, compared, retrain, increments, estimated
    )
