"""The arithmetic of hooks in PyTorch: the contract, and what only PyTorch can get wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from onward.errors import UsageError
from onward.learning.torch import TorchMaths
from tests.contracts.maths_contract import Array, MathsContract
from tests.learning.models import mlp, problem

maths = TorchMaths()


def test_the_pull_and_its_gradients_are_those_of_autograd():
    """The fused kernels compute strength · Σ amount · (parameter - anchor)²."""
    generator = torch.Generator().manual_seed(1)
    shapes = [(3, 4), (5,), (), (0, 2)]

    def drawn() -> list[torch.Tensor]:
        return [torch.rand(shape, generator=generator, dtype=torch.float64) for shape in shapes]

    anchors, amounts = drawn(), drawn()
    parameters = [value.requires_grad_() for value in drawn()]

    def plain(*values: torch.Tensor) -> torch.Tensor:
        terms = zip(values, anchors, amounts, strict=True)
        return 0.7 * sum(((value - anchor) ** 2 * by).sum() for value, anchor, by in terms)

    pull = maths.pull(parameters, anchors=anchors, amounts=amounts, strength=0.7)
    torch.testing.assert_close(pull, plain(*parameters))
    found = torch.autograd.grad(3 * pull, parameters)
    wanted = torch.autograd.grad(3 * plain(*parameters), parameters)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_path_is_gradient_times_movement(dtype):
    """A parameter without gradient adds nothing, and is followed all the same."""
    moved = torch.tensor([1.0, 2.0], dtype=dtype, requires_grad=True)
    other = torch.tensor([5.0], dtype=dtype, requires_grad=True)
    moved.grad = torch.tensor([0.5, -1.0], dtype=dtype)
    previous = [torch.tensor([2.0, 0.0], dtype=dtype), torch.tensor([4.0], dtype=dtype)]
    path = [maths.zeros(like=moved) + 1, maths.zeros(like=other)]
    maths.integrate([moved, other], previous=previous, path=path)
    assert path[0].tolist() == [1 - 0.5 * -1, 1 - -1.0 * 2]
    assert path[1].tolist() == [0]
    assert [value.tolist() for value in previous] == [[1, 2], [5]]


class Noisy(nn.Module):
    """Dropout, batch normalisation, keywords, and an answer with logits."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.body[1].eval()

    def forward(self, *, x: torch.Tensor) -> Any:
        return {"logits": self.body(x)}


def test_a_model_that_cannot_be_copied_is_refused():
    """A tensor that a computation left in it has no copy."""
    model = mlp()
    model.left = model[0].weight * 2
    with pytest.raises(UsageError, match="cannot be copied"):
        maths.frozen(model)


def test_arrays_and_tensors_of_every_precision_are_loaded():
    """What NumPy has no dtype for comes as a tensor."""
    model = mlp().bfloat16()
    weights = {name: value.detach() * 2 for name, value in model.state_dict().items()}
    maths.load(model, weights)
    assert torch.equal(model[0].weight, weights["0.weight"])
    assert maths.array(model[0].weight).dtype == np.float32


def test_names_and_gradients_are_the_same_in_a_wrapped_model():
    """A compiled model has other names inside, and the same weights."""
    model = mlp()
    wrapped = torch.compile(model, backend="eager")
    assert list(maths.parameters(wrapped)) == list(maths.parameters(model))
    assert maths.gradients(wrapped) == {}
    wrapped(problem(2)[0]).sum().backward()
    assert maths.gradients(wrapped).keys() == maths.parameters(model).keys()


def test_looking_at_the_model_leaves_no_graph_and_no_gradients():
    """Neither outputs nor squared gradients are part of what the loop learns from."""
    model, inputs = mlp(), problem(2)[0]
    assert not maths.outputs(model, inputs).requires_grad
    found = maths.squared_gradients(model, inputs, weights=np.ones((2, 4)))
    assert not any(value.requires_grad for value in found.values())
    assert maths.gradients(model) == {}


class Odd(nn.Module):
    def __init__(self, answer: Callable[..., Any]) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, *given: torch.Tensor) -> Any:
        return self.answer(*given)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 3, bias=False)
        self.b = nn.Linear(3, 3, bias=False)
        self.b.weight = self.a.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.a(x))


class TestTorchMaths(MathsContract):
    """The contract that MindSpore passes too."""

    maths = maths

    def tensor(self, array: Array, dtype: str = "float32") -> Any:
        return torch.as_tensor(np.asarray(array, np.float64)).to(getattr(torch, dtype))

    def parameter(self, array: Array, dtype: str = "float32") -> Any:
        return self.tensor(array, dtype).requires_grad_()

    def dtype(self, tensor: Any) -> str:
        return str(tensor.dtype).removeprefix("torch.")

    def gradients(self, function: Callable[[], Any], parameters: Sequence[Any]) -> list[Any]:
        return list(torch.autograd.grad(function(), list(parameters)))

    def mlp(self, weights: Mapping[str, Array]) -> Any:
        model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, len(weights["2.bias"])))
        model.load_state_dict({name: torch.tensor(value) for name, value in weights.items()})
        return model.train()

    def noisy(self) -> Any:
        model = Noisy().train()
        model.body[1].eval()
        return model

    def modes(self, model: Any) -> list[bool]:
        return [part.training for part in model.modules()]

    def odd(self, answer: Callable[..., Any]) -> Any:
        return Odd(answer)

    def tied(self) -> Any:
        return Tied()

    def random_state(self) -> Any:
        return torch.random.get_rng_state().tolist()
