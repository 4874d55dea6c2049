"""Batches of a pipeline of MindSpore, whose randomness depends on the batch alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from onward.data.mindspore_collate import collate
from onward.data.mindspore_pipeline import SEGMENT, Pipeline
from onward.data.workers import Job


class PipelineItems:
    """A pipeline of MindSpore without a batch, as a dataset: item i is the i-th of its source."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self._length = pipeline.items()

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Any:
        return next(self.pipeline.rows([(0, [index])], seed=0))

    def __iter__(self) -> Iterator[Any]:
        return self.pipeline.rows([(0, [index]) for index in range(self._length)], seed=0)

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
        return next(self.pipeline.rows([(seed, [index])], seed=seed))

    def close(self) -> None:
        """Ends the workers of a Python source."""
        self.pipeline.close()

    def _segment(self, jobs: list[Job]) -> Iterator[Any]:
        sizes = [len(indices) for _, indices in jobs]
        seed = jobs[0][0]
        if len(set(sizes[:-1])) <= 1 and 0 < sizes[-1] <= sizes[0]:
            yield from map(tuple, self.pipeline.rows(jobs, seed=seed, batch_size=sizes[0]))
            return
        rows = self.pipeline.rows(jobs, seed=seed)
        for size in sizes:  # a memory's share varies from batch to batch
            yield collate([tuple(next(rows)) for _ in range(size)]) if size else None
