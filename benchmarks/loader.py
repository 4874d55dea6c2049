"""`run.loader` beside a bare DataLoader over the same data, interleaved."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.measuring import Result
from onward.data.torch import Loader, Positioned

REPETITIONS = 11


class Images(TensorDataset):
    """28 × 28 images with the work of a light augmentation for each."""

    def __getitem__(self, index: int) -> Any:
        image, label = super().__getitem__(index)
        shift = int(torch.randint(-2, 3, (1,)))
        return image.view(28, 28).roll(shift, 1).mul(1 / 255), label


def measure() -> Iterator[Result]:
    """Ratio of the times for one whole epoch of 20,000 images, batches of 64.

    Bare tensors cost next to nothing to load, so that what a loader adds shows most; augmented
    images are what training does.
    """
    tensors = torch.rand(20_000, 784), torch.zeros(20_000, dtype=torch.long)
    for kind, data in {"tensors": TensorDataset(*tensors), "augmented": Images(*tensors)}.items():
        for workers in (0, 2):
            for name, values in compare(data, workers).items():
                text = f"{name} / bare DataLoader, {kind}, {workers} workers"
                yield Result(text, "×", 1.03, values)


def compare(data: TensorDataset, workers: int) -> dict[str, tuple[float, ...]]:
    """Each repetition measures the bare loader before and after ours."""
    options: dict[str, Any] = {"batch_size": 64, "num_workers": workers}
    bare = DataLoader(data, shuffle=True, **options)
    users = DataLoader(data, shuffle=True, **options)
    ours = {
        "run.loader": Loader(data, seed=0, increment=1, **options),
        "run.batches": Positioned(users, seed=0, increment=1),
    }
    ratios: dict[str, list[float]] = {name: [] for name in ours}
    for _ in range(REPETITIONS):
        for name, loader in ours.items():
            before, seconds, after = epoch_s(bare), epoch_s(loader), epoch_s(bare)
            ratios[name].append(2 * seconds / (before + after))
    return {name: tuple(values) for name, values in ratios.items()}


def epoch_s(loader: Any) -> float:
    started = time.perf_counter()
    for _batch in loader:
        pass
    return time.perf_counter() - started
