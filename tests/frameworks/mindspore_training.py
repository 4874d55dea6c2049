"""A small training in MindSpore, for the tests of its rooms."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from onward.frameworks import mindspore as framework
from tests.frameworks.torch_training import (
    Remembers,
    same,
    through_an_output,
    through_bytes,
    without_data,
)

__all__ = [
    "Make",
    "Net",
    "Remembers",
    "at_once",
    "check_resumed_equals_uninterrupted",
    "net",
    "same",
    "through_an_output",
    "through_bytes",
    "train",
    "without_data",
]

WORDS = 11


@contextmanager
def at_once() -> Iterator[None]:
    """Handing each small operator to another thread takes most of the time on a busy machine."""
    ms.set_context(pynative_synchronize=True)
    try:
        yield
    finally:
        ms.set_context(pynative_synchronize=False)


class Net(nn.Cell):  # type: ignore[misc]
    """Tied embeddings, normalisation with statistics, a buffer that is saved and one that is not.

    Its dropout layer draws inside its kernel, unless a run takes that over: `rate` is 0 by default.
    """

    def __init__(self, width: int = 8, rate: float = 0.0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, width)
        self.fc = nn.Dense(width, width)
        self.norm = nn.BatchNorm1d(width)
        self.drop = nn.Dropout(p=rate)
        self.out = nn.Dense(width, WORDS, has_bias=False)
        self.out.weight = self.embedding.embedding_table
        self.register_buffer("scale", Tensor(np.full(width, 0.5), ms.float32))
        self.register_buffer("passing", Tensor(0.0, ms.float32), persistent=False)

    def construct(self, x: Any) -> Any:
        hidden = self.norm(ops.tanh(self.fc(self.embedding(x))))
        return self.out(self.drop(hidden) * self.scale)


def net(seed: int = 0, **options: Any) -> Net:
    ms.set_seed(seed)
    made = Net(**options)
    generator = np.random.Generator(np.random.Philox(seed))
    for parameter in made.trainable_params():  # MindSpore's own initialisers are slow
        if parameter.name not in ("norm.gamma", "norm.beta"):
            values = generator.normal(0, 0.3, parameter.shape).astype(np.float32)
            parameter.set_data(Tensor(values))
    made.set_train()
    return made


def train(model: Any, optimizer: Any, steps: range, **also: Any) -> list[float]:
    """Steps whose batches follow from their numbers; returns the losses."""
    criterion = nn.CrossEntropyLoss()

    def forward(x: Any) -> Any:
        return criterion(model(x), x)

    learn = ms.value_and_grad(forward, None, optimizer.parameters)
    losses = []
    for step in steps:
        drawn = np.random.Generator(np.random.Philox(1000 + step)).integers(0, WORDS, 16)
        loss, gradients = learn(Tensor(drawn, ms.int32))
        optimizer(gradients)
        losses.append(float(loss))
        if scheduler := also.get("scheduler"):
            plateau = type(scheduler).__name__ == "ReduceLROnPlateau"
            scheduler.step(*((float(step % 3),) if plateau else ()))
    return losses


Make = Callable[[], dict[str, Any]]


def check_resumed_equals_uninterrupted(make: Make) -> None:
    first = make()
    train(steps=range(3), **first)
    tree = through_bytes(framework.capture(first))
    train(steps=range(3, 5), **first)
    expected = framework.capture(first)

    second = make()
    train(steps=range(100, 101), **second)  # not fresh, so that everything has to be replaced
    assert framework.differences(second, without_data(tree)) == []
    framework.restore(second, tree)
    assert same(framework.capture(second), tree)
    train(steps=range(3, 5), **second)
    assert same(framework.capture(second), expected)

    # Read into live memory.
    read = through_an_output(tree, framework.destinations(second))
    framework.restore(second, read)
    assert same(framework.capture(second), tree)
    train(steps=range(3, 5), **second)
    assert same(framework.capture(second), expected)
