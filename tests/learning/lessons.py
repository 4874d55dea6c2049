"""An increment's items in memory, for hooks that look at it as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from onward.data.items import Digests, Items
from onward.data.order import Indices
from onward.learning.hooks import Batch


class Given:
    """Items `first` … `stop` of a dataset whose item i is `raw(i)`; remembers what was read."""

    def __init__(
        self,
        first: int,
        stop: int,
        *,
        labels: Any = None,
        raw: Callable[[int], Any] = lambda index: (np.full(3, index, np.float32), index),
    ) -> None:
        self.new: Indices = np.arange(first, stop)
        self.labels = None if labels is None else np.asarray(labels, np.int64)
        self.digests = digests_of(range(stop))
        self.first_slot = stop
        self.read: list[int] = []
        self._raw = raw

    def raw(self, index: int) -> Any:
        self.read.append(index)
        return self._raw(index)

    def batches(self, indices: Indices, *, batch_size: int) -> Iterator[Batch]:
        raise NotImplementedError


def digests_of(numbers: Any) -> Digests:
    """The digest of each of these items."""
    found = Items.identified(int(number) for number in numbers).digests
    assert found is not None
    return found
