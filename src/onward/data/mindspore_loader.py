"""Onward's own loader for MindSpore: Python datasets, and pipelines over lists of items.

The same loader feeds a functional loop, which iterates it, and `Model.train`, to which it offers
what `Model.train` asks of a `mindspore.dataset.Dataset`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Literal

import mindspore.dataset as ds

from onward.data.mindspore_collate import as_numpy, as_tensors, collate, columns_of, joined
from onward.data.mindspore_fetching import PipelineItems
from onward.data.mindspore_pipeline import SEGMENT, Pipeline
from onward.data.mindspore_python import PythonItems
from onward.data.order import Indices
from onward.data.ordered import OrderedLoader, Slots
from onward.data.workers import Job
from onward.errors import UsageError


def adapted(dataset: Any) -> Any:
    """A dataset of MindSpore's as a list of items; any other as it is.

    A bare `GeneratorDataset` is its Python source. Raises `UsageError` for a pipeline whose items
    cannot be asked for one by one.
    """
    if not isinstance(dataset, ds.Dataset):
        return dataset
    pipeline = Pipeline(dataset)
    obstacle = pipeline.obstacle(batched=False)
    if obstacle:
        raise UsageError(
            f"run.loader cannot put the items of {pipeline.name} in order",
            why=obstacle,
            do="give it the pipeline without batch, shuffle and repeat, over a source that takes "
            "a sampler; or use run.batches, which takes any",
        )
    if isinstance(pipeline.source, ds.GeneratorDataset) and not pipeline.operations:
        return pipeline.source.source
    return PipelineItems(pipeline)


class ForModelTrain:
    """What `Model.train` asks of a dataset, for a loader that is positioned.

    One iterator serves all epochs: it ends where an epoch ends, and goes on with the next.
    """

    def get_dataset_size(self) -> int:
        """Batches of an epoch."""
        return len(self)  # type: ignore[arg-type]

    def create_tuple_iterator(self, num_epochs: int = -1, do_copy: bool = False) -> Iterator[Any]:
        """The batches as tuples of tensors, epoch after epoch."""
        return _Epochs(self)

    def reset(self) -> None:
        """Called after each epoch; a position is set by the run."""


class _Epochs:
    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self._batches: Iterator[Any] | None = None

    def __iter__(self) -> _Epochs:
        return self

    def __next__(self) -> Any:
        if self._batches is None:
            self._batches = iter(self._loader)
        try:
            return columns_of(next(self._batches))
        except StopIteration:
            self._batches = None
            raise


class Loader(ForModelTrain, OrderedLoader):
    """Batches of tensors; order and augmentations follow from `seed` and position.

    `dataset` is any object with `__getitem__` and `__len__`, whose items are arrays, numbers, or
    tuples and dicts of them; or `PipelineItems`. `num_workers` processes load ahead, and change
    nothing but speed; a pipeline has workers of its own. `collate_fn` makes a batch in NumPy of a
    list of items.
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
    ) -> None:
        dataset = adapted(dataset)
        super().__init__(
            dataset, seed=seed, increment=increment, new=new, old=old, batch_size=batch_size,
            shuffle=shuffle, drop_last=drop_last, replay=replay,
        )  # fmt: skip
        self._collate_fn = collate_fn
        self._num_workers = num_workers
        self._slots: Slots | None = None
        self._items = self._fetcher()

    def close(self) -> None:
        """Ends the workers."""
        self._items.close()

    def attach(self, slots: Slots) -> None:
        """Lets the numbers from `first_slot` on be these slots of a replay memory."""
        self._slots = slots
        self._items.close()
        self._items = self._fetcher()

    def load(self, indices: Indices, *, seed: int) -> Any:
        """These items as a batch, here and now, with the randomness of `seed`."""
        fresh, slots = self._apart([int(index) for index in indices])
        loaded = self._items.load((seed, fresh))
        return as_tensors(self._with_slots(loaded, slots))

    def raw(self, index: int, *, seed: int) -> Any:
        """One item, not collated, with the randomness of `seed`."""
        return self._items.one(seed, index)

    def _batches(self, epoch: int, first: int) -> Iterator[Any]:
        # Random transforms of a pipeline are seeded where a segment begins.
        start = first - first % SEGMENT if self._has_random_transforms() else first
        batches = super()._batches(epoch, start)
        for _ in range(first - start):
            next(batches, None)
        return batches

    def _fetch(self, jobs: Iterator[Job], *, seed: int) -> Iterator[Any]:
        waiting: deque[list[int]] = deque()  # workers are ahead of what is handed out

        def fresh_jobs() -> Iterator[Job]:
            for job_seed, indices in jobs:
                fresh, slots = self._apart(indices)
                waiting.append(slots)
                yield job_seed, fresh

        for batch in self._items.fetch(fresh_jobs(), seed=seed):
            yield as_tensors(self._with_slots(batch, waiting.popleft()))

    def _apart(self, indices: list[int]) -> tuple[list[int], list[int]]:
        count = bisect_left(indices, True, key=lambda index: index >= self.first_slot)
        return indices[:count], [index - self.first_slot for index in indices[count:]]

    def _with_slots(self, loaded: Any, numbers: list[int]) -> Any:
        """A loaded batch with slots of the memory behind it, collated together."""
        if not numbers and not self._collates_here():
            return loaded
        slots = self._slots
        if self._collates_here():
            samples = [as_numpy(slots.sample(number)) for number in numbers] if slots else []
            assert self._collate_fn is not None
            return self._collate_fn([*(loaded or []), *samples])
        assert slots is not None
        # Joined to loaded rows, remembered ones get their dtypes; alone, they must be collated.
        remembered = slots.batch(numbers) if loaded is not None else None
        if remembered is None:
            remembered = collate([as_numpy(slots.sample(number)) for number in numbers])
        remembered = as_numpy(remembered)
        return remembered if loaded is None else joined(loaded, remembered)

    def _collates_here(self) -> bool:
        """Whether a collate_fn of the script's has to see items and remembered samples together."""
        return self._slots is not None and self._collate_fn is not None

    def _fetcher(self) -> PythonItems | PipelineItems:
        if isinstance(self.dataset, PipelineItems):
            return self.dataset
        collate_fn = _as_list if self._collates_here() else self._collate_fn
        return PythonItems(self.dataset, workers=self._num_workers, collate_fn=collate_fn)

    def _has_random_transforms(self) -> bool:
        return isinstance(self.dataset, PipelineItems) and bool(self.dataset.pipeline.random_maps)


def _as_list(items: list[Any]) -> list[Any]:
    return items
