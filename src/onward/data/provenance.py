"""Which checkpoints learned from an item: asked of their ledgers, without any framework."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from onward.data.items import DIGEST_BYTES, Items
from onward.data.ledger import Ledger, among
from onward.errors import Damaged, Dropped, NewerFormat, StateError, UnknownCheckpoint
from onward.repository import Commit, History, Manifest, Repository
from onward.repository.asking import with_checkpoint
from onward.repository.reading import read_tensors
from onward.repository.subtrees import described_subtree, filled, leaves, read_subtree
from onward.stores.base import Store

_RUN, _LOADERS = "onward", "loaders"
"""Where `training/counters.py` and `training/loaders.py` put the ledgers in a state tree."""

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Learners:
    """Which checkpoints learned from some items."""

    learned: list[tuple[Commit, int]] = field(default_factory=list)
    """Each live checkpoint that did, newest first, with how many of the items."""
    clean: Commit | None = None
    """The newest ancestor of the newest checkpoint, or itself, that learned from none of them."""
    unknown: list[Commit] = field(default_factory=list)
    """Live checkpoints that cannot say: they have no such ledger, or it cannot be read."""
    origins: list[Mapping[str, str]] = field(default_factory=list)
    """Other outputs whose weights live checkpoints began with; what these learned is told there."""


def described_ledgers(manifest: Manifest) -> dict[str, Mapping[str, Any]]:
    """The state of each loader's ledger by the loader's name; of arrays only what they are.

    Reads nothing but the manifest. Without a run of Onward's there are none.
    """
    found = described_subtree(manifest, _RUN, _LOADERS, _LOADERS)
    if not isinstance(found, Mapping):
        return {}
    ledgers = {
        str(name): entry.get("ledger")
        for name, entry in found.items()
        if isinstance(entry, Mapping)
    }
    return {name: state for name, state in ledgers.items() if isinstance(state, Mapping)}


def read_ledgers(store: Store, manifest: Manifest) -> dict[str, Ledger]:
    """Each loader's ledger by the loader's name.

    Raises `Damaged` if their bytes are not what was written, `StateError` and `NewerFormat` for
    what cannot be understood.
    """
    ledgers = {}
    for name in described_ledgers(manifest):
        state = read_subtree(store, manifest, _RUN, _LOADERS, _LOADERS, name, "ledger")
        ledgers[name] = Ledger()
        ledgers[name].load_state_dict(state)
    return ledgers


def ledgers_of(repository: Repository, commit: Commit) -> dict[str, Ledger]:
    """As `read_ledgers`, of a checkpoint; again where it is repacked meanwhile."""
    return with_checkpoint(
        repository,
        lambda history: commit,
        lambda _, manifest: read_ledgers(repository.store, manifest),
    )


def who_learned(repository: Repository, items: Items) -> Learners:
    """The live checkpoints that learned, or may have, from any of `items`.

    Keyed items count by their content. Ledgers share almost all of their arrays; each array is read
    once. Raises `StoreError`; what is damaged is among the `unknown`.
    """
    asking = _Asking(repository.store, items)
    counts: dict[str, int | None] = {}
    origins: list[Mapping[str, str]] = []
    commits = list(repository.history.newest_first())
    for commit in commits:
        try:
            manifest, count = with_checkpoint(
                repository, _only(commit), lambda _, manifest: (manifest, asking.count(manifest))
            )
        except (Dropped, UnknownCheckpoint):
            continue
        except (Damaged, NewerFormat, StateError):
            counts[commit.checkpoint] = None
            continue
        counts[commit.checkpoint] = count
        if manifest.origin is not None and manifest.origin not in origins:
            origins.append(manifest.origin)
    return Learners(
        learned=[(c, count) for c in commits if (count := counts.get(c.checkpoint))],
        clean=next((c for c in lineage(repository.history) if counts.get(c.checkpoint) == 0), None),
        unknown=[c for c in commits if c.checkpoint in counts and counts[c.checkpoint] is None],
        origins=origins,
    )


def lineage(history: History) -> Iterator[Commit]:
    """The newest checkpoint and its ancestors, newest first, those that were dropped included."""
    commit = history.latest()
    while commit is not None:
        yield commit
        commit = history.commits[commit.parent] if commit.parent is not None else None


class _Asking:
    """Asks one ledger after another about the same items."""

    def __init__(self, store: Store, items: Items) -> None:
        self._store = store
        self._items = items
        self._answers: dict[tuple[str, int], Flags] = {}

    def count(self, manifest: Manifest) -> int | None:
        """How many of the items the checkpoint has seen; None if it has no ledger of their kind."""
        flags = None
        for state in described_ledgers(manifest).values():
            seen = self._seen(manifest, state)
            if seen is not None:
                flags = seen if flags is None else flags | seen
        return None if flags is None else int(np.count_nonzero(flags))

    def _seen(self, manifest: Manifest, state: Mapping[str, Any]) -> Flags | None:
        arrays = list(leaves(state))
        # Version 1 names no kind: its items have ids where there are arrays of them.
        kind = state.get("kind", "identified" if arrays else "counted")
        if kind is None:  # nothing was learned
            return np.zeros(self._items.count, np.bool_)
        if kind != self._items.kind:
            return None
        if kind == "counted":
            ledger = Ledger()
            ledger.load_state_dict(filled(state, lambda index: self._read(manifest, index)))
            return ledger.seen(self._items)
        flags = np.zeros(self._items.count, np.bool_)
        for leaf, index in arrays:
            if (leaf.dtype, leaf.shape[1:]) == ("U8", (DIGEST_BYTES,)):
                flags |= self._answer(manifest, index)
        return flags

    def _answer(self, manifest: Manifest, index: int) -> Flags:
        digest = manifest.tensor(index).digest
        # Without a digest nothing says that it is the same array as in another checkpoint.
        key = (digest, -1) if digest is not None else (manifest.checkpoint, index)
        if key not in self._answers:
            entries = self._read(manifest, index).reshape(-1, DIGEST_BYTES)
            self._answers[key] = among(self._items, entries)
        return self._answers[key]

    def _read(self, manifest: Manifest, index: int) -> npt.NDArray[np.uint8]:
        return read_tensors(self._store, {index: manifest.tensor(index)})[index]


def _only(commit: Commit) -> Callable[[History], Commit]:
    def choose(history: History) -> Commit:
        if commit.checkpoint in history.dropped:
            raise UnknownCheckpoint(f"checkpoint {commit.checkpoint} was dropped")
        return commit

    return choose
