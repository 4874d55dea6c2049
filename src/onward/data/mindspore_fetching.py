"""Loads batches so that their randomness depends on the batch alone, for MindSpore."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from onward.data.isolation import Isolated
from onward.data.mindspore_collate import as_numpy, collate
from onward.data.mindspore_pipeline import SEGMENT, Pipeline
from onward.data.workers import Job, Workers


class PythonItems:
    """A Python dataset: batches are loaded here, or by `workers` processes, all alike.

    Just before the items of a batch are fetched and collated, the global random generators of
    Python and NumPy are seeded with the batch's seed.
    """

    def __init__(
        self,
        dataset: Any,
        *,
        workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
    ) -> None:
        self._dataset = dataset
        self._collate = collate_fn or collate
        self._isolated = Isolated()
        self._workers = Workers(self._load_in_worker, workers) if workers else None

    def fetch(self, jobs: Iterator[Job], *, seed: int) -> Iterator[Any]:
        """The batches of `jobs`, in NumPy; None for one without items."""
        return map(self.load, jobs) if self._workers is None else self._workers.fetch(jobs)

    def load(self, job: Job) -> Any:
        """One batch, here and now; the program's own randomness stays as it was."""
        seed, indices = job
        with self._isolated.seeded(seed):
            return self._batch(indices)

    def one(self, seed: int, index: int) -> Any:
        """A single item, not collated, with the randomness of `seed`."""
        with self._isolated.seeded(seed):
            return self._dataset[index]

    def close(self) -> None:
        """Ends the workers."""
        if self._workers is not None:
            self._workers.close()

    def _load_in_worker(self, job: Job) -> Any:
        seed, indices = job
        self._isolated.seed_all(seed)
        return as_numpy(self._batch(indices))

    def _batch(self, indices: Sequence[int]) -> Any:
        if not len(indices):
            return None
        return self._collate([self._dataset[int(index)] for index in indices])


class PipelineItems:
    """A pipeline of MindSpore without a batch, as a dataset: item i is the i-th of its source."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self._length = pipeline.items()

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Any:
        return next(self.pipeline.rows([index], seed=0))

    def __iter__(self) -> Iterator[Any]:
        return self.pipeline.rows(range(self._length), seed=0)

    # What a fetcher offers.

    def fetch(self, jobs: Iterator[Job], *, seed: int) -> Iterator[Any]:
        """The batches of `jobs`, in NumPy. Random transforms are seeded every SEGMENT batches."""
        while segment := [job for _, job in zip(range(SEGMENT), jobs, strict=False)]:
            yield from self._segment(segment)

    def load(self, job: Job) -> Any:
        """One batch, here and now."""
        return next(self._segment([job]))

    def one(self, seed: int, index: int) -> Any:
        """A single item, not collated, with the randomness of `seed`."""
        return next(self.pipeline.rows([index], seed=seed))

    def close(self) -> None:
        """Nothing is kept."""

    def _segment(self, jobs: list[Job]) -> Iterator[Any]:
        sizes = [len(indices) for _, indices in jobs]
        wanted = [int(index) for _, indices in jobs for index in indices]
        seed = jobs[0][0]
        if len(set(sizes[:-1])) <= 1 and 0 < sizes[-1] <= sizes[0]:
            yield from map(tuple, self.pipeline.rows(wanted, seed=seed, batch_size=sizes[0]))
            return
        rows = self.pipeline.rows(wanted, seed=seed)
        for size in sizes:  # a memory's share varies from batch to batch
            yield collate([tuple(next(rows)) for _ in range(size)]) if size else None
