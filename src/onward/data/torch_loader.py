"""The loader that Onward makes: what is new, with old items mixed in, in a resumable order."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from torch.utils.data import default_collate

from onward.data.order import (
    EpochOrder,
    Indices,
    batch_seeds,
    derive_seed,
    epoch_batches,
    replayed_items,
)
from onward.data.torch_fetching import Fetcher, SeededBatches
from onward.data.torch_position import PositionedLoader
from onward.errors import UsageError


class Loader(PositionedLoader):
    """Batches of a map-style dataset; order and augmentations follow from `seed` and position.

    `new` and `old` are indices of the items to learn and to replay (`Ledger.pinned_items`); by
    default every item is new. The options of workers are those of `torch.utils.data.DataLoader`,
    and change nothing but speed. A dataset with random generators of its own, other than the
    global ones of Python, NumPy and PyTorch, must see to their seeds itself.

    >>> loader = Loader(range(10), seed=1, increment=1, batch_size=5)
    >>> [len(batch) for batch in loader]
    [5, 5]
    """

    def __init__(
        self,
        dataset: Any,
        *,
        seed: int,
        increment: int,
        new: Indices | None = None,
        old: Indices | None = None,
        batch_size: int = 1,
        shuffle: bool = True,
        drop_last: bool = False,
        replay: float = 1.0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        num_workers: int = 0,
        pin_memory: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], None] | None = None,
        multiprocessing_context: Any = None,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
    ) -> None:
        super().__init__()
        _check(batch_size, replay)
        self.dataset = dataset
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.replay = replay
        self._seed, self._increment = seed, increment
        self._new = np.arange(len(dataset), dtype=np.int64) if new is None else new
        self._old = np.empty(0, np.int64) if old is None else old
        self._fetcher = Fetcher(
            SeededBatches(dataset, collate_fn or default_collate, batched=True),
            {
                "num_workers": num_workers,
                "pin_memory": pin_memory,
                "timeout": timeout,
                "worker_init_fn": worker_init_fn,
                "multiprocessing_context": multiprocessing_context,
                "prefetch_factor": prefetch_factor,
                "persistent_workers": persistent_workers,
            },
        )

    def __len__(self) -> int:
        replayed = replayed_items(len(self._new), len(self._old), self.replay)
        return epoch_batches(len(self._new) + replayed, self.batch_size, drop_last=self.drop_last)

    def order(self, epoch: int) -> EpochOrder:
        """The order in which `epoch` meets the items."""
        return EpochOrder(
            new=self._new,
            old=self._old,
            seed=self._seed,
            increment=self._increment,
            epoch=epoch,
            batch_size=self.batch_size,
            replay=self.replay,
            shuffle=self.shuffle,
            drop_last=self.drop_last,
        )

    def _batches(self, epoch: int, first: int) -> Iterator[Any]:
        seed = derive_seed(self._seed, self._increment, epoch)
        jobs = zip(batch_seeds(seed, first), self.order(epoch).batches(first), strict=False)
        return self._fetcher.fetch(jobs, seed=seed)

    def _settings(self) -> dict[str, Any]:
        return {
            "seed": self._seed,
            "increment": self._increment,
            "new": len(self._new),
            "old": len(self._old),
            "batch_size": self.batch_size,
            "shuffle": self.shuffle,
            "drop_last": self.drop_last,
            "replay": self.replay,
        }


def _check(batch_size: int, replay: float) -> None:
    if batch_size < 1:
        raise UsageError(f"batch_size is {batch_size}", do="give a number of items, 1 or more")
    if not 0 <= replay < math.inf:
        raise UsageError(
            f"replay is {replay}",
            do="give how many old items come with each new one: 0 for none, 1.0 for as many",
        )
