"""Shrink and perturb: the formula, and what it must not touch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from onward.errors import Mismatch, UsageError
from onward.learning.shrink_perturb import ShrinkPerturb
from tests.learning.models import mlp, setting


def begun(model, **options):
    hook = ShrinkPerturb(**options)
    hook.begin(setting(model))
    return hook


@pytest.mark.parametrize("as_arrays", [True, False])
def test_each_parameter_becomes_what_the_formula_says(as_arrays):
    """shrink · p + perturb · fresh."""
    model, other = mlp(seed=1), mlp(seed=2)
    fresh = {name: value.detach() for name, value in other.named_parameters()}
    wanted = {
        name: 0.4 * value.detach() + 0.1 * fresh[name] for name, value in model.named_parameters()
    }
    given = {name: value.numpy() for name, value in fresh.items()} if as_arrays else fresh
    begun(model).at_start(given)
    for name, value in model.named_parameters():
        assert torch.equal(value, wanted[name])
        assert value.requires_grad


def test_buffers_and_frozen_parameters_stay():
    """Statistics are of the data, and a frozen backbone was never to change."""
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model[0].weight.requires_grad_(False)
    model[1].running_mean += 3
    kept = model[0].weight.clone()
    begun(model).at_start(model.state_dict())
    assert torch.equal(model[0].weight, kept)
    assert model[1].running_mean.tolist() == [3, 3]
    torch.testing.assert_close(model[1].weight.detach(), torch.full((2,), 0.5))


def test_fresh_weights_of_another_model_are_refused_before_anything_changes():
    """All differences at once."""
    model = mlp(4)
    kept = model[0].weight.detach().clone()
    fresh = {name: value.detach() for name, value in mlp(3).named_parameters()}
    del fresh["0.bias"]
    with pytest.raises(Mismatch) as caught:
        begun(model).at_start(fresh)
    assert len(caught.value.differences) == 3
    assert torch.equal(model[0].weight, kept)


@pytest.mark.parametrize("options", [{"shrink": 1.5}, {"perturb": -0.1}])
def test_impossible_options_are_refused(options):
    """When it is made."""
    with pytest.raises(UsageError):
        ShrinkPerturb(**options)
