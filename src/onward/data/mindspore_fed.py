"""What a Python source of a pipeline gives, loaded by processes of Onward.

MindSpore calls the source of a `GeneratorDataset` in a thread of the training process, or in
processes that it seeds by their number. What the source draws at random would come from the
generators of the training loop, at moments that no two runs share, or depend on how many workers
there are. Here every item is loaded in a process beside, with a seed that its job names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from typing import Any

import mindspore.dataset as ds
import numpy as np

from onward.data.mindspore_python import PythonItems
from onward.data.order import batch_seeds, derive_seed
from onward.data.workers import Job

_AT_ONCE = 16  # items of a job, where batches are not known


class Feed:
    """The processes that load the items of a source; started when they are needed."""

    def __init__(self, source: Any, workers: int) -> None:
        self._items = PythonItems(source, workers=workers, collate_fn=_as_list)
        self.closed = False

    def start(self) -> None:
        """Starts them, before a thread of MindSpore's asks for items."""
        self.closed = False
        self._items.start()

    def fetch(self, jobs: Iterator[Job]) -> Iterator[Any]:
        """Item after item of the jobs. Ends early once the feed is closed."""
        try:
            for items in self._items.fetch(jobs, seed=0):
                yield from items or ()
        except (CancelledError, RuntimeError):
            if not self.closed:
                raise

    def close(self) -> None:
        """Ends them."""
        self.closed = True
        self._items.close()


class Rows:
    """The source of a `GeneratorDataset` while that is read: it can only be gone through.

    `jobs_of_pass` gives the jobs of each pass, from 0; a pipeline that repeats makes several.
    """

    def __init__(
        self, feed: Feed, count: int, jobs_of_pass: Callable[[int], Iterator[Job]]
    ) -> None:
        self._feed = feed
        self._count = count
        self._jobs_of_pass = jobs_of_pass
        self._passes = 0

    def __len__(self) -> int:
        return self._count

    def start(self) -> None:
        """Makes ready in the thread that calls this."""
        self._feed.start()

    def __iter__(self) -> Iterator[Any]:
        number, self._passes = self._passes, self._passes + 1
        return self._feed.fetch(self._jobs_of_pass(number))


def feed_of(dataset: ds.GeneratorDataset) -> Feed | None:
    """What loads the items of this source; None where nothing can be drawn, or asked for by number.

    Lists and arrays are as they are, and streams have no items that could be asked for.
    """
    source = dataset.source
    if type(dataset) is not ds.GeneratorDataset or dataset.has_batch_sampler:
        return None
    if isinstance(source, list | tuple | dict | range | np.ndarray):
        return None
    if not (hasattr(source, "__getitem__") and hasattr(source, "__len__")):
        return None
    return Feed(source, workers=max(1, dataset.num_parallel_workers))


def jobs_of(order: Sequence[int], seed: int, number: int) -> Iterator[Job]:
    """The jobs of a pass through a source, whose items are not in batches yet."""
    seeds = batch_seeds(derive_seed(seed, "pass", number))
    for start, job_seed in zip(range(0, len(order), _AT_ONCE), seeds, strict=False):
        yield job_seed, [int(index) for index in order[start : start + _AT_ONCE]]


def _as_list(items: list[Any]) -> list[Any]:
    return items
