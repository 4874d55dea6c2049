"""The methods that Onward is compared with, in plain PyTorch: what anyone would do first.

With a base and one increment:

- `stale`: the base model, unchanged
- `new-only`: train on what is new at the peak rate; `new-only, re-warmed`: with the schedule
- `scratch`: a fresh model on everything, with the same steps
- `retrain`: a fresh model on everything, with all the steps. It is the 100 %

With a sequence of stages:

- `none`: train on each stage's own items, one after another
- `cumulative`: the same, but on everything so far
- `joint`: a fresh model on everything, with the steps of all stages together

The schedule is a warm-up over 5 % of the steps, then half a cosine down to zero. Every stage of a
sequence has a constant rate and fresh Adam moments, as the published protocols have.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import nn

from benchmarks.learning.scenarios import Items, Scenario, Size
from onward.data.order import derive_seed, permutation

STALE, RETRAIN, SCRATCH = "stale", "retrain", "scratch"
NEW_ONLY, NEW_ONLY_REWARMED = "new-only", "new-only, re-warmed"
NONE, CUMULATIVE, JOINT = "none", "cumulative", "joint"
WARM_UP = 0.05


@dataclass(frozen=True)
class Done:
    """metrics as `Scenario.metrics` has them, steps, seconds of training."""

    metrics: dict[str, float]
    steps: int
    seconds: float


def planned(scenario: Scenario) -> list[tuple[str, float]]:
    """The reference methods of a scenario, each with its share of a full retrain's steps."""
    if scenario.is_sequence:
        return [(NONE, 1.0), (CUMULATIVE, 1.0), (JOINT, 1.0)]
    shared = [(m, s) for s in scenario.shares for m in (NEW_ONLY, NEW_ONLY_REWARMED, SCRATCH)]
    return [(STALE, 0.0), *shared, (RETRAIN, 1.0)]


@dataclass
class References:
    """Runs reference methods on one scenario with one seed; the base is trained once."""

    scenario: Scenario
    seed: int
    _base: nn.Module | None = field(default=None, init=False)

    def run(self, method: str, share: float) -> Done:
        """One method with its share of a full retrain's steps."""
        scenario = self.scenario
        if scenario.is_sequence:
            return self._sequence(method)
        steps = round(scenario.retrain_steps * share)
        if method == STALE:
            return Done(scenario.metrics(self._trained_base()), 0, 0.0)
        if method in (RETRAIN, SCRATCH):
            model, items = self._fresh(scenario.size), scenario.everything()
        else:
            base, fresh = self._trained_base(), self._fresh(scenario.size)
            model, items = grown(base, fresh), scenario.stages[-1].items
        began = time.process_time()
        self._train(model, items, steps=steps, constant=method == NEW_ONLY, purpose=method)
        seconds = time.process_time() - began
        return Done(scenario.metrics(model), steps, seconds)

    def _sequence(self, method: str) -> Done:
        scenario = self.scenario
        steps = sum(scenario.stage_steps)
        began = time.process_time()
        if method == JOINT:
            model = self._fresh(scenario.size)
            self._train(model, scenario.everything(), steps=steps, constant=True, purpose=method)
        else:
            model = self._fresh(scenario.stages[0].size)
            for number, stage in enumerate(scenario.stages, 1):
                model = grown(model, self._fresh(stage.size))
                items = stage.items if method == NONE else scenario.everything(number)
                self._train(
                    model,
                    items,
                    steps=scenario.stage_steps[number - 1],
                    constant=True,
                    purpose=f"{method} {number}",
                )
        seconds = time.process_time() - began
        return Done(scenario.metrics(model), steps, seconds)

    def _trained_base(self) -> nn.Module:
        if self._base is None:
            first = self.scenario.stages[0]
            model = self._fresh(first.size)
            self._train(model, first.items, steps=self.scenario.base_steps(), purpose="base")
            self._base = model
        return self._base

    def _fresh(self, size: Size) -> nn.Module:
        torch.manual_seed(self.seed)
        return self.scenario.make_model(size)

    def _train(
        self, model: nn.Module, items: Items, *, steps: int, purpose: str, constant: bool = False
    ) -> None:
        scenario = self.scenario
        torch.manual_seed(derive_seed(self.seed, purpose) >> 1)
        optimizer = scenario.optimizer(model)
        order = batches(
            len(items),
            steps=steps,
            batch_size=scenario.batch_size,
            seed=derive_seed(self.seed, purpose, "order"),
        )
        for step, indices in enumerate(order):
            if not constant:
                optimizer.param_groups[0]["lr"] = scenario.peak_rate * schedule(step, steps)
            loss = scenario.loss(model(items.inputs[indices]), items.targets[indices])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def schedule(step: int, steps: int) -> float:
    """The factor of the peak rate at step `step` of `steps`, counted from 0."""
    warm = max(1, round(steps * WARM_UP))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def batches(items: int, *, steps: int, batch_size: int, seed: int) -> Iterator[torch.Tensor]:
    """`steps` full batches of indices: one shuffled epoch after another, without a seam."""
    waiting = torch.empty(0, dtype=torch.int64)
    epoch = 0
    for _ in range(steps):
        while len(waiting) < batch_size:
            more = torch.from_numpy(permutation(items, derive_seed(seed, epoch)))
            waiting, epoch = torch.cat([waiting, more]), epoch + 1
        yield waiting[:batch_size]
        waiting = waiting[batch_size:]


def grown(model: nn.Module, fresh: nn.Module) -> nn.Module:
    """`fresh`, a larger model of the same kind, with what `model` knows in its first rows."""
    known = model.state_dict()
    with torch.no_grad():
        for name, tensor in fresh.state_dict().items():
            old = known[name]
            tensor[tuple(slice(extent) for extent in old.shape)] = old
    return fresh
