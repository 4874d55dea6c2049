"""A run in a functional loop of MindSpore's: counting, planning, evaluating, nothing new."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mindspore as ms
import mindspore.dataset as ds
import numpy as np
import pytest
from mindspore import nn
from mindspore.experimental import optim

import onward
from onward import errors
from onward.frameworks import mindspore as framework
from tests.frameworks.mindspore_training import at_once


@pytest.fixture(autouse=True)
def _operators_run_at_once() -> Iterator[None]:
    with at_once():
        yield


class Points:
    """Pairs of a point and its class, known by their numbers."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return np.full(4, index % 2, np.float32), np.int32(index % 2)


class Learner:
    """A linear network, its optimizer, and a loop in which some batches make a step."""

    def __init__(self, output: Path, *, optimizer: Any = None, **options: Any) -> None:
        self.net = nn.Dense(4, 2)
        make = optimizer or (lambda p: nn.Adam(p, 0.1))
        self.optimizer = make(self.net.trainable_params())
        self.run = onward.open(
            output, network=self.net, optimizer=self.optimizer, save_every_seconds=None, **options
        )

    def train(self, batches: Any, *, epochs: Any = 1, accumulate: int = 1) -> Learner:
        """Calls `run.step` after every batch, and the optimizer after every `accumulate`th."""
        criterion = nn.CrossEntropyLoss()
        learn = ms.value_and_grad(
            lambda x, y: criterion(self.net(x), y), None, self.optimizer.parameters
        )
        gathered: list[Any] = []
        for _ in self.run.epochs(epochs):
            for x, y in batches:
                loss, gradients = learn(x, y)
                gathered.append(gradients)
                if len(gathered) == accumulate:
                    self.optimizer(tuple(sum(each) for each in zip(*gathered, strict=True)))
                    gathered = []
                self.run.step(loss=loss)
        self.run.finish()
        return self


ALSO_COUNTED = {
    "momentum": lambda p: nn.Momentum(p, 0.1, 0.9),
    "adam": lambda p: nn.Adam(p, 0.1),
    "experimental adamw": lambda p: optim.AdamW(p, lr=0.1),
    "experimental nadam": lambda p: optim.NAdam(p, lr=0.1),
}


@pytest.mark.parametrize("name", ALSO_COUNTED)
def test_only_calls_that_follow_a_step_count(name: str, tmp_path: Path) -> None:
    """Gradients may be accumulated: the optimizer's own count says what a step was."""
    learner = Learner(tmp_path, optimizer=ALSO_COUNTED[name])
    loader = learner.run.loader(Points(32), batch_size=4)
    learner.train(loader, epochs=2, accumulate=2)
    assert learner.run.global_step == 8


@pytest.mark.parametrize("name", ALSO_COUNTED)
def test_an_optimizer_that_begins_anew_is_no_step(name: str, tmp_path: Path) -> None:
    """A plan that resets moments sets its count back; the first micro-batch is no step for that."""
    for count in (32, 64):
        learner = Learner(tmp_path, optimizer=ALSO_COUNTED[name])
        loader = learner.run.loader(Points(count), batch_size=4)
        learner.run.plan("4 steps", moments="reset", accumulate=2)
        learner.train(loader, epochs=None, accumulate=2)
        assert learner.run.increment_step == 4
        assert framework.optimizer_steps(learner.optimizer) == 4  # since it began anew
    assert learner.run.global_step == 8


def test_evaluation_changes_neither_randomness_nor_modes(tmp_path: Path) -> None:
    """How often a run is evaluated does not change what it learns."""
    learner = Learner(tmp_path)
    learner.net.set_train()

    def score() -> dict[str, Any]:
        assert not learner.net.training
        random.random(), np.random.random(), ms.ops.rand(2)
        return {"accuracy": np.float32(0.5)}

    before = (random.getstate(), str(np.random.get_state()), ms.get_rng_state().tolist())
    assert learner.run.evaluate(score, name="test") == {"test_accuracy": 0.5}
    after = (random.getstate(), str(np.random.get_state()), ms.get_rng_state().tolist())
    assert after == before
    assert learner.net.training
    learner.run.close()


@pytest.mark.parametrize("pipeline", [False, True])
def test_nothing_new_is_said_and_more_is_learned(pipeline: bool, tmp_path: Path) -> None:
    """By ledger for `run.loader`, by the number of items for `run.batches`."""

    def batches(learner: Learner, count: int) -> Any:
        if pipeline:
            made = ds.GeneratorDataset(Points(count), ["x", "y"]).batch(4)
            return learner.run.batches(made)
        return learner.run.loader(Points(count), batch_size=4)

    first = Learner(tmp_path)
    first.train(batches(first, 16))
    again = Learner(tmp_path)
    with pytest.raises(errors.NothingNew):
        again.train(batches(again, 16))
    again.run.close()
    more = Learner(tmp_path)
    more.train(batches(more, 17))
    assert more.run.increment == 2


def test_a_rate_of_zero_is_refused(tmp_path: Path) -> None:
    """A run that learned nothing is not finished."""
    learner = Learner(tmp_path, optimizer=lambda p: nn.Momentum(p, 0.0, 0.9))
    with pytest.raises(errors.EmptyBudget, match="learning rate of zero"):
        learner.train(learner.run.loader(Points(8), batch_size=4))
    learner.run.close()


def test_a_loop_over_an_endless_stream_ends_where_it_likes(tmp_path: Path) -> None:
    """Without a size, too: the loop counts, and the position is the stream's."""

    def numbers() -> Any:
        while True:
            yield np.ones(4, np.float32), np.int32(1)

    learner = Learner(tmp_path)
    stream = learner.run.batches(ds.GeneratorDataset(numbers, ["x", "y"]).batch(4))
    for _, (x, y) in zip(range(3), stream, strict=False):
        learn = ms.value_and_grad(
            lambda x, y: nn.CrossEntropyLoss()(learner.net(x), y),
            None,
            learner.optimizer.parameters,
        )
        learner.optimizer(learn(x, y)[1])
        learner.run.step()
    learner.run.finish()
    assert learner.run.global_step == 3
