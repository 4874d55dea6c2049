"""Loads batches so that their randomness depends on the batch alone.

Every batch has a seed. Just before its items are fetched and collated, the global random generators
of Python, NumPy and PyTorch are seeded with it, in whichever process that happens. So augmentations
are the same for any number of workers; and where the batch is loaded in the training process, the
generators are given back as they were, so that dropout does not depend on that number either.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.random.mtrand import get_bit_generator, set_bit_generator
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from onward.data import python_random
from onward.data.torch_memory import WithMemory

Job = tuple[int, Any]
"""A batch to load: its seed, and the indices (or the one index) of what it holds."""


class Isolated:
    """Runs code on its own randomness, and leaves the program's as it was.

    One thing is not given back: the spare Gaussian number that NumPy's legacy generator keeps after
    an odd number of draws. Reading it takes 60 µs, which is too much per batch; instead,
    `forget_spare_gaussian` drops it before every batch, in every mode of loading alike.
    """

    def __init__(self) -> None:
        # Swapping NumPy's bit generator takes 1 µs, saving and restoring its state takes 120.
        self._numpy = np.random.MT19937(0)
        self._seed = 0
        self._saved: tuple[Any, Any, torch.Tensor] | None = None

    def seeded(self, seed: int) -> Isolated:
        """While entered, every global random generator continues from `seed`."""
        self._seed = seed
        return self

    def __enter__(self) -> None:
        host = torch.default_generator.get_state()
        self._saved = (python_random.save(), get_bit_generator(), host)
        set_bit_generator(self._numpy)
        seed_generators(self._seed)

    def __exit__(self, *error: object) -> None:
        assert self._saved is not None
        python, numpy, host = self._saved
        self._saved = None
        python_random.restore(python)
        set_bit_generator(numpy)
        torch.default_generator.set_state(host)


def seed_generators(seed: int) -> None:
    """Seeds the global generators of the host. Devices keep theirs: training runs there."""
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    torch.default_generator.manual_seed(seed)


def forget_spare_gaussian() -> None:
    """Makes NumPy's legacy generator forget the second number of its last Gaussian pair."""
    set_bit_generator(get_bit_generator())


class SeededBatches(Dataset[Any]):
    """A dataset whose items are whole batches: `self[seed, indices]` is fetched and collated."""

    def __init__(self, dataset: Any, collate_fn: Callable[[Any], Any], *, batched: bool) -> None:
        self.dataset = dataset
        self.collate_fn = collate_fn
        self.batched = batched
        self._isolated = Isolated()

    def __getitem__(self, job: Job) -> Any:
        seed, wanted = job
        if get_worker_info() is not None:
            seed_generators(seed)
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
