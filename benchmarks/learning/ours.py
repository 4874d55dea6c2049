"""Onward's methods: the same scenarios through its public interface, checkpoints and all.

Each stage is an increment of one output, as separate runs of a script would make it: the model is
built anew and brought to where the last stage ended. Where old data may be reached, the dataset
is everything that has arrived; a strategy with a memory, or with none, is given the new items
alone. Head and tables grow by rows. Steps are those of the reference methods; the seconds are those
of the last stage (of all, in a sequence), from opening the output to the finished checkpoint.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import onward
from benchmarks.learning.reference import Done
from benchmarks.learning.scenarios import Scenario
from benchmarks.learning.sides import Side, make_side
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


GROWING = {
    "newsgroups-topics": {"model.head": "topics"},
    "movielens-window": {
        "model.users": "users", "model.user_bias": "users",
        "model.films": "films", "model.film_bias": "films",
    },
}  # fmt: skip
"""Which part of the model has a row for each what; elsewhere the last layer has one a class."""

MOMENTS_KEPT = ("newsgroups-topics",)
"""Where Adam's moments are of use to the increment: they know which words matter."""

OPTIONS: dict[str, dict[str, Any]] = {
    "er": {"policy": "class-balanced"},
    "der++": {"policy": "class-balanced"},
    "er-ace": {"policy": "class-balanced"},
    "ewc": {"strength": 600.0, "samples": 500},
}


@dataclass(frozen=True)
class Part:
    """How much of what a stage is about to train: optimizer steps, and the share of new items."""

    steps: int
    share: float | None = None
    """None where the strategy decides."""


def ours(
    scenario: Scenario,
    strategy: str,
    *,
    share: float,
    seed: int,
    folder: Path,
    framework: str = "torch",
) -> Done:
    """Learns the scenario's stages one after another into an output below `folder`."""
    seconds, steps = 0.0, 0
    for number, _ in enumerate(scenario.stages, 1):
        began = time.process_time()
        part = _part(scenario, number, strategy, share)
        side = make_side(framework, scenario, size=scenario.stages[number - 1].size, seed=seed)
        _stage(
            scenario, number, strategy, part=part, seed=seed, output=folder / "out", side=side
        )  # fmt: skip
        spent = time.process_time() - began
        if scenario.is_sequence or number == len(scenario.stages):
            seconds, steps = seconds + spent, steps + part.steps
    return Done(side.metrics(), steps, seconds)


def _part(scenario: Scenario, number: int, strategy: str, share: float) -> Part:
    if not scenario.is_sequence:
        return Part(scenario.base_steps() if number == 1 else round(share * scenario.retrain_steps))
    steps = scenario.stage_steps[number - 1]
    memory = int(strategy.partition(" ")[2] or 0)
    if scenario.name == "split-mnist-hsu" and memory and number > 1:
        # There the memory is repeated until it is about as large as what is new, and an epoch goes
        # through both.
        new = len(scenario.stages[number - 1].items)
        old = memory * (new // memory)
        return Part(steps * (new + old) // new, new / (new + old))
    return Part(steps)


def _stage(
    scenario: Scenario,
    number: int,
    strategy: str,
    *,
    part: Part,
    seed: int,
    output: Path,
    side: Side,
) -> None:
    stage = scenario.stages[number - 1]
    names = {kind: onward.names(output, kind, range(n)) for kind, n in stage.size.items()}
    growing = GROWING.get(scenario.name, {"model.4": "classes"})
    run = onward.open(
        output, model=side.model, optimizer=side.optimizer, seed=seed, **names,
        strategy=_hooks(strategy, part), grow={path: names[kind] for path, kind in growing.items()},
        save_every_seconds=None, save_every_epoch=False,
    )  # fmt: skip
    uniform = strategy == "uniform"
    items = scenario.everything(number) if uniform else stage.items
    loader = run.loader(
        side.dataset(items),
        batch_size=scenario.batch_size,
        labels=items.targets.numpy() if items.targets.dtype == torch.int64 else None,
        drop_last=True,  # all batches are full, as in the reference methods
        **({} if uniform else {"ids": _ids(number, len(items)), "only_new": True}),
    )
    kept = scenario.name in MOMENTS_KEPT
    run.plan(
        f"{part.steps} steps",
        # A constant rate in sequences, as the published protocols have it.
        schedule=not scenario.is_sequence,
        moments="kept" if kept else "reset",
    )
    for _epoch in run.epochs():
        for batch in loader:
            run.step(loss=side.step(batch, run.penalty))
    run.finish()


def _hooks(strategy: str, part: Part) -> list[learning.Hook]:
    name, _, memory = strategy.partition(" ")
    if not memory:
        return learning.strategy(name, **OPTIONS.get(name, {}))
    hooks = learning.strategy(name, memory=int(memory), **OPTIONS.get(name, {}))
    if part.share is not None:
        kept = learning.Memory(int(memory), policy="class-balanced")
        hooks[0] = learning.MemoryReplay(kept, share=part.share)
    return hooks


def _ids(number: int, items: int) -> list[int]:
    """The items of a stage, told apart from those of every other one."""
    found: list[int] = (np.arange(items) + number * 1_000_000).tolist()
    return found
