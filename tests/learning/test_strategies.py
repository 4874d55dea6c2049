"""Strategies by name: what each is made of, and what it says where it cannot work."""

from __future__ import annotations

import pytest

from onward.errors import UsageError
from onward.learning.distillation import Distillation
from onward.learning.ewc import OnlineEWC
from onward.learning.hooks import Sampler
from onward.learning.logits import LogitReplay
from onward.learning.memory import Memory
from onward.learning.replay import NoReplay, UniformReplay
from onward.learning.strategies import STRATEGIES, caveat, hooks_of, strategy

WITH_MEMORY = {"er", "der++", "er-ace", "gdumb"}


@pytest.fixture
def memory():
    return Memory(8, policy="class-balanced")


def made(name, memory):
    return strategy(name, memory=memory) if name in WITH_MEMORY else strategy(name)


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_has_one_sampler_and_names_of_its_own(name, memory):
    """What a run asks of a list of hooks."""
    hooks = made(name, memory)
    assert sum(isinstance(hook, Sampler) for hook in hooks) == 1
    assert len({hook.name for hook in hooks}) == len(hooks)
    assert (next(h for h in hooks if isinstance(h, Sampler)).memory is memory) == (
        name in WITH_MEMORY
    )


def test_options_reach_the_hooks(memory):
    """By the names that the functions have."""
    assert "0.25" in strategy("der++", memory=memory, alpha=0.25)[1].describe()
    assert "strength 5" in strategy("ewc", strength=5.0)[1].describe()


def test_a_memory_may_be_given_by_its_size():
    """And is then the sampler's as well as the penalty's."""
    sampler, replayed = strategy("der++", memory=5, policy="class-balanced")
    assert (sampler.memory.capacity, sampler.memory.policy) == (5, "class-balanced")
    assert replayed._memory is sampler.memory


def test_an_unknown_name_is_refused_with_all_that_are_known():
    """So that the next try is right."""
    with pytest.raises(UsageError) as caught:
        strategy("derpp")
    assert all(name in caught.value.do for name in STRATEGIES)


@pytest.mark.parametrize(
    ("name", "options", "do"),
    [
        ("er", {}, "strategy('er', memory=…, policy='reservoir')"),
        ("none", {"alpha": 1}, "strategy('none')"),
        ("lwf", {"strength": 1}, "strategy('lwf', weight=1.0, temperature=2.0)"),
    ],
)
def test_missing_and_unknown_options_are_refused_with_the_right_call(name, options, do):
    """What is missing, and what a strategy takes."""
    with pytest.raises(UsageError) as caught:
        strategy(name, **options)
    assert do in caught.value.do


def test_hooks_are_given_by_name_or_as_they_are():
    """A name that needs a memory cannot stand alone."""
    hooks = [NoReplay(), OnlineEWC(1.0)]
    assert hooks_of(hooks) == hooks
    assert isinstance(hooks_of("uniform")[0], UniformReplay)
    with pytest.raises(UsageError, match="memory"):
        hooks_of("der++")


@pytest.mark.parametrize("name", STRATEGIES)
def test_without_samples_new_classes_are_warned_of(name, memory):
    """For the strategies that keep none, and only where classes are new."""
    bare = name in {"lwf", "ewc", "si", "none"}
    for found in (
        STRATEGIES[name].caveat(new_classes=True),
        caveat(made(name, memory), new_classes=True),
    ):
        assert bool(found) == bare
        assert ("20 %" in found) == bare
    assert STRATEGIES[name].caveat(new_classes=False) == ""
    assert caveat(made(name, memory), new_classes=False) == ""


def test_a_penalty_beside_samples_is_not_warned_of(memory):
    """Distillation beside a memory, or beside the default of all data, can work."""
    hooks = [*strategy("er", memory=memory), Distillation(), LogitReplay(memory=memory)]
    assert caveat(hooks, new_classes=True) == ""
    assert caveat([Distillation()], new_classes=True) == ""
