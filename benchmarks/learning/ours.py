"""Onward's side: the same scenarios through its public interface, checkpoints and all.

Each stage is an increment of one output, as separate runs of a script would make it: the model is
built anew and brought to where the last stage ended. Where old data may be reached, the dataset
is everything that has arrived; a strategy with a memory, or with none, is given the new items
alone. Head and tables grow by rows. Steps are those of the reference methods; the seconds are those of
the last stage (of all, in a sequence), from opening the output to the finished checkpoint.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import onward
from benchmarks.learning.reference import Done
from benchmarks.learning.scenarios import Items, Scenario, Stage
from onward import learning

STRATEGIES: dict[str, tuple[tuple[str, float], ...]] = {
    "fashion-growth": (("uniform", 0.1), ("uniform", 0.2), ("uniform", 0.4)),
    "fashion-classes": (
        ("uniform", 0.1),
        ("uniform", 0.2),
        ("uniform", 0.4),
        ("er 1920", 0.2),
        ("der++ 1920", 0.2),
        ("gdumb 1920", 0.2),
    ),
    "newsgroups-topics": (("uniform", 0.1), ("uniform", 0.2), ("uniform", 0.4)),
    "movielens-window": (("uniform", 0.1), ("uniform", 0.2)),
    "split-mnist": (
        ("er 1000", 1.0),
        ("er-ace 1000", 1.0),
        ("der++ 1000", 1.0),
        ("gdumb 1000", 1.0),
    ),
    "split-mnist-hsu": (("er 4400", 1.0), ("er 1100", 1.0), ("ewc", 1.0), ("si", 1.0)),
}
"""By scenario: what will be run, named as in `targets.TARGETS` (a number is the memory's size)."""


def planned(scenario: Scenario) -> list[tuple[str, float]]:
    """Onward's strategies for a scenario, each with its share of a full retrain's steps."""
    return list(STRATEGIES[scenario.name])


class Pairs(torch.utils.data.Dataset[Any]):
    """Items in memory, given as whole batches."""

    def __init__(self, items: Items) -> None:
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self._items.inputs[index], self._items.targets[index]

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        return self._items.inputs[indices], self._items.targets[indices]


def ours(scenario: Scenario, strategy: str, *, share: float, seed: int, folder: Path) -> Done:
    """Learns the scenario's stages one after another into an output below `folder`."""
    seconds, steps = 0.0, 0
    for number, stage in enumerate(scenario.stages, 1):
        began = time.perf_counter()
        budget = _steps(scenario, number, share)
        model = _stage(scenario, number, stage, strategy, budget=budget, seed=seed, folder=folder)
        spent = time.perf_counter() - began
        if scenario.is_sequence or number == len(scenario.stages):
            seconds, steps = seconds + spent, steps + budget
    return Done(scenario.metrics(model), steps, seconds)


def _steps(scenario: Scenario, number: int, share: float) -> int:
    if scenario.is_sequence:
        return scenario.stage_steps[number - 1]
    return scenario.base_steps() if number == 1 else round(share * scenario.retrain_steps)


def _stage(
    scenario: Scenario,
    number: int,
    stage: Stage,
    strategy: str,
    *,
    budget: int,
    seed: int,
    folder: Path,
) -> torch.nn.Module:
    torch.manual_seed(seed)
    model = scenario.make_model(stage.size)
    optimizer = scenario.optimizer(model)
    names = {kind: onward.names(folder / "out", kind, range(n)) for kind, n in stage.size.items()}
    run = onward.open(
        folder / "out", model=model, optimizer=optimizer, **names, seed=seed,
        strategy=_hooks(strategy), grow=scenario.grow(names),
        save_every_seconds=None, save_every_epoch=False,
    )  # fmt: skip
    uniform = strategy == "uniform"
    items = scenario.everything(number) if uniform else stage.items
    loader = run.loader(
        Pairs(items),
        batch_size=scenario.batch_size,
        labels=items.targets.numpy() if items.targets.dtype == torch.int64 else None,
        # Batches are all full, as in the reference methods.
        drop_last=True,
        **({} if uniform else {"ids": _ids(number, len(items)), "only_new": True}),
    )
    run.plan(
        f"{budget} steps",
        # As the published protocols have it: a constant rate, and fresh moments for each task.
        schedule=not scenario.is_sequence,
        moments="reset" if scenario.is_sequence else "kept",
    )
    for _epoch in run.epochs():
        for inputs, targets in loader:
            outputs = model(inputs)
            loss = scenario.loss(outputs, targets) + run.penalty(outputs)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.step(loss=loss)
    run.finish()
    return model


def _hooks(strategy: str) -> list[learning.Hook]:
    name, _, memory = strategy.partition(" ")
    if memory:
        return learning.strategy(name, memory=int(memory), **MEMORIES.get(strategy, {}))
    return learning.strategy(name)


MEMORIES: dict[str, dict[str, Any]] = {}


def _ids(number: int, items: int) -> list[int]:
    """The items of a stage, told apart from those of every other one."""
    return (np.arange(items) + number * 1_000_000).tolist()
