"""A user's own DataLoader, made to begin where a run was interrupted.

Three ways, by what the loader is:

- A DataLoader over a map-style dataset is rebuilt once with the same parts. Batches before the
  position cost their indices, not their items. Samplers draw from randomness of their own, seeded
  per epoch; explicit generators are seeded per epoch too.
- A loader with `state_dict` and `load_state_dict` (torchdata's `StatefulDataLoader`) is resumed by
  its own state.
- Anything else (an `IterableDataset`, a loader with its own `__iter__`) is iterated from the start
  of the epoch, and the batches before the position are loaded and dropped; a warning says so.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, IterableDataset

from onward.data.order import batch_seeds, derive_seed
from onward.data.position import PositionedLoader
from onward.data.torch_fetching import Fetcher, SeededBatches, TorchIsolated

_INDEX_BATCHES_AT_ONCE = 32  # swapping randomness for every index batch would cost 40 µs a batch

_KEPT_OPTIONS = (
    "num_workers",
    "pin_memory",
    "timeout",
    "worker_init_fn",
    "multiprocessing_context",
    "prefetch_factor",
    "persistent_workers",
)


class Positioned(PositionedLoader):
    """The batches of the user's own `loader`, with a position.

    A persistent worker is not persistent over an `IterableDataset`: its randomness could not be
    set at the start of an epoch otherwise. Samplers are asked up to 32 batches ahead.
    """

    def __init__(self, loader: Any, *, seed: int, increment: int) -> None:
        super().__init__()
        self.loader = loader
        self._seeds = _Seeds(seed, increment)
        # Kept in the state: a generator that the script seeds from the clock has another one next
        # time, but the epoch that was interrupted must go on in its old order.
        self._generators = _generators_of(loader)
        self._generator_seeds = [generator.initial_seed() for generator in self._generators]
        self._way = _way_through(loader, self._seeds)

    def __len__(self) -> int:
        return len(self.loader)

    def __getattr__(self, name: str) -> Any:
        # Scripts read `loader.dataset`, `loader.batch_size` and the like.
        if name.startswith("_") or name == "loader":
            raise AttributeError(name)
        return getattr(self.loader, name)

    def _batches(self, epoch: int, first: int) -> Iterator[Any]:
        for generator, initial in zip(self._generators, self._generator_seeds, strict=True):
            generator.manual_seed(self._seeds.of(epoch, "generator", initial))
        for sampler in _samplers_of(self.loader):
            if callable(set_epoch := getattr(sampler, "set_epoch", None)):
                set_epoch(epoch)
        return self._way.batches(epoch, first)

    def _settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = {
            "seed": self._seeds.seed,
            "increment": self._seeds.increment,
            "batch_size": getattr(self.loader, "batch_size", None),
        }
        try:
            settings["batches"] = len(self.loader)
        except (TypeError, NotImplementedError):
            settings["batches"] = None  # nobody knows how long a stream is
        return settings

    def _extra_state(self) -> dict[str, Any]:
        return {
            "generator_seeds": list(self._generator_seeds),
            "own": self._way.state() if self.batches_taken else None,
        }

    def _load_extra_state(self, state_dict: Mapping[str, Any]) -> None:
        if len(state_dict["generator_seeds"]) == len(self._generators):
            self._generator_seeds = list(state_dict["generator_seeds"])
        if state_dict["own"] is not None:
            self._way.load_state(state_dict["own"])


class _Seeds:
    """The seeds of one increment."""

    def __init__(self, seed: int, increment: int) -> None:
        self.seed = seed
        self.increment = increment

    def of(self, *parts: int | str) -> int:
        return derive_seed(self.seed, self.increment, *parts)


class _Way(Protocol):
    """A way to the batches of an epoch from a given one on."""

    def batches(self, epoch: int, first: int) -> Iterator[Any]: ...

    def state(self) -> Any: ...

    def load_state(self, state: Any) -> None: ...


def _way_through(loader: Any, seeds: _Seeds) -> _Way:
    if callable(getattr(loader, "state_dict", None)) and hasattr(loader, "load_state_dict"):
        return _ByOwnState(loader, seeds)
    if not isinstance(loader, DataLoader) or type(loader).__iter__ is not DataLoader.__iter__:
        return _ByReplay(loader, seeds)
    if isinstance(loader.dataset, IterableDataset):
        return _ByReplay(_with_passing_workers(loader), seeds)
    return _ByIndices(loader, seeds)


class _ByIndices:
    """Goes through the indices that the user's samplers give, and loads what is wanted."""

    def __init__(self, loader: DataLoader[Any], seeds: _Seeds) -> None:
        batched = loader.batch_sampler is not None
        self._indices: Any = loader.batch_sampler if batched else loader.sampler
        self._seeds = seeds
        self._isolated = TorchIsolated()
        self._fetcher = Fetcher(
            SeededBatches(loader.dataset, loader.collate_fn, batched=batched),
            {option: getattr(loader, option) for option in _KEPT_OPTIONS},
        )

    def batches(self, epoch: int, first: int) -> Iterator[Any]:
        seed = self._seeds.of(epoch)
        wanted = itertools.islice(self._in_order(epoch), first, None)
        jobs = zip(batch_seeds(seed, first), wanted, strict=False)
        return self._fetcher.fetch(jobs, seed=seed)

    def state(self) -> None:
        return None

    def load_state(self, state: Any) -> None:
        return None

    def _in_order(self, epoch: int) -> Iterator[Any]:
        source: Iterator[Any] | None = None
        for part in itertools.count():
            with self._isolated.seeded(self._seeds.of(epoch, "order", part)):
                source = iter(self._indices) if source is None else source
                indices = list(itertools.islice(source, _INDEX_BATCHES_AT_ONCE))
            if not indices:
                return
            yield from indices


class _ByReplay:
    """Loads the epoch from its start and drops what was learned from already."""

    def __init__(self, loader: Any, seeds: _Seeds) -> None:
        self._loader = loader
        self._seeds = seeds
        self._isolated = TorchIsolated()

    def batches(self, epoch: int, first: int) -> Iterator[Any]:
        if first:
            warnings.warn(
                f"going on at batch {first} loads {first} batches only to drop them: a "
                f"{type(self._loader).__name__} over a stream has no other way (torchdata's "
                "StatefulDataLoader has)",
                stacklevel=3,
            )
        whole = _isolated_batches(self._loader, self._isolated, self._seeds, epoch, 0)
        return itertools.islice(whole, first, None)

    def state(self) -> None:
        return None

    def load_state(self, state: Any) -> None:
        return None


class _ByOwnState:
    """Leaves the position within an epoch to the loader's own state."""

    def __init__(self, loader: Any, seeds: _Seeds) -> None:
        self._loader = loader
        self._seeds = seeds
        self._isolated = TorchIsolated()
        self._loaded: Any = None
        self._ended = False

    def batches(self, epoch: int, first: int) -> Iterator[Any]:
        if first and self._ended:
            return  # an ended loader that loads its state would begin another epoch
        self._ended = False
        begin = 0
        if first and self._loaded is not None:
            begin = first
            self._loader.load_state_dict(self._loaded)
        whole = _isolated_batches(self._loader, self._isolated, self._seeds, epoch, begin)
        for batch in itertools.islice(whole, first - begin, None):
            self._loaded = None
            yield batch
        self._loaded = None
        self._ended = True

    def state(self) -> Any:
        if self._ended:
            return {"ended": True}
        # Before its first batch a loader would begin an epoch only to tell its state.
        state = self._loader.state_dict() if self._loaded is None else self._loaded
        return {"ended": False, "state": state}

    def load_state(self, state: Any) -> None:
        self._ended, self._loaded = state["ended"], state.get("state")


def _isolated_batches(
    loader: Any, isolated: TorchIsolated, seeds: _Seeds, epoch: int, first: int
) -> Iterator[Any]:
    """The batches that `loader` gives next, none of which touches the program's randomness."""
    epoch_seed = seeds.of(epoch)
    with isolated.seeded(epoch_seed):
        source = iter(loader)
    for seed in batch_seeds(epoch_seed, first):
        with isolated.seeded(seed):
            try:
                batch = next(source)
            except StopIteration:
                return
        yield batch


def _with_passing_workers(loader: DataLoader[Any]) -> DataLoader[Any]:
    """The same loader with workers that live for one epoch, if its workers are persistent."""
    if not loader.persistent_workers:
        return loader
    options = {option: getattr(loader, option) for option in _KEPT_OPTIONS}
    return DataLoader(
        loader.dataset,
        batch_size=loader.batch_size,
        drop_last=loader.drop_last,
        collate_fn=loader.collate_fn,
        generator=loader.generator,
        **{**options, "persistent_workers": False},
    )


def _samplers_of(loader: Any) -> list[Any]:
    """Everything that decides on the order of `loader`, each once."""
    batches = getattr(loader, "batch_sampler", None)
    found = [getattr(loader, "sampler", None), batches, getattr(batches, "sampler", None)]
    return list({id(sampler): sampler for sampler in found if sampler is not None}.values())


def _generators_of(loader: Any) -> list[torch.Generator]:
    found = [getattr(part, "generator", None) for part in [loader, *_samplers_of(loader)]]
    return list({id(g): g for g in found if isinstance(g, torch.Generator)}.values())
