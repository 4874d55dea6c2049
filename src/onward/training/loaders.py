"""The loaders of a run: where each of them is, what each of them has taught."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, overload

import blake3
import numpy as np
import numpy.typing as npt

from onward.data.content import identify
from onward.data.delta import nothing_new
from onward.data.items import DIGEST_BYTES, Digests, Items
from onward.data.ledger import Ledger
from onward.data.order import derive_seed
from onward.data.snapshot import DataSnapshot
from onward.errors import NothingNew, UsageError
from onward.training.auditing import Audit
from onward.training.learning import Learning
from onward.training.lessons import LoaderLessons


class Loaders:
    """Makes loaders, and keeps their positions and ledgers for the checkpoint.

    A position counts batches that the loop took, never those that workers fetched ahead.
    `again` says that a finished model shall train although nothing is new; `data` is where the
    agent put the data.
    """

    def __init__(
        self,
        framework: str,
        learning: Learning,
        *,
        seed: int,
        increment: int,
        again: bool = False,
        audit: Audit | None = None,
        data: str = "",
    ) -> None:
        self.on_first_batch: Callable[[], None] = lambda: None
        self.on_wait: Callable[[], None] = lambda: None
        self.on_start: Callable[[], None] = lambda: None
        self.spent: Callable[[], bool] = lambda: False
        self._framework = framework
        self._learning = learning
        self._seed = seed
        self._increment = increment
        self._again = again
        self._audit = audit
        self._data = data
        self._loaders: dict[str, Any] = {}
        self._ledgers: dict[str, Ledger] = {}
        self._counts: dict[str, int | None] = {}
        self._facts: dict[str, dict[str, Any]] = {}
        self._saved: dict[str, Any] = {}
        self._new_increment = False
        self._marks: dict[str, tuple[int, int]] = {}
        self._teaching: dict[str, Any] = {}

    @property
    def seed(self) -> int:
        """What the order of samples follows from; an unfinished increment's own, once restored."""
        return self._seed

    # Making them.

    def own(
        self,
        dataset: Any,
        *,
        batch_size: int,
        name: str,
        ids: Any = None,
        labels: Any = None,
        holdout: float = 0.0,
        only_new: bool = False,
        raw: Callable[[int], Any] | None = None,
        replay: Any = "uniform",
        **options: Any,
    ) -> Any:
        """See `Run.loader`."""
        name = self._free_name(name, "loader")
        dataset = self._module().adapted(dataset)
        items, names = _items_of(dataset, ids)
        if only_new and items.kind == "counted":
            raise UsageError(
                "only_new=True needs ids",
                why="without them nobody could tell new items from those of the last time",
                do='give ids=: one per item, or ids="content"',
            )
        self._learning.judging.refuse_leaks(items, names)
        digests = partial(_digests_of, items)
        ledger, removed = self._ledger(
            name, items, digests=digests, holdout=holdout, only_new=only_new
        )
        for given in self._learning.judging.given:
            self._refuse_learned(ledger, given)
        pinned = ledger.pinned_items(items, names=names)
        loader = self._module().Loader(
            dataset,
            batch_size=batch_size,
            new=pinned.new,
            old=pinned.old,
            seed=self._seed,
            increment=self._increment,
            replay=replay,
            **options,
        )
        self._ledgers[name] = ledger
        self._counts[name] = items.count
        self._facts[name] = {
            "new": len(pinned.new), "known": ledger.known, "digest": _digest_of(items),
            **_changes_of(ledger), **self._facts.get(name, {}),
        }  # fmt: skip
        if self._data and ids is None and hasattr(dataset, "how_read"):
            self._facts[name]["read"] = dataset.how_read(self._data)
        self._learning.teach(
            LoaderLessons(
                loader, pinned.new, _labels_of(dataset, labels, items.count), digests,
                self._learning.learner.reading, derive_seed(self._seed, self._increment), raw,
            ),
            known=ledger.known,
            removed=removed,
        )  # fmt: skip
        if self._learning.judging.holdouts.names:
            self._learning.judging.find(loader, digests())
        loader.on_start = lambda: self.on_start()
        loader.spent = lambda: self.spent()
        return self._register(name, loader)

    def hold_out(
        self, name: str, dataset: Any, *, ids: Any, clusters: Any, collate_fn: Any
    ) -> None:
        """See `Run.holdout`."""
        dataset = self._module().adapted(dataset)
        items, _ = _items_of(dataset, ids, otherwise="content")
        loader = self._module().Loader(dataset, seed=0, increment=0, collate_fn=collate_fn)
        judging = self._learning.judging
        judging.declare(
            name,
            loader,
            items=items,
            clusters=None if clusters is None else np.asarray(clusters, np.int64),
        )
        for ledger in self._ledgers.values():
            self._refuse_learned(ledger, items)

    def _refuse_learned(self, ledger: Ledger, held_out: Items) -> None:
        """Raises `Leak` where the model has, or may have, learned some of these items already."""
        if ledger.kind == held_out.kind:
            learned = np.flatnonzero(ledger.seen(held_out))
            self._learning.judging.refuse_leaks(held_out.at(learned))

    def users(self, loader: Any, *, name: str) -> Any:
        """See `Run.batches`."""
        name = self._free_name(name, "batches")
        positioned = self._module().Positioned(loader, seed=self._seed, increment=self._increment)
        self._counts[name] = _count_of(loader, positioned)
        return self._register(name, positioned)

    def _ledger(
        self,
        name: str,
        items: Items,
        *,
        digests: Callable[[], Digests],
        holdout: float,
        only_new: bool,
    ) -> tuple[Ledger, Digests]:
        """The ledger, pinned to this increment, and what is gone since the last one."""
        nothing = np.empty((0, DIGEST_BYTES), np.uint8)
        ledger = Ledger()
        saved = self._saved.get(name, {}).get("ledger")
        if saved is not None:
            ledger.load_state_dict(saved)
            if not self._new_increment:
                return ledger, nothing
            if ledger.pinned is not None:  # saved before what was met was told
                ledger.learn_pinned()
        held = self._learning.held_out(digests, items.count)
        if self._audit is not None:
            held |= self._audit.left_out(name, items, digests())
        elif holdout:
            new = ledger.new_items(items)
            held |= self._learning.judging.cut_out(
                new[~held[new]], digests, share=holdout,
                kind="identified" if items.kind == "counted" else items.kind,
            )  # fmt: skip
        try:
            delta = ledger.pin(
                items, eligible=~held if held.any() else None, again=self._again,
                partial=only_new,
            )  # fmt: skip
        except NothingNew as error:
            print(f"onward: {error}", flush=True)
            raise
        self._facts[name] = {"held_out": int(held.sum())}
        gone = nothing if only_new else np.concatenate([delta.removed, delta.superseded])
        return ledger, gone

    def _register(self, name: str, loader: Any) -> Any:
        saved = self._saved.get(name)
        if saved is not None and not self._new_increment:
            loader.load_state_dict(saved["position"])
        loader.on_first_batch = lambda: self.on_first_batch()
        loader.on_wait = lambda: self.on_wait()
        self._loaders[name] = loader
        self._marks[name] = _position(loader)
        return loader

    def _free_name(self, name: str, kind: str) -> str:
        if not name:
            taken = sum(1 for other in self._loaders if other.startswith(kind))
            name = f"{kind}{taken}"
        if name in self._loaders:
            raise UsageError(
                f"there is a loader {name!r} already",
                why="each has its own position in the checkpoint",
                do="make loaders once, before the loop, or give them different names",
            )
        return name

    def _module(self) -> Any:
        return importlib.import_module(f"onward.data.{self._framework}")

    # Where they are.

    def begin_epoch(self, epoch: int) -> None:
        """The loop enters an epoch; loaders that are in it already keep their position."""
        if epoch == 0:
            self._refuse_nothing_new()
        for name, loader in self._loaders.items():
            if loader.epoch != epoch:
                loader.start_at(epoch, 0)
            self._marks[name] = _position(loader)

    def end_epoch(self, following: int) -> None:
        """The loop has left an epoch: every loader begins the following one."""
        for name, loader in self._loaders.items():
            loader.start_at(following, 0)
            self._marks[name] = _position(loader)

    def mid_epoch(self) -> bool:
        """Whether some loader will go on behind its first batch."""
        return any(loader.batches_taken > 0 for loader in self._loaders.values())

    def consumed(self) -> None:
        """The optimizer has stepped: what the loaders gave is learned."""
        for name, loader in self._loaders.items():
            if loader.iterating:
                self._marks[name] = _position(loader)
                self._teaching[name] = loader

    def close(self) -> None:
        """Nothing more will be loaded."""
        for loader in self._loaders.values():
            loader.close()

    def learn(self) -> None:
        """The increment is over: what its budget met is known now, the rest stays new."""
        for name, ledger in self._ledgers.items():
            if ledger.pinned is not None:
                ledger.learn_pinned(self._loaders[name].met())

    def within_batches(self) -> bool:
        """Whether the loop is among the batches that it trains on, or uses no loader at all.

        Batches that are only evaluated do not count, once a step has told them apart.
        """
        return not self._loaders or any(loader.iterating for loader in self._teaching.values())

    def teaching(self) -> Any:
        """The loader of Onward's that handed out a batch last."""
        for loader in reversed(self._loaders.values()):
            if loader.iterating and hasattr(loader, "rows"):
                return loader
        raise UsageError(
            "there is no batch to add a penalty to",
            why="a strategy knows the batches of run.loader, while the loop is among them",
            do="take the loop's batches from run.loader(dataset, …)",
        )

    def users_batches(self) -> int | None:
        """The length of an epoch of the script's own loader, where that is what it trains on."""
        for name, loader in self._loaders.items():
            if name not in self._ledgers:
                try:
                    return len(loader)
                except (TypeError, NotImplementedError):
                    return None
        return None

    def settled(self) -> bool:
        """Whether every batch taken for training has been followed by an optimizer step."""
        # Until the first step, any loader may be the one that is trained on.
        return all(
            _position(loader) == self._marks[name]
            for name, loader in (self._teaching or self._loaders).items()
        )

    def place(self) -> tuple[int, int | None]:
        """Batch and batches of the loader that is being trained from, for people."""
        if not self._teaching:
            return 0, None
        loader = next(reversed(self._teaching.values()))
        try:
            return loader.batches_taken, len(loader)
        except TypeError:
            return loader.batches_taken, None

    def about(self) -> dict[str, Any]:
        """What was learned from, for people."""
        described = {}
        for name, loader in self._loaders.items():
            facts: dict[str, Any] = {"items": self._counts[name]}
            facts.update(self._facts.get(name, {}))
            try:
                facts["batches"] = len(loader)
            except TypeError:
                facts["batches"] = None
            described[name] = facts
        return described

    # Their state.

    def state_dict(self) -> dict[str, Any]:
        saved = {name: dict(entry) for name, entry in self._saved.items()}
        for name, loader in self._loaders.items():
            ledger = self._ledgers.get(name)
            saved[name] = {
                "position": loader.state_dict(),
                "ledger": ledger.state_dict() if ledger is not None else None,
                "items": self._counts[name],
            }
        return {"seed": self._seed, "loaders": saved}

    def load_state_dict(self, state: Mapping[str, Any], *, new_increment: bool) -> None:
        self._saved = dict(state["loaders"])
        self._new_increment = new_increment
        if not new_increment:
            # The order of an unfinished increment was decided when it began.
            self._seed = state["seed"]

    def _refuse_nothing_new(self) -> None:
        """For the user's own loaders, whose items have no ledger: the counts must differ."""
        if not self._new_increment or self._again or self._ledgers:
            return
        counts = {name: count for name, count in self._counts.items() if count is not None}
        if counts and all(
            self._saved.get(name, {}).get("items") == count for name, count in counts.items()
        ):
            error = nothing_new("every dataset has as many items as when the model was finished")
            print(f"onward: {error}", flush=True)
            raise error


def _items_of(
    dataset: Any, ids: Any, *, otherwise: str | None = None
) -> tuple[Items, Sequence[str] | None]:
    """What the items of a dataset are known by, and their names: a source says so itself."""
    if ids is None and callable(snapshot := getattr(dataset, "snapshot", None)):
        found = snapshot()
        if isinstance(found, DataSnapshot):
            return found.identified, found.names
    items = identify(dataset, otherwise if ids is None else ids)
    named = not isinstance(ids, str) and hasattr(ids, "__len__")
    return items, _Shown(ids) if named else None


class _Shown(Sequence[str]):
    """Ids as text, each made when it is asked for."""

    def __init__(self, ids: Sequence[Any]) -> None:
        self._ids = ids

    def __len__(self) -> int:
        return len(self._ids)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[str]: ...
    def __getitem__(self, at: int | slice) -> str | Sequence[str]:
        return _Shown(self._ids[at]) if isinstance(at, slice) else str(self._ids[at])


def _changes_of(ledger: Ledger) -> dict[str, int]:
    changes = ledger.changes
    if changes is None:
        return {}
    return {"added": changes.added, "changed": changes.changed, "removed": changes.removed}


def _digests_of(items: Items) -> Digests:
    """16 bytes for each item; counted ones are known by their number."""
    found = items
    if items.digests is None:  # under names that no script would give
        found = Items.identified(b"\0item %d" % number for number in range(items.count))
    assert found.digests is not None
    return found.digests


def _digest_of(items: Items) -> str | None:
    """What the data is at this moment, in 16 digits; None where nobody looked at it."""
    if items.digests is None:
        return None
    return blake3.blake3(items.digests.tobytes()).hexdigest(length=8)


def _labels_of(dataset: Any, labels: Any, count: int) -> npt.NDArray[np.int64] | None:
    """The class of each item: as given, by a function of the index, or as the dataset tells."""
    if callable(labels):
        labels = [labels(index) for index in range(count)]
    elif labels is None:
        found = [getattr(dataset, name, None) for name in ("labels", "targets")]
        sized: list[Any] = [f for f in found if hasattr(f, "__len__")]
        labels = next((f for f in sized if len(f) == count), None)
        if labels is None:
            return None
    array = np.asarray(labels)
    if array.shape != (count,) or array.dtype.kind not in "iub":
        raise UsageError(
            f"labels are {array.dtype} of shape {array.shape} for {count} items",
            do="give one whole number for each item",
        )
    return array.astype(np.int64)


def _count_of(loader: Any, positioned: Any) -> int | None:
    """How many items a loader of the script's is over; None if nobody can tell."""
    try:
        return len(loader.dataset)
    except (AttributeError, TypeError):
        count: int | None = getattr(positioned, "items", None)
        return count if isinstance(count, int) else None


def _position(loader: Any) -> tuple[int, int]:
    return loader.epoch, loader.batches_taken
