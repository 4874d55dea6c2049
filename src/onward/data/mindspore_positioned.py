"""A pipeline of the user's own, made to begin where a run was interrupted.

Two ways, by what the pipeline is (`mindspore_pipeline` says which):

- One that gives row for row what its source gives is told which items to give, in an order of
  Onward's: shuffled, if its source shuffles, else as they come. What comes before the position is
  not loaded, but for up to 63 batches where transforms draw random numbers.
- Any other is iterated from the start of the epoch, with seeds that follow from the epoch, and the
  batches before the position are loaded and dropped; a warning says so, and why.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from typing import Any

import mindspore.dataset as ds
import numpy as np

from onward.data.mindspore_collate import as_tensors
from onward.data.mindspore_loader import ForModelTrain
from onward.data.mindspore_pipeline import SEGMENT, Pipeline
from onward.data.mindspore_python import PythonItems
from onward.data.order import batch_seeds, derive_seed, epoch_batches, permutation
from onward.data.position import PositionedLoader
from onward.errors import UsageError


class Positioned(ForModelTrain, PositionedLoader):
    """The batches of the user's own pipeline, as tuples of tensors, with a position."""

    def __init__(self, loader: Any, *, seed: int, increment: int) -> None:
        super().__init__()
        if not isinstance(loader, ds.Dataset):
            raise UsageError(
                f"run.batches was given a {type(loader).__name__}",
                why="it takes a pipeline of mindspore.dataset",
                do="give a Python dataset to run.loader(dataset, batch_size=…)",
            )
        self.loader = loader
        self.dataset = loader
        self._pipeline = Pipeline(loader)
        self._seed, self._increment = seed, increment
        self._obstacle = self._pipeline.obstacle(batched=True)
        self._shuffled = None if self._obstacle else self._pipeline.is_shuffled()
        if not self._obstacle and self._shuffled is None:
            self._obstacle = "its source has a sampler of its own"
        self._items = 0 if self._obstacle else self._pipeline.items()
        self._size = self._pipeline.batch_size or 1
        self._drop = any(getattr(op, "drop_remainder", False) for op in self._pipeline.operations)
        self._unsized = self._pipeline.unsized()
        self._batches_in_epoch = 0 if self._unsized else self._count()
        self._python = self._python_source()

    @property
    def items(self) -> int | None:
        """How many items its source has; None where there is no one source, or it cannot tell."""
        if not self._obstacle:
            return self._items
        source = self._pipeline.source
        return None if self._unsized or source.children else int(source.get_dataset_size())

    def __len__(self) -> int:
        if self._unsized:
            raise TypeError(f"{self._pipeline.name} has no length: {self._unsized}")
        return self._batches_in_epoch

    def get_dataset_size(self) -> int:
        """Batches of an epoch. Raises `UsageError` where nobody can tell before reading it."""
        if self._unsized:
            raise UsageError(
                f"Model.train needs the size of its dataset, and {self._pipeline.name} has none",
                why=self._unsized,
                do="give the source a __len__ (a class with __iter__ and __len__ in place of a "
                "generator function), or better __getitem__ and __len__, so that it can begin "
                "anywhere; a loop of your own may take it as it is, from run.batches",
            )
        return self._batches_in_epoch

    def close(self) -> None:
        """Ends the workers."""
        self._pipeline.close()
        if self._python is not None:
            self._python.close()

    def _count(self) -> int:
        if self._obstacle:
            return int(self.loader.get_dataset_size())
        return epoch_batches(self._items, self._size, drop_last=self._drop)

    def _batches(self, epoch: int, first: int) -> Iterator[Any]:
        seed = derive_seed(self._seed, self._increment, epoch)
        if self._obstacle:
            return map(as_tensors, map(tuple, self._replayed(seed, first)))
        if self._python is not None:
            jobs = zip(batch_seeds(seed, first), self._indices(seed, first), strict=False)
            return map(as_tensors, self._python.fetch(jobs, seed=seed))
        return map(as_tensors, map(tuple, self._positioned(seed, first)))

    def _indices(self, seed: int, first: int) -> Iterator[list[int]]:
        order = permutation(self._items, seed) if self._shuffled else np.arange(self._items)
        for k in range(first, self._batches_in_epoch):
            yield order[k * self._size : (k + 1) * self._size].tolist()

    def _positioned(self, seed: int, first: int) -> Iterator[Any]:
        random = bool(self._pipeline.random_maps)
        start = first - first % SEGMENT if random else first
        numbered = zip(batch_seeds(seed, start), self._indices(seed, start), strict=False)
        length = SEGMENT if random else max(1, self._batches_in_epoch)
        drop = first - start
        while segment := list(itertools.islice(numbered, length)):
            rows = self._pipeline.rows(segment, seed=segment[0][0])
            yield from itertools.islice(rows, drop, None)
            drop = 0

    def _replayed(self, seed: int, first: int) -> Iterator[Any]:
        if first:
            warnings.warn(
                f"going on at batch {first} loads {first} batches only to drop them: "
                f"{self._pipeline.name} can only be loaded from the start, because "
                f"{self._obstacle} (run.loader can begin anywhere)",
                stacklevel=3,
            )
        return itertools.islice(self._pipeline.whole_epoch(seed=seed), first, None)

    def _python_source(self) -> PythonItems | None:
        """A bare `GeneratorDataset` in batches is loaded by Onward: exact whatever it draws."""
        source = self._pipeline.source
        plain = len(self._pipeline.operations) == 1 or not self._pipeline.operations
        if self._obstacle or not plain or not isinstance(source, ds.GeneratorDataset):
            return None
        if source.column_types or source.schema is not None or self._pipeline.batch_size is None:
            return None
        workers = source.num_parallel_workers if source.num_parallel_workers > 1 else 0
        return PythonItems(source.source, workers=workers, collate_fn=_stacked)

    def _settings(self) -> dict[str, Any]:
        return {
            "seed": self._seed,
            "increment": self._increment,
            "batch_size": self._pipeline.batch_size,
            "batches": None if self._unsized else self._batches_in_epoch,
        }


def _stacked(items: list[Any]) -> tuple[Any, ...]:
    """Columns as `GeneratorDataset` and `batch` make them."""
    rows = [item if isinstance(item, tuple | list) else (item,) for item in items]
    return tuple(np.stack([np.asarray(value) for value in column]) for column in zip(*rows))  # noqa: B905
