"""Loads batches so that their randomness depends on the batch alone.

Every batch has a seed. Just before its items are fetched and collated, the global random generators
of Python, NumPy and PyTorch are seeded with it, in whichever process that happens. So augmentations
are the same for any number of workers; and where the batch is loaded in the training process, the
generators are given back as they were, so that dropout does not depend on that number either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from onward.data.isolation import Isolated
from onward.data.torch_memory import WithMemory

Job = tuple[int, Any]
"""A batch to load: its seed, and the indices (or the one index) of what it holds."""


class TorchIsolated(Isolated):
    """With PyTorch's generator of the host. Devices keep theirs: training runs there."""

    def seed_all(self, seed: int) -> None:
        super().seed_all(seed)
        torch.default_generator.manual_seed(seed)

    def _save_own(self) -> torch.Tensor:
        return torch.default_generator.get_state()

    def _restore_own(self, saved: torch.Tensor) -> None:
        torch.default_generator.set_state(saved)


class SeededBatches(Dataset[Any]):
    """A dataset whose items are whole batches: `self[seed, indices]` is fetched and collated."""

    def __init__(self, dataset: Any, collate_fn: Callable[[Any], Any], *, batched: bool) -> None:
        self.dataset = dataset
        self.collate_fn = collate_fn
        self.batched = batched
        self._isolated = TorchIsolated()

    def __getitem__(self, job: Job) -> Any:
        seed, wanted = job
        if get_worker_info() is not None:
            self._isolated.seed_all(seed)
            return self._load(wanted)
        with self._isolated.seeded(seed):
            return self._load(wanted)

    def one(self, seed: int, index: int) -> Any:
        """A single item, not collated, with the randomness of `seed`."""
        with self._isolated.seeded(seed):
            return self.dataset[index]

    def _load(self, wanted: Any) -> Any:
        dataset = self.dataset
        if not self.batched:
            return self.collate_fn(dataset[wanted])
        if isinstance(dataset, WithMemory):
            return dataset.load(wanted, self.collate_fn)
        if getitems := getattr(dataset, "__getitems__", None):
            found = getitems(wanted)
            # Whoever gives something else than a list of items has put the batch together already.
            return self.collate_fn(found) if isinstance(found, list) else found
        return self.collate_fn([dataset[index] for index in wanted])


class Fetcher:
    """Loads jobs in order, here or in workers, as the options of a `DataLoader` say."""

    def __init__(self, batches: SeededBatches, options: Mapping[str, Any]) -> None:
        self._batches = batches
        self._jobs = _Jobs()
        self._workers_seed = torch.Generator()
        self._loader: DataLoader[Any] | None = None
        if options["num_workers"] or options["pin_memory"]:
            init = _WorkerInit(options["worker_init_fn"])
            self._loader = DataLoader(
                batches,
                batch_size=None,
                sampler=self._jobs,
                collate_fn=_as_it_is,
                # Without a generator, DataLoader would draw from the global one.
                generator=self._workers_seed,
                **{**options, "worker_init_fn": init},
            )

    def fetch(self, jobs: Iterator[Job], *, seed: int) -> Iterator[Any]:
        """The batches of `jobs`; `seed` is for what workers draw outside of any batch."""
        if self._loader is None:
            return map(self._batches.__getitem__, jobs)
        self._jobs.waiting = jobs
        self._workers_seed.manual_seed(seed)
        return iter(self._loader)

    def close(self) -> None:
        """Ends persistent workers, which PyTorch would leave to the garbage collector."""
        kept = getattr(self._loader, "_iterator", None)
        if kept is not None:
            assert self._loader is not None
            self._loader._iterator = None
            kept._shutdown_workers()


class _Jobs(Sampler[Job]):
    """The jobs of the iteration that is about to begin; persistent workers outlive iterations."""

    def __init__(self) -> None:
        self.waiting: Iterator[Job] = iter(())

    def __iter__(self) -> Iterator[Job]:
        return self.waiting


class _WorkerInit:
    """Shows a worker's own set-up the dataset that its author knows."""

    def __init__(self, worker_init_fn: Callable[[int], None] | None) -> None:
        self._worker_init_fn = worker_init_fn

    def __call__(self, worker_id: int) -> None:
        info: Any = get_worker_info()
        # The info is frozen, as its readers may not change it; this is its maker's correction.
        object.__setattr__(info, "dataset", info.dataset.dataset)
        if self._worker_init_fn is not None:
            self._worker_init_fn(worker_id)


def _as_it_is(batch: Any) -> Any:
    return batch
