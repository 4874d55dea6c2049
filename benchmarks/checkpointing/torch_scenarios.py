"""Four kinds of PyTorch training whose checkpoints differ in what changes between two saves.

    a   dense AdamW on 100 million parameters: everything changes at every step
    b   a frozen backbone with adapters: 1 % of 50 million weights is trained and changes
    c   an embedding table of 50 million with sparse Adam: 16 % of the rows change between saves
    d   the same table with dense AdamW: everything changes, though few rows were looked up

Each is a real training step: forward, backward, optimizer. A seed decides weights and batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.checkpointing.training import STEPS_BETWEEN_SAVES, Around, Training

CHANGED_ROWS = 0.16
_EMBEDDING_WIDTH = 64


class TorchTraining(Training):
    """A model, its optimizer and its batches."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss: Callable[[torch.Tensor], torch.Tensor],
        batches: Callable[[int], list[torch.Tensor]],
    ) -> None:
        super().__init__(batches)
        self.model = model
        self.optimizer = optimizer
        self._loss = loss

    def step(self, updating: Around = nullcontext) -> None:
        self._loss(self.next_batch()).backward()
        with updating():
            self.optimizer.step()
        self.optimizer.zero_grad()

    def objects(self) -> dict[str, Any]:
        return {"model": self.model, "optimizer": self.optimizer}

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """All of the state, in one order: weights, buffers, then what the optimizer holds."""
        for name, value in self.model.state_dict().items():
            yield f"model.{name}", value
        for index, entries in self.optimizer.state_dict()["state"].items():
            for key in sorted(entries):
                yield f"optimizer.{index}.{key}", torch.as_tensor(entries[key])

    def arrays(self) -> Iterator[tuple[str, np.ndarray]]:
        for name, value in self.tensors():
            yield name, value.detach().contiguous().numpy()


def _width(scale: float) -> int:
    """Layers are as wide as at full scale, while 24 of them get fewer; below one, narrower."""
    return max(32, int(2048 * min(1.0, math.sqrt(24 * scale))) // 32 * 32)


def _layers(scale: float, most: int = 24) -> int:
    return max(1, round(most * scale))


def dense(scale: float, seed: int) -> TorchTraining:
    torch.manual_seed(seed)
    width = _width(scale)
    model = nn.Sequential(
        *(part for _ in range(_layers(scale)) for part in (nn.Linear(width, width), nn.Tanh()))
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    return TorchTraining(
        model, optimizer, lambda x: model(x).square().sum(), lambda i: _inputs(seed, i, width)
    )


class _Adapted(nn.Module):
    """A frozen layer with a trained adapter of low rank beside it."""

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.frozen = nn.Linear(width, width).requires_grad_(False)
        self.down = nn.Parameter(torch.randn(rank, width) / width)
        self.up = nn.Parameter(torch.randn(width, rank) / rank)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.frozen(x) + x @ self.down.T @ self.up.T)


def frozen(scale: float, seed: int) -> TorchTraining:
    torch.manual_seed(seed)
    width = _width(scale)
    rank = max(1, round(width / 200))  # 2 × width × rank is 1 % of width × width
    model = nn.Sequential(*(_Adapted(width, rank) for _ in range(_layers(scale, 12))))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, fused=True)
    return TorchTraining(
        model, optimizer, lambda x: model(x).square().sum(), lambda i: _inputs(seed, i, width)
    )


def _inputs(seed: int, interval: int, width: int) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(seed * 1009 + interval)
    return [torch.randn(8, width, generator=random) for _ in range(STEPS_BETWEEN_SAVES)]


def sparse_table(scale: float, seed: int) -> TorchTraining:
    table = _table(scale, seed, sparse=True)
    optimizer = torch.optim.SparseAdam(list(table.parameters()), lr=1e-3)
    return _lookups(table, optimizer, seed)


def dense_table(scale: float, seed: int) -> TorchTraining:
    table = _table(scale, seed, sparse=False)
    optimizer = torch.optim.AdamW(table.parameters(), lr=1e-3, fused=True)
    return _lookups(table, optimizer, seed)


def _table(scale: float, seed: int, *, sparse: bool) -> nn.Embedding:
    torch.manual_seed(seed)
    rows = max(500, round(50_000_000 * scale) // _EMBEDDING_WIDTH)
    return nn.Embedding(rows, _EMBEDDING_WIDTH, sparse=sparse)


def _lookups(table: nn.Embedding, optimizer: torch.optim.Optimizer, seed: int) -> TorchTraining:
    rows = table.num_embeddings
    # Which item is popular has nothing to do with where its row lies.
    places = np.random.default_rng(seed).permutation(rows)
    popularity = 1.0 / np.arange(1, rows + 1)
    popularity /= popularity.sum()
    draws = _draws(popularity, CHANGED_ROWS * rows)
    steps = np.cumsum(popularity)
    steps[-1] = 1.0

    def batches(interval: int) -> list[torch.Tensor]:
        random = np.random.default_rng([seed, interval])
        ids = places[np.searchsorted(steps, random.random(draws))]
        return [torch.from_numpy(part) for part in np.array_split(ids, STEPS_BETWEEN_SAVES)]

    return TorchTraining(table, optimizer, lambda ids: table(ids).square().sum(), batches)


def _draws(popularity: np.ndarray, distinct: float) -> int:
    """How many draws are expected to meet `distinct` different items."""
    low, high = 1, 1
    never = np.log1p(-popularity)
    while (1 - np.exp(high * never)).sum() < distinct:
        high *= 2
    while high - low > max(1, low // 1000):
        middle = (low + high) // 2
        if (1 - np.exp(middle * never)).sum() < distinct:
            low = middle
        else:
            high = middle
    return high
