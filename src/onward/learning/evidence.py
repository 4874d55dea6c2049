"""The evidence of a checkpoint: how it did on each item of the frozen holdouts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from onward.errors import Damaged
from onward.learning.holdouts import Holdout, Holdouts
from onward.repository import Commit, History, Manifest, Repository
from onward.repository.asking import with_checkpoint
from onward.repository.subtrees import read_subtree

PLACE = ("onward", "learning", "holdouts")
"""Where the holdouts are in a checkpoint's state tree."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """What one checkpoint shows; `began_from` is the checkpoint that its increment went on from."""

    checkpoint: str
    label: str
    began_from: str | None = None
    holdouts: Mapping[str, Holdout] = field(default_factory=dict)


def evidence_of(repository: Repository, commit: Commit) -> Evidence:
    """The evidence in a checkpoint, without the rest of its state, and without a framework.

    A checkpoint that never knew a holdout has none. Raises `Damaged`, `Dropped`, `NewerFormat`,
    `StoreError`.
    """

    def read(found: Commit, manifest: Manifest) -> Evidence:
        history = repository.history
        return Evidence(
            checkpoint=found.checkpoint,
            label=f"v{history.versions()[found.checkpoint]} {found.checkpoint}",
            began_from=began_from(history, found),
            holdouts=_holdouts(repository, found, manifest),
        )

    return with_checkpoint(repository, lambda history: history.resolve(commit.checkpoint), read)


def live_evidence(holdouts: Holdouts, *, began_from: str | None) -> Evidence:
    """The evidence of a model that is no checkpoint yet: a verdict can stand in its record."""
    held = {name: holdouts[name] for name in holdouts.names}
    return Evidence(checkpoint="", label="this increment", began_from=began_from, holdouts=held)


def began_from(history: History, commit: Commit) -> str | None:
    """The checkpoint from which the increment of `commit` went on; None if it was the first."""
    for ancestor in ancestors(history, commit):
        if ancestor.increment < commit.increment:
            return ancestor.checkpoint
    return None


def ancestors(history: History, commit: Commit) -> Iterator[Commit]:
    """A checkpoint's parent, its parent, and so on, dropped ones included."""
    parent = commit.parent
    while parent is not None:
        ancestor = history.commits[parent]
        yield ancestor
        parent = ancestor.parent


def _holdouts(repository: Repository, commit: Commit, manifest: Manifest) -> Mapping[str, Holdout]:
    tree = read_subtree(repository.store, manifest, *PLACE)
    if tree is None:
        return {}
    holdouts = Holdouts()
    try:
        holdouts.load_state_dict(tree)
        found = {name: holdouts[name] for name in holdouts.names}
        for name, holdout in found.items():
            _check_shapes(name, holdout)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise Damaged(
            f"the holdouts in checkpoint {commit.checkpoint} cannot be read",
            why=f"{type(error).__name__}: {error}",
            do="run `onward verify`; a checkpoint made by other code may hold something else there",
        ) from error
    return found


def _check_shapes(name: str, holdout: Holdout) -> None:
    count = holdout.count
    arrays = [
        ("digests", holdout.digests, (count, 16), "u"),
        ("clusters", holdout.clusters, (count,), "i"),
        ("outcomes", holdout.outcomes, (count,), "bf"),
        ("before", holdout.before, (count,), "bf"),
    ]
    for what, array, shape, kinds in arrays:
        if array is not None and (array.shape != shape or array.dtype.kind not in kinds):
            raise ValueError(f"{what} of {name!r} are {array.dtype} {list(array.shape)}")
        if array is not None and array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"{what} of {name!r} are not finite")
