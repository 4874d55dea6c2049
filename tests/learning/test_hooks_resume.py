"""The resume law of every penalty, observer and transform: killed anywhere, the same bits."""

from __future__ import annotations

import pytest

from onward.errors import NewerFormat
from onward.learning.asymmetric import AsymmetricCrossEntropy
from onward.learning.distillation import Distillation
from onward.learning.ewc import OnlineEWC
from onward.learning.shrink_perturb import ShrinkPerturb
from onward.learning.synaptic import SynapticIntelligence
from tests.learning.loop import Loop
from tests.learning.models import flat, problem

HOOKS = {
    "er-ace": AsymmetricCrossEntropy,
    "distillation": Distillation,
    "ewc, exact": lambda: OnlineEWC(100.0, samples=5, decay=0.9),
    "ewc, sampled": lambda: OnlineEWC(100.0, samples=5, fisher="sampled"),
    "ewc, empirical": lambda: OnlineEWC(100.0, samples=5, fisher="empirical"),
    "si": lambda: SynapticIntelligence(1.0),
    "shrink and perturb": ShrinkPerturb,
}

INCREMENTS = [[i for i in range(40) if i % 4 in pair] for pair in ((0, 1), (2,), (3,))]


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("told", [True, False])
def test_a_killed_and_resumed_run_ends_with_the_same_bits(hook, told):
    """Weights, moments, and whatever the hook knows."""
    inputs, labels = problem()

    def final(kills):
        loop = Loop(
            lambda: [HOOKS[hook]()], inputs, labels, INCREMENTS, steps=6, kills=kills, told=told
        ).run()
        return {name: flat(thing.state_dict()) for name, thing in loop.live.items()}

    unkilled = final([])
    killed = final([(1, 2), (2, 0), (2, 1), (2, 4), (3, 5), (3, 6)])
    assert killed == unkilled


@pytest.mark.parametrize("hook", HOOKS)
def test_the_state_of_a_newer_onward_is_refused(hook):
    """Its meaning is not known."""
    made = HOOKS[hook]()
    with pytest.raises(NewerFormat, match="version 2"):
        made.load_state_dict({**made.state_dict(), "version": 2})


@pytest.mark.parametrize("hook", HOOKS)
def test_hooks_say_what_they_are(hook):
    """For the plan and the record."""
    made = HOOKS[hook]()
    assert made.describe()
    assert "(" not in made.name
