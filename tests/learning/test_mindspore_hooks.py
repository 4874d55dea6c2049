"""The hooks of strategies on MindSpore: the losses of PyTorch, and samples keep what is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from onward.errors import UsageError
from onward.learning import (
    Batch,
    Distillation,
    Hook,
    MemoryReplay,
    NoReplay,
    OnlineEWC,
    Reading,
    Setting,
    ShrinkPerturb,
    SynapticIntelligence,
    strategy,
)
from onward.learning.mindspore import MindSporeMaths
from onward.training.learner import Learner
from tests.contracts.maths_contract import weights_of_mlp
from tests.learning.mindspore_twins import MindSporeSide, TorchSide, Twin

CLASSES = 4


@pytest.fixture(autouse=True)
def operators_run_at_once() -> Iterator[None]:
    """Handing each small operator to another thread takes most of the time on a busy machine."""
    ms.set_context(pynative_synchronize=True)
    yield
    ms.set_context(pynative_synchronize=False)


def clouds(items: int, seed: int) -> tuple[Any, Any]:
    """Points around a centre for each class."""
    draw = np.random.Generator(np.random.Philox(seed))
    centres = np.random.Generator(np.random.Philox(99)).normal(0, 2, (CLASSES, 6))
    labels = np.arange(items, dtype=np.int64) % CLASSES
    return (centres[labels] + draw.normal(0, 1, (items, 6))).astype(np.float32), labels


def named(name: str, **options: Any) -> Callable[[], Sequence[Hook]]:
    return lambda: strategy(name, **options)


REMEMBERED: dict[str, Any] = {"memory": 16, "policy": "class-balanced"}
STRATEGIES: dict[str, Callable[[], Sequence[Hook]]] = {
    "uniform": named("uniform"),
    "er": named("er", **REMEMBERED),
    "der++": named("der++", **REMEMBERED),
    "er-ace": named("er-ace", **REMEMBERED),
    "lwf": named("lwf"),
    "ewc": named("ewc", strength=50.0, decay=0.9, samples=8),
    "empirical ewc": lambda: [NoReplay(), OnlineEWC(50.0, samples=8, fisher="empirical")],
    "sampled ewc": lambda: [NoReplay(), OnlineEWC(50.0, samples=8, fisher="sampled")],
    "gdumb": named("gdumb", memory=16),
    "shrink and perturb": lambda: [MemoryReplay(16), ShrinkPerturb()],
    "none": named("none"),
}
PENALISED = {"der++", "er-ace", "lwf", "ewc", "empirical ewc", "sampled ewc"}


def twin(
    kind: type, hooks: Callable[[], Sequence[Hook]], *, learning_rate: float = 0.05, **options: Any
) -> Twin:
    inputs, labels = clouds(80, seed=1)
    increments = [[i for i in range(80) if i % CLASSES // 2 == part] for part in range(2)]
    side = kind(weights_of_mlp(3, outputs=CLASSES), learning_rate=learning_rate)
    return Twin(side, hooks, inputs, labels, increments, **options)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_is_the_same_in_both_frameworks(name: str) -> None:
    """Every criterion and every penalty, over two increments of two classes each."""
    torch_twin = twin(TorchSide, STRATEGIES[name]).run()
    found = twin(MindSporeSide, STRATEGIES[name]).run()
    np.testing.assert_allclose(found.losses, torch_twin.losses, rtol=1e-3, atol=1e-5)
    wanted = torch_twin.weights()
    for weight, value in found.weights().items():
        np.testing.assert_allclose(value, wanted[weight], rtol=1e-3, atol=1e-4)
    penalties = [penalty for _, penalty in found.losses[found.steps :]]
    assert any(abs(penalty) > 1e-3 for penalty in penalties) == (name in PENALISED)


@pytest.mark.parametrize("name", ["der++", "lwf", "ewc"])
def test_a_killed_increment_goes_on_bit_by_bit(name: str) -> None:
    """With states whose tensors came back as arrays, tensors or parameters."""
    whole = twin(MindSporeSide, STRATEGIES[name]).run()
    kills = [(1, 5), (2, 1), (2, 6)]
    killed = twin(MindSporeSide, STRATEGIES[name], kills=kills).run()
    assert killed.losses == whole.losses


@pytest.mark.parametrize(("name", "least"), [("er", 0.9), ("der++", 0.9), ("none", 0.0)])
def test_samples_keep_what_is_known(name: str, least: float) -> None:
    """Of two classes that were learned first, and are not in the data of the second increment."""
    inputs, labels = clouds(400, seed=2)
    learned = twin(MindSporeSide, STRATEGIES[name], steps=25, learning_rate=0.1).run()
    earlier = labels < 2
    found = learned.accuracy(inputs[earlier], labels[earlier])
    assert found >= least
    if name == "none":
        assert found < 0.6, "without samples it is forgotten, or this proves nothing"


def begin(hook: Hook, model: Any, *, increment: int = 2) -> None:
    hook.begin(Setting(MindSporeMaths(), model, Reading(), increment, 7))


def test_synaptic_intelligence_is_refused_before_a_step_is_made() -> None:
    """Without gradients left in parameters it would add up nothing, and hold nothing."""
    with pytest.raises(UsageError, match="does not leave behind"):
        begin(SynapticIntelligence(1.0), nn.Dense(6, 4))


def test_a_run_with_penalties_does_not_begin_in_graph_mode() -> None:
    """Where penalties would be compiled into a step; samplers alone may be used."""

    def get_ready(*hooks: Hook) -> None:
        options = {"reading": Reading(), "increment": 1, "seed": 1, "say": print}
        Learner(hooks, framework="mindspore", model=nn.Dense(6, 4), **options).get_ready()

    ms.set_context(mode=ms.GRAPH_MODE)
    try:
        get_ready(MemoryReplay(16))
        with pytest.raises(UsageError, match="graph mode"):
            get_ready(NoReplay(), OnlineEWC(1.0))
    finally:
        ms.set_context(mode=ms.PYNATIVE_MODE)
    get_ready(NoReplay(), OnlineEWC(1.0))


def test_a_network_of_half_precision_is_distilled_in_single() -> None:
    """Its outputs are float16; the penalty is float32, and gradients reach the weights."""
    model = nn.Dense(6, 4).to_float(ms.float16)
    inputs, labels = clouds(8, seed=1)
    hook = Distillation()
    begin(hook, model)
    hook.before_increment(None)  # type: ignore[arg-type]
    MindSporeMaths().assign(model.weight, model.weight * 2)
    batch = Batch(8, np.full(8, -1), ms.Tensor(inputs), ms.Tensor(labels))

    def forward(given: Any) -> Any:
        return hook.penalty(model(given), batch)

    penalty, (weight, _) = ms.value_and_grad(forward, None, model.trainable_params())(batch.inputs)
    assert (str(penalty.dtype), float(penalty) > 0) == ("Float32", True)
    assert np.abs(weight.asnumpy()).max() > 0
