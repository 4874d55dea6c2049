"""The scenarios in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.learning.scenarios import Items, Scenario, Size


class Pairs(torch.utils.data.Dataset[Any]):
    """Items in memory, given as whole batches."""

    def __init__(self, items: Items) -> None:
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self._items.inputs[index], self._items.targets[index]

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        return self._items.inputs[indices], self._items.targets[indices]


class TorchSide:
    """See `sides.Side`."""

    def __init__(self, scenario: Scenario, *, size: Size, seed: int) -> None:
        self._scenario = scenario
        torch.manual_seed(seed)
        self.model = scenario.make_model(size)
        self.optimizer = scenario.optimizer(self.model)

    def dataset(self, items: Items) -> Pairs:
        return Pairs(items)

    def step(self, batch: Any, penalty: Callable[[Any], Any]) -> Tensor:
        inputs, targets = batch
        outputs = self.model(inputs)
        loss = self._scenario.loss(outputs, targets) + penalty(outputs)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss

    def metrics(self) -> dict[str, float]:
        return self._scenario.metrics(self.model)


side = TorchSide
