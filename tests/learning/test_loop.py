"""What the hooks are for: on a small problem of new classes, samples keep what is known."""

from __future__ import annotations

from statistics import mean

import pytest
import torch
from torch import nn

from onward.learning.asymmetric import AsymmetricCrossEntropy
from onward.learning.distillation import Distillation
from onward.learning.ewc import OnlineEWC
from onward.learning.logits import LogitReplay
from onward.learning.memory import Memory
from onward.learning.replay import MemoryReplay
from onward.learning.synaptic import SynapticIntelligence
from tests.learning.loop import Loop

CLASSES, SAMPLES = 8, 24


def clusters(items, seed):
    """Eight overlapping clouds of points."""
    centres = torch.randn(CLASSES, 12, generator=torch.Generator().manual_seed(5))
    labels = torch.arange(items) % CLASSES
    noise = torch.randn(items, 12, generator=torch.Generator().manual_seed(seed))
    return centres[labels] + noise, labels


def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, CLASSES))


def score(hooks):
    """The mean accuracy over three seeds, after four increments of two classes each."""
    found = []
    for seed in (1, 2, 3):
        inputs, labels = clusters(800, seed)
        increments = [[i for i in range(800) if i % CLASSES // 2 == k] for k in range(4)]
        loop = Loop(
            hooks,
            inputs,
            labels,
            increments,
            model=lambda seed=seed: network(seed),
            steps=60,
            batch_size=32,
        )
        found.append(loop.run().accuracy(*clusters(2000, seed + 100)))
    return mean(found)


def with_memory(make):
    def hooks():
        sampler = MemoryReplay(Memory(SAMPLES, policy="class-balanced"), share=0.5)
        return [sampler, *make(sampler)]

    return hooks


@pytest.fixture(scope="module")
def scores():
    return {
        "none": score(list),
        "er": score(with_memory(lambda sampler: [])),
        "der++": score(with_memory(lambda sampler: [LogitReplay(memory=sampler)])),
        "er-ace": score(with_memory(lambda sampler: [AsymmetricCrossEntropy()])),
    }


def test_three_samples_a_class_keep_what_new_data_alone_forgets(scores):
    """Replay is worth tens of points."""
    assert scores["er"] > scores["none"] + 0.3


@pytest.mark.parametrize("better", ["der++", "er-ace"])
def test_a_penalty_beside_a_memory_keeps_more(scores, better):
    """Replayed logits, and the asymmetric loss, are each worth more than plain replay."""
    assert scores[better] > scores["er"] + 0.01


@pytest.mark.parametrize(
    "hook", [Distillation, lambda: OnlineEWC(600.0, samples=20), lambda: SynapticIntelligence(1.0)]
)
def test_without_samples_none_of_the_others_comes_near_replay(scores, hook):
    """What the caveat of these strategies says, by ten points at least even where it is easy."""
    assert score(lambda: [hook()]) < scores["er"] - 0.1
