"""`run.loader` beside a bare DataLoader over the same data, interleaved."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.measuring import Result
from onward.data.torch import Loader, Positioned

REPETITIONS = 7


class Images(TensorDataset):
    """28 × 28 images with the work of a light augmentation for each."""

    def __getitem__(self, index: int) -> Any:
        image, label = super().__getitem__(index)
        shift = int(torch.randint(-2, 3, (1,)))
        return image.view(28, 28).roll(shift, 1).mul(1 / 255), label


def measure() -> Iterator[Result]:
    """Ratio of the times for one whole epoch of 20,000 images, batches of 64."""
    data = Images(torch.rand(20_000, 784), torch.zeros(20_000, dtype=torch.long))
    for workers in (0, 2):
        options: dict[str, Any] = {"batch_size": 64, "num_workers": workers}
        bare = DataLoader(data, shuffle=True, **options)
        ours = Loader(data, seed=0, increment=1, **options)
        users = Positioned(DataLoader(data, shuffle=True, **options), seed=0, increment=1)
        ratios: dict[str, list[float]] = {"run.loader": [], "run.batches": []}
        for _ in range(REPETITIONS):
            before = epoch_s(bare)
            found = {"run.loader": epoch_s(ours), "run.batches": epoch_s(users)}
            base = (before + epoch_s(bare)) / 2
            for name, seconds in found.items():
                ratios[name].append(seconds / base)
        for name, values in ratios.items():
            yield Result(f"{name} / bare DataLoader, {workers} workers", "×", 1.03, tuple(values))


def epoch_s(loader: Any) -> float:
    started = time.perf_counter()
    for _batch in loader:
        pass
    return time.perf_counter() - started
