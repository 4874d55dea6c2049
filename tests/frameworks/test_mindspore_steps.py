"""What a step leaves, and how many were counted, in each of MindSpore's ways to run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn
from mindspore.experimental import optim

from onward.frameworks import mindspore as framework
from onward.frameworks.base import TensorLeaf
from onward.frameworks.mindspore_tensors import number

OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "Adam": lambda parameters: nn.Adam(parameters, 1e-3),
    "Momentum": lambda parameters: nn.Momentum(parameters, 1e-3, 0.9),
    "experimental Adam": lambda parameters: optim.Adam(parameters, 1e-3),
}


@pytest.fixture(params=["waiting", "ahead", "compiled"])
def way(request: pytest.FixtureRequest) -> Iterator[str]:
    """Whether a call waits for its kernels, runs ahead of them, or runs a compiled graph."""
    ms.set_context(pynative_synchronize=request.param == "waiting")
    yield request.param
    ms.set_context(pynative_synchronize=False)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_each_step_is_counted_as_soon_as_its_call_returns(kind: str, way: str) -> None:
    """Also where kernels are still to run then: a count that lags would be a step not seen."""
    _, optimizer, step = training(kind, way)
    before = framework.optimizer_steps(optimizer)
    assert before is not None
    for steps in range(1, 5):
        step()
        assert framework.optimizer_steps(optimizer) == before + steps


def test_what_is_captured_right_after_a_step_is_what_it_leaves(way: str) -> None:
    """Capturing waits for kernels that are still to run: nothing of it changes afterwards."""
    network, optimizer, step = training("Adam", way, width=768)
    objects = {"network": network, "optimizer": optimizer}
    for _ in range(5):
        step()
        found = [bytes(data) for data in memory(framework.capture(objects))]
        assert found == [bytes(data) for data in memory(framework.capture(objects))]


def training(kind: str, way: str, width: int = 64) -> tuple[nn.Cell, Any, Callable[[], Any]]:
    """A network, its optimizer, and a step of the loop."""
    network = nn.SequentialCell(nn.Dense(width, width), nn.ReLU(), nn.Dense(width, 2))
    optimizer = OPTIMIZERS[kind](network.trainable_params())
    criterion = nn.CrossEntropyLoss()
    images, labels = Tensor(np.ones((8, width), np.float32)), Tensor([0, 1] * 4, ms.int32)

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        return criterion(network(images), labels)

    grad = ms.value_and_grad(loss, None, optimizer.parameters)

    def step(images: Tensor, labels: Tensor) -> Tensor:
        found, gradients = grad(images, labels)
        optimizer(gradients)
        return found

    ready = ms.jit(step) if way == "compiled" else step
    return network, optimizer, lambda: ready(images, labels)


def memory(tree: Any) -> Iterator[Any]:
    """The live memory of each tensor of a tree."""
    if isinstance(tree, TensorLeaf):
        yield tree.data
    elif isinstance(tree, dict):
        for child in tree.values():
            yield from memory(child)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
@pytest.mark.parametrize(
    "dtype", [ms.float16, ms.bfloat16, ms.float32, ms.float64, ms.int32, ms.int64, ms.bool_]
)
def test_a_number_is_read_as_its_dtype_holds_it(dtype: Any, shape: tuple[int, ...]) -> None:
    """Bit for bit what NumPy reads, also after the memory was written behind MindSpore's back."""
    parameter = Parameter(Tensor(np.full(shape, 0.3), dtype=dtype))
    assert number(parameter) == float(parameter.asnumpy().reshape(-1)[0])
    parameter.asnumpy()[...] = 1
    assert number(parameter) == 1.0
    parameter.set_data(Tensor(np.zeros(shape), dtype=dtype))
    assert number(parameter) == 0.0
