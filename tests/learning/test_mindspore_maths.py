"""The arithmetic of hooks in MindSpore: the contract, and what only MindSpore can get wrong."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from onward.errors import UsageError
from onward.learning.mindspore import MindSporeMaths
from tests.contracts.maths_contract import (
    CLOSE,
    Array,
    MathsContract,
    mlp_by_hand,
    rows,
    weights_of_mlp,
)

maths = MindSporeMaths()


class Noisy(nn.Cell):
    """Dense, batch normalisation that stands still, dropout; logits in a mapping."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.SequentialCell(nn.Dense(6, 4), nn.BatchNorm1d(4), nn.Dropout(p=0.5))

    def construct(self, x: Any) -> Any:
        return {"logits": self.body(x)}


class Odd(nn.Cell):
    def __init__(self, answer: Callable[..., Any]) -> None:
        super().__init__()
        self.answer = answer

    def construct(self, *given: Any) -> Any:
        return self.answer(*given)


class Tied(nn.Cell):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Dense(3, 3, has_bias=False)
        self.b = nn.Dense(3, 3, has_bias=False)
        self.b.weight = self.a.weight

    def construct(self, x: Any) -> Any:
        return self.b(self.a(x))


class Compiled(nn.Cell):
    """Whose construct is compiled, dropout included."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Dense(6, 4, weight_init="ones", bias_init="zeros")
        self.dropout = nn.Dropout(p=0.5)

    @ms.jit
    def construct(self, x: Any) -> Any:
        return self.dropout(self.dense(x))


class Around(nn.Cell):
    """A compiled cell inside one that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Compiled()

    def construct(self, x: Any) -> Any:
        return self.inner(x)


class TestMindSporeMaths(MathsContract):
    """The contract that PyTorch passes too."""

    maths = maths

    def tensor(self, array: Array, dtype: str = "float32") -> Any:
        return ms.Tensor(np.asarray(array, np.float64)).astype(getattr(ms, dtype))

    def parameter(self, array: Array, dtype: str = "float32") -> Any:
        return ms.Parameter(self.tensor(array, dtype), name=f"parameter {np.asarray(array).size}")

    def dtype(self, tensor: Any) -> str:
        return str(tensor.dtype).lower().removeprefix("mindspore.")

    def gradients(self, function: Callable[[], Any], parameters: Sequence[Any]) -> list[Any]:
        _, found = ms.value_and_grad(function, None, list(parameters))()
        return list(found)

    def mlp(self, weights: Mapping[str, Array]) -> Any:
        outputs = len(weights["2.bias"])
        model = nn.SequentialCell(nn.Dense(6, 8), nn.ReLU(), nn.Dense(8, outputs))
        for name, value in model.parameters_and_names():
            value.set_data(ms.Tensor(weights[name]))
        return model.set_train(True)

    def noisy(self) -> Any:
        model = Noisy().set_train(True)
        model.body[1].set_train(False)
        return model

    def modes(self, model: Any) -> list[bool]:
        return [cell.training for _, cell in model.cells_and_names()]

    def odd(self, answer: Callable[..., Any]) -> Any:
        return Odd(answer)

    def tied(self) -> Any:
        return Tied()

    def random_state(self) -> Any:
        return ms.get_rng_state().asnumpy().tolist()


@contextmanager
def graph_mode() -> Iterator[None]:
    ms.set_context(mode=ms.GRAPH_MODE)
    try:
        yield
    finally:
        ms.set_context(mode=ms.PYNATIVE_MODE)


def test_penalties_are_refused_in_graph_mode():
    """Compiled, a penalty would be a constant of the first step at best."""
    maths.check_penalties()
    model = nn.Dense(6, 4)
    with graph_mode():
        with pytest.raises(UsageError, match="graph mode"):
            maths.check_penalties()
        with pytest.raises(UsageError, match="graph mode"):
            maths.squared_gradients(model, ms.Tensor(rows(1)), weights=np.ones((1, 4)))


def test_outputs_and_frozen_copies_work_in_graph_mode():
    """Evaluation has a graph of its own, and the graph of training is used again after it."""
    stored, inputs = weights_of_mlp(), rows(8)
    model = TestMindSporeMaths().mlp(stored)
    model.append(nn.Dropout(p=0.5))
    model.set_train(True)
    wanted = mlp_by_hand(stored, inputs)[1]
    with graph_mode():
        model(ms.Tensor(inputs))
        twin = maths.frozen(model)
        for answering in (model, twin):
            found = maths.outputs(answering, ms.Tensor(inputs))
            np.testing.assert_allclose(found.asnumpy(), wanted, **CLOSE)
        trained = model(ms.Tensor(inputs)).asnumpy()
        assert (trained == 0).any()
        for target in maths.weights(model).values():
            maths.assign(target, maths.zeros(like=target))
        np.testing.assert_allclose(twin(ms.Tensor(inputs)).asnumpy(), wanted, **CLOSE)
        assert not maths.outputs(model, ms.Tensor(inputs)).asnumpy().any()


@pytest.mark.parametrize("kind", [Compiled, Around])
def test_a_compiled_network_is_evaluated_without_dropout(kind):
    """Its graph of training must not answer, though `set_train` leaves inner phases as they are."""
    model = kind().set_train(True)
    inputs = ms.Tensor(rows(8))
    assert (model(inputs).asnumpy() == 0).any()
    wanted = rows(8).sum(1, keepdims=True).repeat(4, 1)
    np.testing.assert_allclose(maths.outputs(model, inputs).asnumpy(), wanted, **CLOSE)
    assert (model(inputs).asnumpy() == 0).any()


def test_a_compiled_network_sees_what_is_assigned():
    """`set_data` would leave its graph with the old values."""
    model, inputs = Compiled(), ms.Tensor(rows(2))
    model(inputs)
    maths.assign(model.dense.weight, ms.Tensor(np.zeros((4, 6), np.float32)))
    assert not model(inputs).asnumpy().any()


def test_a_teacher_never_answers_with_the_graph_of_one_before():
    """Compiled graphs are found by a cell's address, which a new teacher may have again."""
    model, inputs = Compiled(), ms.Tensor(rows(1))
    addresses: list[int] = []
    while len(addresses) == len(set(addresses)):
        value = len(addresses)
        assert value < 200, "no address came twice: this proves nothing"
        maths.assign(model.dense.weight, ms.Tensor(np.full((4, 6), value, np.float32)))
        twin = maths.frozen(model)
        addresses.append(id(twin))
        found = maths.outputs(twin, inputs).asnumpy()
        np.testing.assert_allclose(found, value * rows(1).sum() * np.ones((1, 4)), rtol=1e-4)
        del twin
        gc.collect()


def test_a_pull_is_added_in_the_forward_function():
    """Gradients of both, those of parameters that the pull leaves alone too."""
    model = nn.Dense(6, 4, weight_init="ones", bias_init="ones")
    inputs = ms.Tensor(rows(5))
    anchor = ms.Tensor(np.zeros((4, 6), np.float32))
    amount = ms.Tensor(np.full((4, 6), 0.5, np.float32))

    def forward(given: Any) -> Any:
        pull = maths.pull([model.weight], anchors=[anchor], amounts=[amount], strength=2.0)
        return model(given).sum() + pull

    loss, (weight, bias) = ms.value_and_grad(forward, None, model.trainable_params())(inputs)
    np.testing.assert_allclose(float(loss), 4 * rows(5).sum() + 20 + 24, rtol=1e-5)
    wanted = np.tile(rows(5).sum(0), (4, 1)) + 2
    np.testing.assert_allclose(weight.asnumpy(), wanted, **CLOSE)
    assert bias.asnumpy().tolist() == [5, 5, 5, 5]


def test_a_teacher_in_the_forward_function_gets_no_gradients():
    """Nor does the input learn through it."""
    model = nn.Dense(6, 4)
    teacher = maths.frozen(model)

    def forward(given: Any) -> Any:
        return (model(given) * maths.outputs(teacher, given)).sum()

    given = ms.Tensor(rows(2))
    found = ms.grad(forward)(given).asnumpy()
    outputs = maths.outputs(teacher, given).asnumpy()
    np.testing.assert_allclose(found, outputs @ model.weight.asnumpy(), rtol=1e-4, atol=1e-6)


def test_a_buffer_is_a_weight_and_the_frozen_copy_has_its_own():
    """And of any other tensor; a deep copy of MindSpore's shares them."""
    model = nn.Dense(6, 4)
    model.register_buffer("seen", ms.Tensor(np.ones(2, np.float32)))
    model.register_buffer("scratch", ms.Tensor(np.ones(2, np.float32)), persistent=False)
    assert list(maths.weights(model)) == ["weight", "bias", "seen"]
    model.scale = ms.Tensor(np.ones(2, np.float32))
    twin = maths.frozen(model)
    for tensor in (model.seen, model.scratch, model.scale):
        maths.assign(tensor, ms.Tensor(np.zeros(2, np.float32)))
    for tensor in (twin.seen, twin.scratch, twin.scale):
        assert tensor.asnumpy().tolist() == [1, 1]


def test_names_are_paths_in_the_model():
    """A parameter that was named otherwise is known by where it is."""
    model = nn.Dense(6, 4)
    model.weight.name = "something else"
    assert list(maths.parameters(model)) == ["weight", "bias"]
    assert maths.frozen(model).weight.name == "something else"


def test_arrays_of_a_data_pipeline_are_inputs_and_labels_too():
    """Datasets of MindSpore give tensors or arrays, as their iterator is asked."""
    stored, inputs = weights_of_mlp(), rows(3)
    found = maths.outputs(TestMindSporeMaths().mlp(stored), inputs)
    np.testing.assert_allclose(found.asnumpy(), mlp_by_hand(stored, inputs)[1], **CLOSE)
    labels = maths.placed(np.array([1, 2]), like=found)
    assert isinstance(labels, ms.Tensor)


def test_a_model_that_cannot_be_copied_is_refused():
    """With the cause, and what else to do."""
    model = nn.Dense(6, 4)
    model.left = (line for line in ())
    with pytest.raises(UsageError, match="cannot be copied"):
        maths.frozen(model)
