"""Online EWC: its Fisher information, its pull, and growth."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from onward.errors import DataError, Diverged, Mismatch, UsageError
from onward.learning.ewc import OnlineEWC
from tests.learning.models import (
    ListedLessons,
    batch_of,
    flat,
    mlp,
    problem,
    setting,
    stored_and_back,
)

STRENGTH = 3.0


def linear(outputs: int = 3) -> nn.Linear:
    torch.manual_seed(outputs)
    return nn.Linear(6, outputs)


def learned(model, *, increment=1, ewc=None, items=40, **options):
    """EWC after an increment over these items."""
    inputs, labels = problem(items, classes=3)
    ewc = ewc or OnlineEWC(STRENGTH, **options)
    ewc.begin(setting(model, increment=increment))
    ewc.after_increment(ListedLessons(inputs, labels, range(items)))
    return ewc


def shares_of(model, inputs):
    return torch.softmax(model(inputs), 1).detach()


def test_exact_information_is_that_of_the_formula():
    """Of a linear softmax: the mean over items of p_c (1 - p_c) x_i² for weight [c, i]."""
    model = linear()
    ewc = learned(model, samples=1000)
    inputs = problem(classes=3)[0]
    p = shares_of(model, inputs)
    wanted = (p * (1 - p)).T @ inputs**2 / len(inputs)
    found = ewc.state_dict()["amounts"]
    torch.testing.assert_close(found["weight"], wanted)
    torch.testing.assert_close(found["bias"], (p * (1 - p)).mean(0))


def test_empirical_information_is_that_of_the_formula():
    """With the right labels y: the mean over items of (1[c = y] - p_c)² x_i²."""
    model = linear()
    ewc = learned(model, samples=1000, fisher="empirical")
    inputs, labels = problem(classes=3)
    off = (nn.functional.one_hot(labels, 3) - shares_of(model, inputs)) ** 2
    wanted = off.T @ inputs**2 / len(inputs)
    torch.testing.assert_close(ewc.state_dict()["amounts"]["weight"], wanted)


def test_sampled_information_comes_near_the_exact_one():
    """Its expectation is the exact one; drawn labels are those of the model."""
    model = linear()
    exact = learned(model, samples=2000, items=1200).state_dict()["amounts"]["weight"]
    drawn = learned(model, samples=2000, items=1200, fisher="sampled")
    found = drawn.state_dict()["amounts"]["weight"]
    assert not torch.equal(found, exact)
    torch.testing.assert_close(found, exact, rtol=0.15, atol=0.01)


def test_the_penalty_and_its_gradients_are_those_of_the_formula():
    """strength/2 · Σ F (θ - θ*)², with the gradient strength · F (θ - θ*)."""
    model = linear()
    ewc = learned(model)
    fisher = ewc.state_dict()["amounts"]
    inputs, labels = problem(4, classes=3)
    with torch.no_grad():
        model.weight += 0.5
        model.bias -= 0.25
    penalty = ewc.penalty(model(inputs), batch_of(inputs, labels))
    wanted = STRENGTH / 2 * (fisher["weight"].sum() * 0.25 + fisher["bias"].sum() * 0.0625)
    torch.testing.assert_close(penalty, wanted)
    penalty.backward()
    torch.testing.assert_close(model.weight.grad, STRENGTH * fisher["weight"] * 0.5)
    torch.testing.assert_close(model.bias.grad, STRENGTH * fisher["bias"] * -0.25)


def test_older_information_decays_and_the_anchor_moves():
    """F becomes decay · F + F_new, and θ* what the weights are now."""
    model = linear()
    ewc = learned(model, decay=0.5)
    before = ewc.state_dict()["amounts"]["weight"].clone()
    with torch.no_grad():
        model.weight += 1
    learned(model, increment=2, ewc=ewc)
    fresh = learned(model, increment=2).state_dict()["amounts"]["weight"]
    torch.testing.assert_close(ewc.state_dict()["amounts"]["weight"], 0.5 * before + fresh)
    assert torch.equal(ewc.state_dict()["anchors"]["weight"], model.weight)


def test_the_first_increment_is_left_alone():
    """The penalty is a zero where the outputs are, in their dtype."""
    model = linear().double()
    ewc = OnlineEWC(STRENGTH)
    ewc.begin(setting(model, increment=1))
    inputs, labels = problem(4, classes=3)
    penalty = ewc.penalty(model(inputs.double()), batch_of(inputs, labels))
    assert (penalty.item(), penalty.dtype, penalty.shape) == (0, torch.float64, ())


def test_what_has_grown_is_free_where_it_is_new():
    """Old rows keep their information and their anchors, new ones get none."""
    small, large = linear(3), linear(5)
    with torch.no_grad():
        large.weight[:3], large.bias[:3] = small.weight, small.bias
    before = learned(small)
    grown = OnlineEWC(STRENGTH)
    stored_and_back(before, grown)
    grown.begin(setting(large))
    fisher = before.state_dict()["amounts"]["weight"]
    state = grown.state_dict()
    assert torch.equal(state["amounts"]["weight"], torch.cat([fisher, torch.zeros(2, 6)]))
    inputs, labels = problem(4, classes=3)
    with torch.no_grad():
        large.weight[3:] += 100
        large.bias[3:] += 100
    assert grown.penalty(large(inputs), batch_of(inputs, labels)).item() == 0
    learned(large, increment=2, ewc=grown)
    assert grown.state_dict()["amounts"]["weight"][3:].sum() > 0


def test_a_model_that_shrank_or_lost_names_is_refused_with_all_of_them():
    """What was learned of a weight must not vanish quietly."""
    before = learned(mlp(3))
    fresh = OnlineEWC(STRENGTH)
    fresh.load_state_dict(before.state_dict())
    with pytest.raises(Mismatch) as caught:
        fresh.begin(setting(linear(2)))
    assert len(caught.value.differences) == 4


def test_a_frozen_parameter_keeps_what_is_known_of_it():
    """It is not pulled while it cannot move, and is when it can again."""
    model = mlp(3)
    ewc = learned(model)
    known = ewc.state_dict()["amounts"]["0.weight"].clone()
    model[0].requires_grad_(False)
    learned(model, increment=2, ewc=ewc)
    assert torch.equal(ewc.state_dict()["amounts"]["0.weight"], known)
    assert not torch.equal(ewc.state_dict()["amounts"]["2.weight"], known)


def test_few_samples_are_chosen_by_seed_and_increment():
    """The same again, and others in another increment."""
    model = mlp(3)
    first = flat(learned(model, samples=3).state_dict())
    assert flat(learned(model, samples=3).state_dict()) == first
    assert flat(learned(model, samples=3, increment=2).state_dict()) != first


def test_an_increment_without_items_teaches_nothing():
    """Nothing to estimate from."""
    ewc = OnlineEWC(STRENGTH)
    ewc.begin(setting(linear()))
    ewc.after_increment(ListedLessons(*problem(), []))
    assert ewc.state_dict()["amounts"] == {}


def test_a_model_that_diverged_is_refused_and_nothing_is_lost():
    """One NaN in F would make every later loss NaN."""
    model = linear()
    ewc = learned(model)
    before = flat(ewc.state_dict())
    with torch.no_grad():
        model.weight[0, 0] = torch.nan
    with pytest.raises(Diverged, match="not a finite number"):
        learned(model, increment=2, ewc=ewc)
    assert flat(ewc.state_dict()) == before


def test_labels_and_outputs_that_are_no_classes_are_refused():
    """The empirical way needs labels that are outputs; every way needs one row of outputs each."""
    inputs, labels = problem(8)
    ewc = OnlineEWC(STRENGTH, fisher="empirical")
    ewc.begin(setting(linear(2)))
    with pytest.raises(DataError, match="no output for"):
        ewc.after_increment(ListedLessons(inputs, labels, range(8)))
    ewc = OnlineEWC(STRENGTH)
    ewc.begin(setting(nn.Sequential(linear(4), nn.Unflatten(1, (2, 2)))))
    with pytest.raises(UsageError, match="shape"):
        ewc.after_increment(ListedLessons(inputs, labels, range(8)))


@pytest.mark.parametrize(
    "options",
    [
        {"strength": -1.0},
        {"strength": np.nan},
        {"decay": 1.5},
        {"fisher": "rough"},
        {"samples": 0},
    ],
)
def test_impossible_options_are_refused(options):
    """When it is made, not after an increment."""
    with pytest.raises(UsageError):
        OnlineEWC(**{"strength": 1.0, **options})
