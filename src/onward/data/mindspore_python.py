"""Loads batches of a Python dataset so that their randomness depends on the batch alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from onward.data.isolation import Isolated
from onward.data.mindspore_collate import as_numpy, collate
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

    def start(self) -> None:
        """Starts the workers now, in the thread that calls this."""
        if self._workers is not None:
            self._workers.start()

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
