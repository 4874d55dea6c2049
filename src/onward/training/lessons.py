"""What an increment is about, as the hooks of a strategy may look at it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from onward.data.items import Digests
from onward.data.order import Indices, derive_seed
from onward.learning.hooks import Batch, Reading


@dataclass(frozen=True)
class LoaderLessons:
    """The lessons of one of Onward's loaders; see `onward.learning.hooks.Lessons`."""

    loader: Any
    new: Indices
    labels: npt.NDArray[np.int64] | None
    find_digests: Callable[[], Digests]
    reading: Reading
    seed: int
    read_raw: Callable[[int], Any] | None = None

    @property
    def first_slot(self) -> int:
        first: int = self.loader.first_slot
        return first

    @cached_property
    def digests(self) -> Digests:
        """The 16 bytes of each item; counted items are known by their number."""
        return self.find_digests()

    def only(self, new: Indices) -> LoaderLessons:
        """The same, of fewer items."""
        return replace(self, new=new)

    def raw(self, index: int) -> Any:
        """An item as it is to be remembered, with the same augmentation every time."""
        if self.read_raw is not None:
            return self.read_raw(int(index))
        return self.loader.raw(int(index), seed=derive_seed(self.seed, "remember", int(index)))

    def batches(self, indices: Indices, *, batch_size: int) -> Iterator[Batch]:
        """These items, or slots, collated in this order, with the same randomness every time."""
        for start in range(0, len(indices), batch_size):
            some = indices[start : start + batch_size]
            batch = self.loader.load(some, seed=derive_seed(self.seed, "look", start))
            yield as_batch(batch, self.reading, rows=some, first_slot=self.first_slot)


def as_batch(batch: Any, reading: Reading, *, rows: Any, first_slot: int) -> Batch:
    """A batch of the loop for hooks; `rows` are its items by number."""
    slots = np.asarray(rows, np.int64) - first_slot
    return Batch(len(slots), np.maximum(slots, -1), reading.inputs(batch), reading.labels(batch))
