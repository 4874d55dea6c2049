"""A MindSpore training whose whole state changes at every step: dense layers and Adam.

    m   25 million parameters and their moments, 302 MB in 148 tensors

A step is done when it returns (`pynative_synchronize`): else it would end in whoever reads a tensor
next, which is the save.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn

from benchmarks.checkpointing.training import STEPS_BETWEEN_SAVES, Around, Training

_LAYERS, _WIDTH, _ROWS = 24, 1024, 8


class MindSporeTraining(Training):
    """`train_net` holds network and optimizer, as `Model.train` builds it."""

    def __init__(self, network: nn.Cell, optimizer: nn.Optimizer, seed: int) -> None:
        width = network[0].in_channels
        super().__init__(lambda interval: _inputs(seed, interval, width))
        self.network = network
        self.optimizer = optimizer
        self.train_net = nn.TrainOneStepCell(_Summed(network), optimizer)
        self.train_net.set_train()

    def step(self, updating: Around = nullcontext) -> None:
        # Gradients and update are one call: what surrounds the update surrounds both.
        with updating():
            self.train_net(self.next_batch())

    def objects(self) -> dict[str, Any]:
        return {"network": self.network, "optimizer": self.optimizer}

    def arrays(self) -> Iterator[tuple[str, np.ndarray]]:
        for name, parameter in self.train_net.parameters_and_names():
            yield name, parameter.asnumpy()


class _Summed(nn.Cell):
    def __init__(self, network: nn.Cell) -> None:
        super().__init__()
        self.network = network

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return self.network(x).square().sum()


def dense(scale: float, seed: int) -> MindSporeTraining:
    ms.set_context(pynative_synchronize=True)
    ms.set_seed(seed)
    width = max(32, int(_WIDTH * math.sqrt(scale)) // 32 * 32)
    parts = [part for _ in range(_LAYERS) for part in (nn.Dense(width, width), nn.Tanh())]
    network = nn.SequentialCell(*parts)
    return MindSporeTraining(network, nn.Adam(network.trainable_params(), 1e-3), seed)


def _inputs(seed: int, interval: int, width: int) -> list[ms.Tensor]:
    random = np.random.default_rng([seed, interval])
    return [
        ms.Tensor(random.standard_normal((_ROWS, width)).astype(np.float32))
        for _ in range(STEPS_BETWEEN_SAVES)
    ]
