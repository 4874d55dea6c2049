"""Synaptic intelligence: the path, Ω, the pull, and growth."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from onward.errors import Diverged, UsageError
from onward.learning.synaptic import SynapticIntelligence
from tests.learning.models import ListedLessons, batch_of, flat, problem, setting, stored_and_back

LESSONS = ListedLessons(*problem(), range(40))


def linear(outputs: int = 3) -> nn.Linear:
    torch.manual_seed(outputs)
    return nn.Linear(6, outputs)


def begun(model, *, increment=1, si=None):
    si = si or SynapticIntelligence(2.0, damping=0.1)
    si.begin(setting(model, increment=increment))
    si.before_increment(LESSONS)
    return si


def stepped(si, model, gradient, movement):
    """One step that moves every weight by `movement`, with this gradient."""
    for value in model.parameters():
        value.grad = torch.full_like(value, gradient)
        with torch.no_grad():
            value += movement
    si.after_step()


def test_omega_is_that_of_the_formula():
    """ω = Σ -gradient · movement, and Ω = ω / (way² + damping)."""
    model = linear()
    si = begun(model)
    stepped(si, model, -2.0, 0.5)
    stepped(si, model, -1.0, 0.25)
    path = si.state_dict()["path"]["weight"]
    torch.testing.assert_close(path, torch.full_like(path, 1.25))
    si.after_increment(LESSONS)
    state = si.state_dict()
    omega = 1.25 / (0.75**2 + 0.1)
    torch.testing.assert_close(state["amounts"]["weight"], torch.full((3, 6), omega))
    assert torch.equal(state["anchors"]["weight"], model.weight)
    assert not state["path"]["weight"].any()


def test_the_penalty_and_its_gradients_are_those_of_the_formula():
    """strength · Σ Ω (θ - θ*)², with the gradient 2 · strength · Ω (θ - θ*)."""
    model = linear()
    si = begun(model)
    inputs, labels = problem(4, classes=3)
    assert si.penalty(model(inputs), batch_of(inputs, labels)).item() == 0
    stepped(si, model, -2.0, 0.5)
    si.after_increment(LESSONS)
    omega = 1 / 0.35
    begun(model, increment=2, si=si)
    with torch.no_grad():
        model.weight += 0.5
    penalty = si.penalty(model(inputs), batch_of(inputs, labels))
    torch.testing.assert_close(penalty, torch.tensor(2 * omega * 0.25 * 18))
    model.zero_grad()
    penalty.backward()
    torch.testing.assert_close(model.weight.grad, torch.full((3, 6), 2 * 2 * omega * 0.5))
    assert not model.bias.grad.any()


def test_a_way_uphill_does_not_push_weights_away():
    """Ω is never negative: a negative one would reward forgetting."""
    model = linear()
    si = begun(model)
    stepped(si, model, 2.0, 0.5)
    si.after_increment(LESSONS)
    assert not si.state_dict()["amounts"]["weight"].any()


def test_importance_adds_up_over_increments():
    """A later increment adds to Ω, measured from where it began."""
    model = linear()
    si = begun(model)
    stepped(si, model, -2.0, 0.5)
    si.after_increment(LESSONS)
    begun(model, increment=2, si=si)
    stepped(si, model, -1.0, 1.0)
    si.after_increment(LESSONS)
    wanted = 1 / 0.35 + 1 / 1.1
    torch.testing.assert_close(si.state_dict()["amounts"]["bias"], torch.full((3,), wanted))


def test_what_changes_the_model_before_an_increment_is_no_step():
    """A transform's jump is not part of the path."""
    model = linear()
    si = begun(model)
    si.after_increment(LESSONS)
    si.begin(setting(model))
    with torch.no_grad():
        model.weight += 10
    si.before_increment(LESSONS)
    stepped(si, model, -1.0, 0.5)
    path = si.state_dict()["path"]["weight"]
    torch.testing.assert_close(path, torch.full_like(path, 0.5))


def test_what_has_grown_is_free_where_it_is_new():
    """Old rows keep Ω, new ones begin at zero and are measured from their first values."""
    small, large = linear(3), linear(5)
    si = begun(small)
    stepped(si, small, -2.0, 0.5)
    si.after_increment(LESSONS)
    with torch.no_grad():
        large.weight[:3], large.bias[:3] = small.weight, small.bias
    grown = SynapticIntelligence(2.0)
    stored_and_back(si, grown)
    begun(large, increment=2, si=grown)
    state = grown.state_dict()
    assert not state["amounts"]["weight"][3:].any()
    assert torch.equal(state["amounts"]["weight"][:3], si.state_dict()["amounts"]["weight"])
    assert torch.equal(state["anchors"]["weight"], large.weight)
    stepped(grown, large, -1.0, 1.0)
    grown.after_increment(LESSONS)
    found = grown.state_dict()["amounts"]["weight"]
    torch.testing.assert_close(found[3:], torch.full((2, 6), 1 / 1.1))


def test_a_model_that_diverged_is_refused_and_nothing_is_lost():
    """One NaN in Ω would make every later loss NaN."""
    model = linear()
    si = begun(model)
    stepped(si, model, torch.nan, 0.5)
    before = flat(si.state_dict())
    with pytest.raises(Diverged, match="not a finite number"):
        si.after_increment(LESSONS)
    assert flat(si.state_dict()) == before


def test_a_loop_that_drops_the_gradients_first_is_refused():
    """Else nothing would ever matter, and nobody would know."""
    model = linear()
    si = begun(model)
    model.zero_grad()
    with pytest.raises(UsageError, match="no gradient is left"):
        si.after_step()


@pytest.mark.parametrize("options", [{"strength": -1.0}, {"strength": 1.0, "damping": 0.0}])
def test_impossible_options_are_refused(options):
    """When it is made, not after an increment."""
    with pytest.raises(UsageError):
        SynapticIntelligence(**options)
