"""The loaders of a run: where each of them is, what each of them has taught."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from onward.data.items import Items
from onward.data.ledger import Ledger
from onward.errors import NothingNew, UsageError


class Loaders:
    """Makes loaders, and keeps their positions and ledgers for the checkpoint.

    A position counts batches that the loop took, never those that workers fetched ahead.
    `again` says that a finished model shall train although nothing is new.
    """

    def __init__(self, framework: str, *, seed: int, increment: int, again: bool = False) -> None:
        self.on_first_batch: Callable[[], None] = lambda: None
        self.on_wait: Callable[[], None] = lambda: None
        self._framework = framework
        self._seed = seed
        self._increment = increment
        self._again = again
        self._loaders: dict[str, Any] = {}
        self._ledgers: dict[str, Ledger] = {}
        self._counts: dict[str, int | None] = {}
        self._saved: dict[str, Any] = {}
        self._new_increment = False
        self._marks: dict[str, tuple[int, int]] = {}
        self._teaching: dict[str, Any] = {}

    # Making them.

    def own(self, dataset: Any, *, batch_size: int, name: str, **options: Any) -> Any:
        """See `Run.loader`."""
        ids: Sequence[Any] | None = options.pop("ids", None)
        name = self._free_name(name, "loader")
        items = Items.identified(ids) if ids is not None else Items.counted(_length(dataset))
        if items.count == 0:
            raise UsageError("the dataset is empty", do="give it items before training")
        ledger = self._ledger(name, items)
        pinned = ledger.pinned_items(items)
        loader = self._module().Loader(
            dataset,
            batch_size=batch_size,
            new=pinned.new,
            old=pinned.old,
            seed=self._seed,
            increment=self._increment,
            **options,
        )
        self._ledgers[name] = ledger
        self._counts[name] = items.count
        return self._register(name, loader)

    def users(self, loader: Any, *, name: str) -> Any:
        """See `Run.batches`."""
        name = self._free_name(name, "batches")
        positioned = self._module().Positioned(loader, seed=self._seed, increment=self._increment)
        try:
            self._counts[name] = len(loader.dataset)
        except (AttributeError, TypeError):
            self._counts[name] = None
        return self._register(name, positioned)

    def _ledger(self, name: str, items: Items) -> Ledger:
        ledger = Ledger()
        saved = self._saved.get(name, {}).get("ledger")
        if saved is None:
            ledger.pin(items)
            return ledger
        ledger.load_state_dict(saved)
        if not self._new_increment:
            return ledger
        ledger.learn_pinned()
        if not ledger.has_new(items):
            if not self._again:
                raise nothing_new(f"all {items.count:,} items of the dataset are learned")
            ledger = Ledger()
        ledger.pin(items)
        return ledger

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

    def within_batches(self) -> bool:
        """Whether the loop is among the batches that it trains on, or uses no loader at all.

        Batches that are only evaluated do not count, once a step has told them apart.
        """
        return not self._loaders or any(loader.iterating for loader in self._teaching.values())

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
            ledger = self._ledgers.get(name)
            if ledger is not None:
                facts.update(new=ledger.pinned, known=ledger.known)
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
            raise nothing_new("every dataset has as many items as when the model was finished")


def _position(loader: Any) -> tuple[int, int]:
    return loader.epoch, loader.batches_taken


def _length(dataset: Any) -> int:
    try:
        return len(dataset)
    except TypeError as error:
        raise UsageError(
            f"run.loader needs a dataset with a length; {type(dataset).__name__} has none",
            why="items are found again by their index",
            do="give a map-style dataset, or pass your own loader of the stream to run.batches",
        ) from error


def nothing_new(why: str) -> NothingNew:
    error = NothingNew(
        "nothing new to learn",
        why=why,
        do="add data and run the same command, or train again on the same with --continue",
    )
    print(f"onward: {error}", flush=True)
    return error
