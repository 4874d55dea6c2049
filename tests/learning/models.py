"""Small models and lessons for the tests of hooks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from onward.data.order import Indices
from onward.frameworks import torch as framework
from onward.learning.hooks import Batch, Hook, Reading, Setting
from onward.learning.memory import Memory
from onward.learning.torch import TorchMaths


class ListedLessons:
    """`Lessons` over two tensors, and the slots of a memory behind them."""

    def __init__(
        self,
        inputs: Tensor,
        labels: Tensor,
        new: Sequence[int] | Indices,
        *,
        remembered: Memory | None = None,
        told: bool = True,
    ) -> None:
        self._inputs, self._labels, self._remembered = inputs, labels, remembered
        self.new = np.asarray(new, np.int64)
        self.labels = labels.numpy() if told else None
        self.digests = digests(len(labels))
        self.first_slot = len(labels)

    def raw(self, index: int) -> Any:
        return self._inputs[index].numpy(), int(self._labels[index])

    def batches(self, indices: Indices, *, batch_size: int) -> Iterator[Batch]:
        for start in range(0, len(indices), batch_size):
            yield self.batch(indices[start : start + batch_size])

    def batch(self, indices: Indices) -> Batch:
        pairs = [
            self.raw(index)
            if index < self.first_slot
            else self._remembered.sample(index - self.first_slot, tensor=torch.from_numpy)
            for index in np.asarray(indices).tolist()
        ]
        slots = np.where(indices < self.first_slot, -1, indices - self.first_slot)
        inputs = torch.from_numpy(np.stack([pair[0] for pair in pairs]))
        return Batch(len(pairs), slots, inputs, torch.tensor([pair[1] for pair in pairs]))


def digests(count: int) -> npt.NDArray[np.uint8]:
    """16 bytes for each item, none like another."""
    numbers = np.arange(count, dtype=np.uint64)
    return np.stack([numbers, numbers + 1], axis=1).view(np.uint8).reshape(count, 16)


def batch_of(inputs: Tensor, labels: Tensor, slots: Sequence[int] | None = None) -> Batch:
    """A batch whose rows come from these slots; -1, the default, is an item of the data."""
    size = len(labels)
    where = np.full(size, -1) if slots is None else np.asarray(slots)
    return Batch(size, where.astype(np.int64), inputs, labels)


def setting(model: nn.Module, *, increment: int = 2, seed: int = 7) -> Setting:
    return Setting(TorchMaths(), model, Reading(), increment, seed)


def mlp(outputs: int = 4, *, seed: int = 0, inputs: int = 6) -> nn.Module:
    generator = torch.random.get_rng_state()
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(inputs, 8), nn.ReLU(), nn.Linear(8, outputs))
    torch.random.set_rng_state(generator)
    return model


def problem(items: int = 40, *, classes: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(items) % classes
    inputs = torch.randn(items, 6, generator=generator) * 0.5
    inputs[torch.arange(items), labels] += 2
    return inputs, labels


def stored_and_back(hook: Hook, fresh: Hook) -> None:
    """What a checkpoint does: the state of `hook`, through the framework, into `fresh`."""
    tree = framework.capture({"hook": hook})
    framework.restore({"hook": fresh}, tree)


def flat(tree: Any, path: str = "") -> dict[str, Any]:
    """Every leaf of a state by its path, tensors and arrays as bytes."""
    match tree:
        case dict():
            found: dict[str, Any] = {}
            for key, child in tree.items():
                found |= flat(child, f"{path}/{key}")
            return found
        case list() | tuple():
            return flat(dict(enumerate(tree)), path)
        case Tensor():
            return {path: (tree.dtype, tuple(tree.shape), tree.detach().numpy().tobytes())}
        case np.ndarray():
            return {path: (tree.dtype, tree.shape, tree.tobytes())}
    return {path: tree}
