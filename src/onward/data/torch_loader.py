"""Onward's own loader for PyTorch: map-style datasets, loaded as `DataLoader` would."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

from torch.utils.data import default_collate

from onward.data.order import Indices
from onward.data.ordered import OrderedLoader, Slots
from onward.data.torch_fetching import Fetcher, SeededBatches
from onward.data.torch_memory import WithMemory


class Loader(OrderedLoader):
    """Batches of a map-style dataset; order and augmentations follow from `seed` and position.

    The options of workers are those of `torch.utils.data.DataLoader`, and change nothing but speed.
    A dataset with random generators of its own, other than the global ones of Python, NumPy and
    PyTorch, must see to their seeds itself.

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
        replay: float | Literal["uniform"] = 1.0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        num_workers: int = 0,
        pin_memory: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], None] | None = None,
        multiprocessing_context: Any = None,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
    ) -> None:
        super().__init__(
            dataset, seed=seed, increment=increment, new=new, old=old, batch_size=batch_size,
            shuffle=shuffle, drop_last=drop_last, replay=replay,
        )  # fmt: skip
        self._collate_fn = collate_fn
        self._batches_of = SeededBatches(dataset, collate_fn or default_collate, batched=True)
        self._options = {
            "num_workers": num_workers,
            "pin_memory": pin_memory,
            "timeout": timeout,
            "worker_init_fn": worker_init_fn,
            "multiprocessing_context": multiprocessing_context,
            "prefetch_factor": prefetch_factor,
            "persistent_workers": persistent_workers,
        }
        self._fetcher = Fetcher(self._batches_of, self._options)

    def close(self) -> None:
        """Ends kept workers here and now: a garbage collector might do it in any thread."""
        self._fetcher.close()

    def attach(self, slots: Slots) -> None:
        """Lets the numbers from `first_slot` on be these slots of a replay memory."""
        dataset = WithMemory(self.dataset, slots)
        self._batches_of = SeededBatches(dataset, self._collate_fn or default_collate, batched=True)
        self._fetcher = Fetcher(self._batches_of, self._options)

    def load(self, indices: Indices, *, seed: int) -> Any:
        """These items as a batch, here and now, with the randomness of `seed`."""
        return self._batches_of[seed, [int(index) for index in indices]]

    def raw(self, index: int, *, seed: int) -> Any:
        """One item, not collated, with the randomness of `seed`."""
        return self._batches_of.one(seed, index)

    def _fetch(self, jobs: Iterator[tuple[int, list[int]]], *, seed: int) -> Iterator[Any]:
        return self._fetcher.fetch(jobs, seed=seed)
