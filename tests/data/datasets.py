"""Datasets whose every random generator leaves a trace in the batch."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset, default_collate, get_worker_info


def draws() -> list[float]:
    """One number of each global generator that an augmentation may use."""
    return [
        random.random(),
        random.gauss(0, 1),
        float(np.random.standard_normal()),
        float(torch.rand(())),
    ]


class Augmented(Dataset[Any]):
    """Item `i` is `i` with random numbers; counts what was loaded in this process."""

    def __init__(self, count: int = 50) -> None:
        self.count = count
        self.loaded: list[int] = []

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        self.loaded.append(index)
        return index, draws()


class AugmentedTogether(Augmented):
    """Loads a batch in one call, as torch.utils.data.Subset and datasets on disk do."""

    def __getitems__(self, indices: list[int]) -> list[Any]:
        return [(index, [*draws()[:2], 0.5, 0.25]) for index in indices]

    def __getitem__(self, index: int) -> Any:
        raise AssertionError("__getitems__ should be used")


class Stream(IterableDataset[Any]):
    """A stream of augmented items, split among workers."""

    def __init__(self, count: int = 20) -> None:
        self.count = count

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        first, step = (info.id, info.num_workers) if info else (0, 1)
        for index in range(first, self.count, step):
            yield index, draws()


def random_collate(items: list[Any]) -> Any:
    """Collates with a random number of its own (mixup and the like)."""
    return [*default_collate(items), torch.tensor(draws())]


def plain(batch: Any) -> Any:
    """A batch as numbers that compare exactly."""
    if isinstance(batch, torch.Tensor):
        return batch.tolist()
    if isinstance(batch, list | tuple):
        return [plain(part) for part in batch]
    return batch


def plains(batches: Any) -> list[Any]:
    return [plain(batch) for batch in batches]
