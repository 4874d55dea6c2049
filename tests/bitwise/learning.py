"""A small class-incremental training with any strategy, in processes that get killed."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import onward

from .killing import next_increment
from .scenarios import processes

INCREMENTS, CLASSES_EACH, ITEMS_OF_CLASS, FEATURES = 5, 2, 40, 12
CLASSES = INCREMENTS * CLASSES_EACH
BATCH, STEPS = 16, 12

STRATEGIES = [
    "uniform", "none", "er", "er-balanced", "der++", "er-ace", "lwf", "ewc", "si", "gdumb",
    "shrink-perturb", "der++ and ewc",
]  # fmt: skip


def hooks(name: str) -> Any:
    """Fresh hooks for one process."""
    from onward import learning

    match name:
        case "er":
            return learning.strategy("er", memory=30)
        case "er-balanced":
            return learning.strategy("er", memory=30, policy="class-balanced")
        case "der++" | "er-ace" | "gdumb":
            return learning.strategy(name, memory=30)
        case "shrink-perturb":
            return [learning.UniformReplay(), learning.ShrinkPerturb(0.6, 0.1)]
        case "der++ and ewc":
            return [*learning.strategy("der++", memory=30), *learning.strategy("ewc")[-1:]]
    return learning.strategy(name)


class Blobs(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """Gaussian clouds, one for each class; those of the increments so far, or of the last."""

    def __init__(self, classes: range, *, seed: int = 0) -> None:
        self.labels = np.repeat(np.asarray(classes), ITEMS_OF_CLASS)
        self.ids = [f"{seed}/{c}/{i}" for c in classes for i in range(ITEMS_OF_CLASS)]
        clouds = []
        for c in classes:
            generator = torch.Generator().manual_seed(1000 * seed + c)
            centre = torch.randn(FEATURES, generator=torch.Generator().manual_seed(c)) * 2
            clouds.append(centre + torch.randn(ITEMS_OF_CLASS, FEATURES, generator=generator))
        self.values = torch.cat(clouds)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        # Augmented, so that what a memory keeps depends on randomness too.
        return self.values[index] + 0.05 * torch.randn(FEATURES), int(self.labels[index])


def train(output: str, strategy: str, *, kill_at: int = 0, increments: int = INCREMENTS) -> None:
    """All increments one after the other, from wherever the output is; dies at a global step."""
    torch.set_num_threads(1)
    stateless = strategy in ("uniform", "none", "shrink-perturb")
    while (increment := next_increment(output)) <= increments:
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(increment)
        model = nn.Sequential(nn.Linear(FEATURES, 24), nn.ReLU(), nn.Linear(24, CLASSES))
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        classes = range((increment - 1) * CLASSES_EACH, increment * CLASSES_EACH)
        data = Blobs(range(classes.stop) if stateless else classes)
        run = onward.open(
            output, model=model, optimizer=optimizer, strategy=hooks(strategy),
            save_every_steps=3, save_every_seconds=None,
        )  # fmt: skip
        run.scoring(lambda batch, m=model: m(batch[0]).argmax(1) == batch[1])
        loader = run.loader(
            data, batch_size=BATCH, ids=data.ids, labels=data.labels, only_new=not stateless
        )
        for part in range(increment):
            held = Blobs(range(part * CLASSES_EACH, (part + 1) * CLASSES_EACH), seed=1)
            run.holdout(f"part {part}", held, ids=held.ids)
        run.plan(f"{STEPS} steps")
        for _epoch in run.epochs():
            for values, labels in loader:
                outputs = model(values)
                loss = nn.functional.cross_entropy(outputs, labels) + run.penalty(outputs)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                run.step(loss=loss)
                if run.global_step == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
        run.finish()


def run_process(output: Path, strategy: str, **options: Any) -> int:
    """One process to its end; its exit code, negative for a signal."""
    process = processes().Process(target=train, args=(str(output), strategy), kwargs=options)
    process.start()
    process.join(120)
    assert process.exitcode is not None, "the process hangs"
    return process.exitcode
