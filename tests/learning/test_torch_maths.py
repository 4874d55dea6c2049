"""The arithmetic of hooks in PyTorch: values, gradients, and what it leaves of the model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from onward.errors import Mismatch, UsageError
from onward.learning.torch import TorchMaths
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
def test_a_pull_on_low_precision_parameters_gives_gradients_of_their_dtype(dtype):
    """Amounts are kept in single precision, whatever the parameters are."""
    parameter = torch.ones(3, dtype=dtype, requires_grad=True)
    amount = maths.zeros(like=parameter) + 2
    assert amount.dtype == torch.float32
    anchor = torch.zeros(3, dtype=dtype)
    pull = maths.pull([parameter], anchors=[anchor], amounts=[amount], strength=0.5)
    assert pull.dtype == torch.float32
    pull.backward()
    assert parameter.grad.dtype == dtype
    assert parameter.grad.tolist() == [2.0, 2.0, 2.0]


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


def test_squared_gradients_are_those_of_each_row_and_output():
    """Σ over rows and outputs of weight · (gradient of the log probability)²."""
    model = mlp().double()
    inputs = problem(3)[0].double()
    weights = np.random.Generator(np.random.Philox(3)).random((3, 4))
    weights[1, 2] = 0
    found = maths.squared_gradients(model, inputs, weights=weights)
    for name, parameter in model.named_parameters():
        wanted = torch.zeros_like(parameter)
        for row in range(3):
            for output in range(4):
                log = torch.log_softmax(model(inputs[row : row + 1]), -1)[0, output]
                (gradient,) = torch.autograd.grad(log, parameter)
                wanted += weights[row, output] * gradient**2
        torch.testing.assert_close(found[name], wanted.detach())
        assert parameter.grad is None


class Noisy(nn.Module):
    """Dropout, batch normalisation, keywords, and an answer with logits."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.body[1].eval()

    def forward(self, *, x: torch.Tensor) -> Any:
        return {"logits": self.body(x)}


def test_asking_for_outputs_leaves_no_trace():
    """Modes, statistics, gradients and randomness are as they were."""
    model = Noisy()
    model.train()
    model.body[1].training = False
    before = {name: value.clone() for name, value in model.state_dict().items()}
    randomness = torch.random.get_rng_state()
    first = maths.outputs(model, {"x": problem(8)[0]})
    second = maths.outputs(model, {"x": problem(8)[0]})
    assert torch.equal(first, second)
    assert not first.requires_grad
    assert torch.equal(randomness, torch.random.get_rng_state())
    assert [part.training for part in model.modules()] == [True, True, True, False, True]
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_several_inputs_are_given_as_arguments():
    """A tuple is what a model of users and items takes."""

    class Two(nn.Module):
        def forward(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
            return users * items

    assert maths.outputs(Two(), (torch.tensor(2), torch.tensor(3))) == 6


def test_an_answer_without_outputs_is_refused():
    """The error says what forward() must return."""

    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return "yes"

    with pytest.raises(UsageError, match="no outputs are found"):
        maths.outputs(Odd(), torch.zeros(1))


def test_logarithms_are_taken_at_least_in_single_precision():
    """A divergence of bfloat16 logarithms would be noise, below zero as often as above."""
    logits = torch.tensor([[1.0, 2.0, -3.0]], dtype=torch.bfloat16)
    wanted = torch.log_softmax(logits.float(), -1)
    torch.testing.assert_close(maths.log_softmax(logits), wanted)
    among = torch.tensor([True, True, False])
    wanted = torch.logsumexp(logits.float()[:, :2], -1)
    torch.testing.assert_close(maths.logsumexp(logits, among=among), wanted)
    assert maths.log_softmax(logits.double()).dtype == torch.float64


def test_a_frozen_copy_stands_still():
    """It shares no memory, wants no gradients, and is in evaluation mode."""
    model = mlp()
    twin = maths.frozen(model)
    with torch.no_grad():
        model[0].weight.zero_()
    assert twin[0].weight.abs().sum() > 0
    assert not any(value.requires_grad for value in twin.parameters())
    assert not twin.training
    assert model.training


def test_a_model_that_cannot_be_copied_is_refused():
    """A tensor that a computation left in it has no copy."""
    model = mlp()
    model.left = model[0].weight * 2
    with pytest.raises(UsageError, match="cannot be copied"):
        maths.frozen(model)


def test_loading_names_every_difference_and_changes_nothing():
    """Names and shapes are compared first."""
    model = mlp()
    kept = model[2].weight.detach().clone()
    weights = {name: value.detach() + 1 for name, value in model.state_dict().items()}
    weights["0.weight"] = torch.zeros(2, 2)
    del weights["2.bias"]
    with pytest.raises(Mismatch) as caught:
        maths.load(model, weights)
    assert len(caught.value.differences) == 2
    assert torch.equal(model[2].weight, kept)


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


def test_what_grows_begins_with_what_was():
    """Along every axis."""
    grown = maths.grown(torch.ones(2, 1), like=torch.zeros(3, 2))
    assert grown.tolist() == [[1, 0], [1, 0], [0, 0]]
