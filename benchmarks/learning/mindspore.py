"""The scenarios in MindSpore: PyTorch's network and its initial weights, copied layer by layer.

Its Adam adds ε to the uncorrected root of the second moment where PyTorch corrects the root first;
with ε = 1e-8 in both that moves only weights whose gradients are about as small. All else (means as
losses, β, learning rates, the order of samples) is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mindspore as ms
import numpy as np
import numpy.typing as npt
import torch
from mindspore import nn
from mindspore.device_context import cpu

from benchmarks.learning.scenarios import Items, Scenario, Size

# Handing each small operator to another thread takes most of the time on few cores; and a process
# has one thread, as for PyTorch.
ms.set_context(mode=ms.PYNATIVE_MODE, pynative_synchronize=True)
cpu.op_tuning.threads_num(1)


class Pairs:
    """Items in memory, given one by one."""

    def __init__(self, items: Items) -> None:
        self._inputs, self._targets = _arrays(items)

    def __len__(self) -> int:
        return len(self._targets)

    def __getitem__(self, index: int) -> tuple[npt.NDArray[Any], np.int32]:
        return self._inputs[index], self._targets[index]


class MindSporeSide:
    """See `sides.Side`; for classifiers, which `accuracy` scores."""

    def __init__(self, scenario: Scenario, *, size: Size, seed: int) -> None:
        self._scenario = scenario
        torch.manual_seed(seed)
        self.model = copied(scenario.make_model(size))
        self.optimizer = nn.Adam(
            self.model.trainable_params(),
            learning_rate=scenario.peak_rate,
            eps=1e-8,
            weight_decay=scenario.weight_decay,
        )
        # In one operator; ops.cross_entropy takes ten.
        self._criterion = nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction="mean")
        self._penalty: Callable[[Any], Any] = lambda outputs: 0.0
        self._gradients = ms.value_and_grad(self._loss, None, self.optimizer.parameters)

    def dataset(self, items: Items) -> Pairs:
        return Pairs(items)

    def step(self, batch: Any, penalty: Callable[[Any], Any]) -> Any:
        self._penalty = penalty
        loss, gradients = self._gradients(*batch)
        self.optimizer(gradients)
        return loss

    def metrics(self) -> dict[str, float]:
        self.model.set_train(False)
        found = self._scenario.metrics_by(self._accuracy)
        self.model.set_train()
        return found

    def _loss(self, inputs: Any, targets: Any) -> Any:
        outputs = self.model(inputs)
        return self._criterion(outputs, targets) + self._penalty(outputs)

    def _accuracy(self, items: Items) -> float:
        inputs, targets = _arrays(items)
        right = sum(
            int((self.model(ms.Tensor(some)).asnumpy().argmax(1) == answers).sum())
            for some, answers in _thousands(inputs, targets)
        )
        return 100.0 * right / len(items)


side = MindSporeSide


def copied(model: torch.nn.Module) -> nn.Cell:
    """A chain of dense layers as MindSpore's, with the same weights and the same names.

    Raises `TypeError` for a network of another kind.
    """
    if not isinstance(model, torch.nn.Sequential):
        raise TypeError(f"{type(model).__name__} is not a chain of dense layers")
    layers: list[nn.Cell] = []
    for layer in model:
        match layer:
            case torch.nn.Linear():
                dense = nn.Dense(layer.in_features, layer.out_features)
                dense.weight.set_data(ms.Tensor(layer.weight.detach().numpy().copy()))
                dense.bias.set_data(ms.Tensor(layer.bias.detach().numpy().copy()))
                layers.append(dense)
            case torch.nn.ReLU():
                layers.append(nn.ReLU())
            case _:
                raise TypeError(f"there is no {type(layer).__name__} in a chain of dense layers")
    return nn.SequentialCell(*layers)


def _arrays(items: Items) -> tuple[npt.NDArray[Any], npt.NDArray[np.int32]]:
    return items.inputs.numpy(), items.targets.numpy().astype(np.int32)


def _thousands(inputs: Any, targets: Any) -> Any:
    for start in range(0, len(targets), 1000):
        yield inputs[start : start + 1000], targets[start : start + 1000]
