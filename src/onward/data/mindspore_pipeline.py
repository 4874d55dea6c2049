"""MindSpore's own dataset pipelines, made to give any items in any order.

A pipeline is a chain of operations over a source. Where the source takes a sampler (MindSpore
calls it mappable: `GeneratorDataset`, `MnistDataset`, `ImageFolderDataset`, …), it can be told
which items to give: so Onward gives it an order, and begins in the middle. What may stand between:

- `map`, `project`, `rename` and `batch` of a fixed size give row for row what they are given;
- random transforms of MindSpore (`vision.Random…`) draw from seeds that are taken when an iterator
  is made, and from how many rows have passed. They are seeded for every `SEGMENT` batches, and run
  in one worker; to begin within a segment, its first batches are loaded again, and dropped;
- the items of a Python source are loaded by processes of Onward (`mindspore_fed`), as MindSpore's
  own threads would draw random numbers from the generators of the training loop;
- Python functions given to `map` run where MindSpore runs them, in threads of the training process:
  what they draw at random from Python or NumPy is not repeated (the source is the place for that);
- everything else (`shuffle`, `repeat`, `filter`, `zip`, `concat`, a batch size that varies, sources
  that only stream) can only be loaded from the start of an epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import mindspore.dataset as ds
from mindspore.dataset import samplers
from mindspore.dataset.engine import datasets as kinds

from onward.data.isolation import Isolated
from onward.data.mindspore_fed import Rows, feed_of, jobs_of
from onward.data.order import derive_seed, permutation
from onward.data.workers import Job

SEGMENT = 64
"""Batches that share one seed for random transforms."""

_PASSING = (kinds.MapDataset, kinds.ProjectDataset, kinds.RenameDataset)
_RANDOM = ("Random", "Rand", "Auto", "Uniform", "Trivial", "MixUp", "CutMix", "CutOut")
_SEEDS = 2**32
_SWAPPED = ("source", "source_len", "sampler", "num_samples", "num_parallel_workers")
"""What is changed of a source while it is read."""


class Pipeline:
    """A dataset pipeline, taken apart. The dataset itself is only changed while it is read."""

    def __init__(self, dataset: ds.Dataset) -> None:
        self.dataset = dataset
        self.operations: list[Any] = []
        """From the last one to the one after the source."""
        node = dataset
        while len(node.children) == 1:
            self.operations.append(node)
            node = node.children[0]
        self.source = node
        self.random_maps = [op for op in self.operations if _random_operations(op)]
        self._feed = feed_of(node) if isinstance(node, ds.GeneratorDataset) else None

    @property
    def name(self) -> str:
        """Such as `MnistDataset.map.batch`."""
        steps = [type(op).__name__.removesuffix("Dataset").lower() for op in self.operations]
        return ".".join([type(self.source).__name__, *reversed(steps)])

    @property
    def batch_size(self) -> int | None:
        """Rows of a batch; None if there is no single `batch` of a fixed size."""
        batches = [op for op in self.operations if isinstance(op, kinds.BatchDataset)]
        if len(batches) != 1 or batches[0].batch_size_func is not None:
            return None
        return int(batches[0].batch_size)

    def obstacle(self, *, batched: bool) -> str:
        """What keeps it from being begun anywhere, named for people; '' if nothing does."""
        source = self.source
        if len(source.children) > 1:
            return f"{type(source).__name__} puts several datasets together"
        if not isinstance(source, kinds.MappableDataset) or not _takes_a_sampler(source):
            return f"{type(source).__name__} is a stream, not a list of items"
        for op in self.operations:
            if isinstance(op, kinds.BatchDataset):
                if not batched:
                    return "it is batched already"
                if self.batch_size is None or op.per_batch_map is not None:
                    return "its batch has a size or a content that varies"
            elif not isinstance(op, _PASSING):
                return f"{type(op).__name__} changes which rows come, or in what order"
        return ""

    def unsized(self) -> str:
        """Why nobody can tell how many rows it has; '' if that is known.

        MindSpore would count them by reading all of it, and never return from a source that never
        ends.
        """
        waiting = [self.dataset]
        while waiting:
            node = waiting.pop()
            waiting += node.children
            if isinstance(node, ds.GeneratorDataset) and not hasattr(node.source, "__len__"):
                return f"its source, {_called(node.source)}, has no __len__"
        return ""

    def is_shuffled(self) -> bool | None:
        """Whether its source gives its items in random order; None for a sampler of the user's."""
        kind = type(self.source.sampler)
        if kind not in (samplers.RandomSampler, samplers.SequentialSampler, type(None)):
            return None
        whole = getattr(self.source.sampler, "num_samples", None) in (None, 0)
        if not whole or getattr(self.source.sampler, "child_sampler", None) is not None:
            return None
        return kind is samplers.RandomSampler

    def items(self) -> int:
        """How many items the source has."""
        with self._reading([], seed=0, sampler=samplers.SequentialSampler()):
            return int(self.source.get_dataset_size())

    def rows(self, jobs: Sequence[Job], *, seed: int, batch_size: int = 0) -> Iterator[Any]:
        """What the pipeline makes of these items, in this order: tuples of arrays.

        `seed` is for MindSpore's random transforms; a Python source draws from that of each job.
        With `batch_size`, batches of so many rows are made of what has none yet.
        """
        indices = [int(index) for _, wanted in jobs for index in wanted]
        if not indices:
            return iter(())
        rows = None
        if self._feed is not None:
            feed = self._feed
            rows = Rows(feed, len(indices), lambda _: iter(jobs))
        with self._reading(indices, seed=seed, rows=rows):
            whole = self.dataset
            if batch_size:
                whole = whole.batch(batch_size)
            # An iterator copies the whole chain, so that what is changed here may change back.
            return iter(whole.create_tuple_iterator(num_epochs=1, output_numpy=True))

    def whole_epoch(self, *, seed: int) -> Iterator[Any]:
        """The pipeline as it is, with every seed that it takes following from this one."""
        rows = None
        if self._feed is not None:
            first = self._order(derive_seed(seed, 0))
            rows = Rows(
                self._feed, len(first),
                lambda number: jobs_of(self._order(derive_seed(seed, number)), seed, number),
            )  # fmt: skip
        with self._reading(None, seed=seed, rows=rows):
            return iter(self.dataset.create_tuple_iterator(num_epochs=1, output_numpy=True))

    def close(self) -> None:
        """Ends the processes that load what a Python source gives."""
        if self._feed is not None:
            self._feed.close()

    def _order(self, seed: int) -> Sequence[int]:
        """The items that the source gives when it is gone through."""
        shuffled = self.is_shuffled()
        if shuffled is not None:
            count = len(self.source.source)
            return permutation(count, seed).tolist() if shuffled else range(count)
        numbers = ds.GeneratorDataset(range(len(self.source.source)), ["number"])
        numbers.sampler = self.source.sampler
        with Pipeline(numbers)._reading(None, seed=seed):
            found = numbers.create_tuple_iterator(num_epochs=1, output_numpy=True)
        return [int(number) for (number,) in found]

    @contextmanager
    def _reading(
        self,
        indices: list[int] | None,
        *,
        seed: int,
        sampler: Any = None,
        rows: Rows | None = None,
    ) -> Iterator[None]:
        nodes = [*self.operations, self.source]
        sizes = [node.dataset_size for node in nodes]
        workers = [op.num_parallel_workers for op in self.random_maps]
        before = ds.config.get_seed()
        # MindSpore reads no pipeline that two others were made of: here a batch for each segment.
        followers, self.dataset.parent = self.dataset.parent, []
        source = {name: value for name, value in vars(self.source).items() if name in _SWAPPED}
        if rows is not None:
            vars(self.source).update(
                source=rows, source_len=len(rows), sampler=None, num_samples=0,
                num_parallel_workers=1, dataset_size=None,
            )  # fmt: skip
            rows.start()
        elif indices is not None:
            self.source.sampler = sampler or samplers.SubsetSampler(indices)
        if indices is not None:
            for node in nodes:
                node.dataset_size = None
        for op in self.random_maps:
            op.num_parallel_workers = 1  # each worker has random numbers of its own
        try:
            # The seed of datasets is that of Python and NumPy, too: the program's stays as it was.
            with Isolated().seeded(seed):
                ds.config.set_seed(seed % _SEEDS)
                try:
                    yield
                finally:
                    ds.config.set_seed(before)
        finally:
            self.dataset.parent = followers
            vars(self.source).update(source)
            for node, size in zip(nodes, sizes, strict=True):
                node.dataset_size = size
            for op, count in zip(self.random_maps, workers, strict=True):
                op.num_parallel_workers = count


def _takes_a_sampler(source: Any) -> bool:
    if isinstance(source, ds.GeneratorDataset):
        return hasattr(source.source, "__getitem__") and not source.has_batch_sampler
    return hasattr(source, "sampler")


def _called(source: Any) -> str:
    return str(getattr(source, "__qualname__", type(source).__qualname__))


def _random_operations(op: Any) -> bool:
    return any(_is_random(function) for function in _functions_of(op))


def _is_random(function: Any) -> bool:
    name = type(function).__name__
    inner = getattr(function, "transforms", None)
    within = inner if isinstance(inner, list) else []
    return name.startswith(_RANDOM) or any(_is_random(each) for each in within)


def _functions_of(op: Any) -> list[Any]:
    functions = getattr(op, "operations", None) if isinstance(op, kinds.MapDataset) else None
    if functions is None:
        return []
    return list(functions) if isinstance(functions, list | tuple) else [functions]
