"""Frozen holdouts: items set aside once, on which every later increment is scored.

A holdout is a set of items, known by their digests (or counted, where data only grows at its end),
and one outcome for each: right or wrong, or a number. The outcomes of a finished checkpoint are in
its state, so that a later candidate can be compared with it item by item.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from onward.data.items import DIGEST_BYTES, Digests, Kind, halves, locate
from onward.data.order import Indices
from onward.errors import DataChanged, DataError, Leak, NewerFormat, UsageError
from onward.repository.records import MAX_HOLDOUT_NAME, MAX_HOLDOUTS, FrozenHoldout, Scores

When: TypeAlias = Literal["before", "after"]
Outcomes: TypeAlias = npt.NDArray[np.bool_] | npt.NDArray[np.float32] | npt.NDArray[np.float64]

_VERSION = 1
_IDS_SHOWN = 5


@dataclass(frozen=True, eq=False)
class Holdout:
    """One frozen holdout and how a model did on it.

    `digests`: uint8 [count, 16], or None for items that are counted. `clusters`: int64 [count], for
    each item the group (user, document) that it belongs to. `outcomes` after the increment and
    `before` it: bool [count], or float [count], in the order of the frozen items.
    """

    increment: int
    metric: str
    higher_is_better: bool
    count: int
    digests: Digests | None = None
    clusters: Indices | None = None
    kind: Kind = "identified"
    outcomes: Outcomes | None = None
    before: Outcomes | None = None

    def score(self, when: When) -> float | None:
        """The mean of the outcomes (of right or wrong: the share that is right); None without."""
        outcomes = self.outcomes if when == "after" else self.before
        return None if outcomes is None else mean_of(outcomes)


def mean_of(outcomes: Outcomes) -> float:
    """The mean of finite outcomes, which is finite too: their sum may not be."""
    numbers = outcomes.astype(np.float64)
    scale = float(np.max(np.abs(numbers))) if outcomes.dtype != np.bool_ else 1.0
    return float(np.mean(numbers / scale)) * scale if scale > 1e290 else float(np.mean(numbers))


class Holdouts:
    """The frozen holdouts of a lineage of checkpoints, in the order in which they were frozen.

    >>> holdouts = Holdouts()
    >>> holdouts.freeze("digits", digests=None, count=3, increment=1, metric="accuracy",
    ...                 higher_is_better=True)
    >>> holdouts.record("digits", np.array([True, False, True]), when="after")
    >>> round(holdouts.scores("after")["digits"], 3)
    0.667
    """

    def __init__(self) -> None:
        self._frozen: dict[str, Holdout] = {}
        # Where this process's items are among the frozen ones, if it has them in another order.
        self._places: dict[str, Indices] = {}

    @property
    def names(self) -> list[str]:
        """In the order in which they were frozen."""
        return list(self._frozen)

    def __getitem__(self, name: str) -> Holdout:
        """The holdout. Raises `UsageError` for one that was not frozen."""
        if name not in self._frozen:
            known = ", ".join(map(repr, self.names[:8])) or "none"
            raise UsageError(
                f"there is no holdout {name!r:.80}",
                why=f"frozen are: {known}",
                do="freeze it first",
            )
        return self._frozen[name]

    def freeze(
        self,
        name: str,
        *,
        digests: Digests | None,
        count: int,
        increment: int,
        metric: str,
        higher_is_better: bool,
        clusters: npt.NDArray[np.int64] | None = None,
        kind: Kind = "identified",
    ) -> None:
        """Sets items aside for good; again under the same name, checks that they are the same.

        `digests`: uint8 [count, 16], `None` for items that are only counted; `kind` says what they
        stand for, as `Items.kind` does. The same items may come in another order: outcomes are
        then put in the order in which the items were frozen. Raises `DataChanged`, with how many
        differ, where a frozen holdout has other items, clusters or another metric; `DataError` for
        no items, two equal ones, or arrays of the wrong shape; `UsageError` for a bad name.
        """
        _check_name(name, "a holdout")
        _check_name(metric, "a metric")
        given = Holdout(
            increment=int(increment), metric=metric, higher_is_better=bool(higher_is_better),
            count=int(count), digests=_digests(digests, int(count), name),
            clusters=_clusters(clusters, int(count), name),
            kind="counted" if digests is None else kind,
        )  # fmt: skip
        frozen = self._frozen.get(name)
        if frozen is None:
            if len(self._frozen) >= MAX_HOLDOUTS:
                raise UsageError(
                    f"there are {MAX_HOLDOUTS} holdouts already",
                    do="score what is new on one that is frozen",
                )
            self._frozen[name] = given
            return
        self._places.pop(name, None)
        places = _same(name, frozen, given)
        if places is not None:
            self._places[name] = places

    def retire(self, name: str) -> None:
        """Takes a holdout out of use, such as one whose items were withdrawn.

        The gate passes no candidate that lacks a holdout which the champion knows: the next
        promotion needs force. Raises `UsageError` for one that was not frozen.
        """
        self[name]  # must be there
        del self._frozen[name]
        self._places.pop(name, None)

    def contains(self, digests: Digests) -> npt.NDArray[np.bool_]:
        """Which of these items are in any holdout: bool [n].

        Of items with keys, one is held out if its key or its content is: neither a new version of
        a held out item nor a copy of it under another name may be learned. Counted holdouts know
        no digests and contain none.
        """
        held = np.zeros(len(digests), np.bool_)
        for holdout in self._frozen.values():
            held |= _inside(digests, holdout)
        return held

    def leaking(
        self, digests: Digests, names: Sequence[str | int | bytes] | None = None
    ) -> Leak | None:
        """The error to raise where training items are held out, or None.

        It tells the first five ids (`names`: one for each row of `digests`) and how many there are.
        """
        found = np.flatnonzero(self.contains(digests))
        if not len(found):
            return None
        first = found[:_IDS_SHOWN].tolist()
        shown = [bytes(digests[i]).hex() if names is None else repr(names[i])[:120] for i in first]
        held_by = [
            name for name, holdout in self._frozen.items() if _inside(digests, holdout).any()
        ]
        return Leak(
            f"{len(found)} of {len(digests)} items to learn from are in the frozen holdout"
            f"{'s' if len(held_by) > 1 else ''} {', '.join(map(repr, held_by[:_IDS_SHOWN]))}",
            count=len(found),
            why="a model that has learned them cannot be tested on them: "
            + ", ".join(shown)
            + (", …" if len(found) > _IDS_SHOWN else ""),
            do="take them out of the training data, or out of what is to be held out",
        )

    def refuse_leaks(
        self, digests: Digests, names: Sequence[str | int | bytes] | None = None
    ) -> None:
        """Raises `Leak`, as `leaking` words it, where training items are held out."""
        error = self.leaking(digests, names)
        if error is not None:
            raise error

    def begin(self) -> None:
        """A new increment begins: outcomes of the last one are no longer this model's."""
        for name, holdout in self._frozen.items():
            self._frozen[name] = replace(holdout, outcomes=None, before=None)

    def record(self, name: str, outcomes: npt.ArrayLike, *, when: When) -> None:
        """Notes how the model does on each item, before it learns or after it has.

        `outcomes`: bool [count], right or wrong, or float [count], a score or a loss for each, in
        the order in which this process froze the items. Raises `DataError` for another shape or
        dtype, for numbers that are not finite, and where the other outcomes are of the other kind.
        """
        if when not in ("before", "after"):
            raise UsageError(f"outcomes are recorded 'before' or 'after', not {when!r}")
        holdout = self[name]
        checked = _outcomes(outcomes, holdout.count, name)
        other = holdout.before if when == "after" else holdout.outcomes
        if other is not None and (other.dtype == np.bool_) != (checked.dtype == np.bool_):
            raise DataError(
                f"the outcomes of holdout {name!r} before and after are of two kinds",
                why="one is right or wrong (bool), the other a number (float)",
                do="record the same kind for both",
            )
        checked = self.in_frozen_order(name, checked)
        if when == "after":
            self._frozen[name] = replace(holdout, outcomes=checked)
        else:
            self._frozen[name] = replace(holdout, before=checked)

    def in_frozen_order(self, name: str, outcomes: Outcomes) -> Outcomes:
        """Outcomes of this process's items in the order in which they were frozen."""
        if name not in self._places:
            return outcomes
        ordered = np.empty_like(outcomes)
        ordered[self._places[name]] = outcomes
        return ordered

    def scores(self, when: When) -> dict[str, float]:
        """The mean outcome of each holdout that was scored."""
        scored = {name: holdout.score(when) for name, holdout in self._frozen.items()}
        return {name: score for name, score in scored.items() if score is not None}

    def row(self, verdict: str = "") -> Scores | None:
        """This increment's row of the evaluation matrix, for its checkpoint's record.

        None where there is no holdout. `verdict` is the gate's, if it was asked.
        """
        if not self._frozen:
            return None
        return Scores(
            after=dict(self.scores("after")),
            before=dict(self.scores("before")),
            frozen={
                name: FrozenHoldout(h.increment, h.metric, lower=not h.higher_is_better)
                for name, h in self._frozen.items()
            },
            verdict=verdict,
        )

    def state_dict(self) -> dict[str, Any]:
        """Names, numbers and arrays; outcomes that are right or wrong as bytes 1 and 0."""
        return {
            "version": _VERSION,
            "frozen": {
                name: {
                    "increment": h.increment,
                    "metric": h.metric,
                    "higher_is_better": h.higher_is_better,
                    "count": h.count,
                    "digests": h.digests,
                    "clusters": h.clusters,
                    "kind": h.kind,
                    "outcomes": _stored(h.outcomes),
                    "before": _stored(h.before),
                }
                for name, h in self._frozen.items()
            },
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Becomes the holdouts that `state_dict` describes. Raises `NewerFormat`."""
        if state_dict["version"] > _VERSION:
            raise NewerFormat(
                f"the holdouts have version {state_dict['version']}, this Onward knows {_VERSION}",
                do="update Onward",
            )
        self._places = {}
        self._frozen = {
            name: Holdout(
                increment=h["increment"], metric=h["metric"],
                higher_is_better=h["higher_is_better"], count=h["count"], digests=h["digests"],
                clusters=h["clusters"], kind=h["kind"],
                outcomes=_loaded(h["outcomes"]), before=_loaded(h["before"]),
            )
            for name, h in state_dict["frozen"].items()
        }  # fmt: skip


def _same(name: str, frozen: Holdout, given: Holdout) -> Indices | None:
    """Where each given item is among the frozen ones; None where they are in the same order."""
    places = _match(name, frozen, given)
    if (frozen.clusters is None) != (given.clusters is None):
        raise DataChanged(
            f"holdout {name!r} was frozen with{'out' if frozen.clusters is None else ''} clusters",
            do="give it as it was frozen, or freeze it under another name",
        )
    if frozen.clusters is not None and given.clusters is not None:
        ordered = frozen.clusters if places is None else frozen.clusters[places]
        _refuse_changed(
            name, int(np.count_nonzero(ordered != given.clusters)), given.count, "another cluster"
        )
    ours = (frozen.metric, frozen.higher_is_better)
    theirs = (given.metric, given.higher_is_better)
    if ours != theirs:
        raise DataChanged(
            f"holdout {name!r} was frozen with the metric {_worded(*ours)}",
            why=f"now it is {_worded(*theirs)}, and their scores cannot be compared",
            do="score it as before, or freeze it under another name",
        )
    return places


def _match(name: str, frozen: Holdout, given: Holdout) -> Indices | None:
    ours, theirs = frozen.digests, given.digests
    if ours is None or theirs is None:
        if frozen.kind != given.kind or frozen.count != given.count:
            raise DataChanged(
                f"holdout {name!r} is not what it was",
                why=f"{frozen.count} items ({frozen.kind}) were frozen, "
                f"now there are {given.count} ({given.kind})",
                do="give the items that were frozen, or freeze these under another name",
            )
        return None
    places = locate(theirs, ours)
    lost, new = np.setdiff1d(np.arange(len(ours)), places), np.flatnonzero(places < 0)
    if frozen.kind == given.kind == "keyed" and len(lost) == len(new) > 0:
        # The same contents under other keys are the same items: files were renamed.
        by_ours = lost[np.argsort(halves(ours[lost])[1], kind="stable")]
        by_theirs = new[np.argsort(halves(theirs[new])[1], kind="stable")]
        renamed = halves(ours[by_ours])[1] == halves(theirs[by_theirs])[1]
        if renamed.all():
            places[by_theirs] = by_ours
            lost = new = new[:0]
    _refuse_changed(name, max(len(lost), len(new)), frozen.count, "another or no item in its place")
    return None if np.array_equal(places, np.arange(len(ours))) else places


def _refuse_changed(name: str, differing: int, count: int, what: str) -> None:
    if differing:
        raise DataChanged(
            f"holdout {name!r} is not what it was",
            why=f"{differing} of its {count} items have {what}",
            do="give the items that were frozen, or freeze these under another name",
        )


def _inside(digests: Digests, holdout: Holdout) -> npt.NDArray[np.bool_]:
    if holdout.digests is None or not len(digests):
        return np.zeros(len(digests), np.bool_)
    if holdout.kind != "keyed":
        return locate(digests, holdout.digests) >= 0
    keys, contents = halves(digests)
    held_keys, held_contents = halves(holdout.digests)
    return np.isin(keys, held_keys) | np.isin(contents, held_contents)


def _digests(digests: Digests | None, count: int, name: str) -> Digests | None:
    if count < 1:
        raise DataError(f"holdout {name!r} has {count} items", do="hold out at least one item")
    if digests is None:
        return None
    if digests.dtype != np.uint8 or digests.shape != (count, DIGEST_BYTES):
        raise DataError(
            f"the digests of holdout {name!r} are {digests.dtype} {list(digests.shape)}",
            why=f"{count} items have uint8 [{count}, {DIGEST_BYTES}]",
        )
    high, low = halves(digests)
    order = np.lexsort((low, high))
    high, low = high[order], low[order]
    twice = int(np.count_nonzero((high[1:] == high[:-1]) & (low[1:] == low[:-1])))
    if twice:
        raise DataError(
            f"{twice} items of holdout {name!r} are in it twice", do="hold each out once"
        )
    return np.array(digests)  # what is frozen must not change with the caller's array


def _clusters(clusters: npt.NDArray[np.int64] | None, count: int, name: str) -> Indices | None:
    if clusters is None:
        return None
    given = np.asarray(clusters)
    if given.dtype.kind not in "iu" or given.shape != (count,):
        raise DataError(
            f"the clusters of holdout {name!r} are {given.dtype} {list(given.shape)}",
            why=f"{count} items have integers [{count}], one for each",
        )
    return given.astype(np.int64)


def _outcomes(outcomes: npt.ArrayLike, count: int, name: str) -> Outcomes:
    given = np.asarray(outcomes)
    if given.shape != (count,) or given.dtype.kind not in "bf":
        raise DataError(
            f"the outcomes of holdout {name!r} are {given.dtype} {list(given.shape)}",
            why=f"it has {count} items, and needs bool [{count}] or float [{count}]",
            do="give one for each item, such as predicted == labels as a NumPy array",
        )
    if given.dtype == np.bool_:
        return given.copy()
    wide = given.dtype.itemsize > 4
    checked: Outcomes = given.astype(np.float64) if wide else given.astype(np.float32)
    wrong = np.flatnonzero(~np.isfinite(checked))
    if len(wrong):
        raise DataError(
            f"{len(wrong)} outcomes of holdout {name!r} are not finite",
            why=f"the first is {given[wrong[0]]} for item {wrong[0]}",
            do="look for what made the model give NaN or infinity there",
        )
    return checked


def _stored(outcomes: Outcomes | None) -> npt.NDArray[Any] | None:
    is_bool = outcomes is not None and outcomes.dtype == np.bool_
    return outcomes.view(np.uint8) if is_bool and outcomes is not None else outcomes


def _loaded(stored: Any) -> Outcomes | None:
    is_bool = stored is not None and stored.dtype == np.uint8
    outcomes: Outcomes | None = stored != 0 if is_bool else stored
    return outcomes


def _worded(metric: str, higher_is_better: bool) -> str:
    return f"{metric!r} ({'higher' if higher_is_better else 'lower'} is better)"


def _check_name(name: str, what: str) -> None:
    if not isinstance(name, str) or not name or not name.isprintable():
        raise UsageError(f"{name!r:.80} cannot be the name of {what}", do="give a printable text")
    if len(name.encode("utf-8", "surrogatepass")) > MAX_HOLDOUT_NAME:
        raise UsageError(
            f"{name!r:.80} is too long to be the name of {what}",
            why=f"at most {MAX_HOLDOUT_NAME} bytes are recorded with every increment",
        )
