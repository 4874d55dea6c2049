"""A small class-incremental training with any strategy in MindSpore, in processes that get killed.

What is learned, and in what order, is as in PyTorch's `learning`.
"""

from __future__ import annotations

import faulthandler
import os
import random
import signal
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn

import onward

from .killing import next_increment
from .mindspore_scenarios import run_in_process

INCREMENTS, CLASSES_EACH, ITEMS_OF_CLASS, FEATURES = 5, 2, 24, 12
CLASSES = INCREMENTS * CLASSES_EACH
BATCH, STEPS = 16, 6

STRATEGIES = [
    "uniform", "none", "er", "er-balanced", "der++", "er-ace", "lwf", "ewc", "si", "gdumb",
    "shrink-perturb", "der++ and ewc",
]  # fmt: skip
SAMPLED = ["uniform", "er", "der++", "lwf", "ewc", "gdumb"]


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
        case "ewc":
            return learning.strategy("ewc", samples=20)
        case "shrink-perturb":
            return [learning.UniformReplay(), learning.ShrinkPerturb(0.6, 0.1)]
        case "der++ and ewc":
            ewc = learning.strategy("ewc", samples=20)[-1:]
            return [*learning.strategy("der++", memory=30), *ewc]
    return learning.strategy(name)


class Blobs:
    """Gaussian clouds, one for each class; those of the increments so far, or of the last."""

    def __init__(self, classes: range, *, seed: int = 0) -> None:
        self.labels = np.repeat(np.asarray(classes), ITEMS_OF_CLASS)
        self.ids = [f"{seed}/{c}/{i}" for c in classes for i in range(ITEMS_OF_CLASS)]
        clouds = []
        for c in classes:
            centre = np.random.RandomState(c).standard_normal(FEATURES) * 2
            draw = np.random.RandomState(1000 * (seed + 1) + c)
            clouds.append(centre + draw.standard_normal((ITEMS_OF_CLASS, FEATURES)))
        self.values = np.concatenate(clouds)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        # Augmented, so that what a memory keeps depends on randomness too.
        value = self.values[index] + 0.05 * np.random.randn(FEATURES)
        return value.astype(np.float32), int(self.labels[index])


def train(output: str, strategy: str, *, kill_at: int = 0, timeout_s: float = 120) -> None:
    """All increments one after the other, from wherever the output is; dies at a global step."""
    faulthandler.dump_traceback_later(timeout_s, exit=True)  # of a process that hangs
    ms.runtime.launch_blocking()
    stateless = strategy in ("uniform", "none", "shrink-perturb")
    while (increment := next_increment(output)) <= INCREMENTS:
        ms.set_seed(increment)
        random.seed(increment)
        model = nn.SequentialCell(nn.Dense(FEATURES, 24), nn.ReLU(), nn.Dense(24, CLASSES))
        optimizer = nn.Adam(model.trainable_params(), learning_rate=1e-2)
        classes = range((increment - 1) * CLASSES_EACH, increment * CLASSES_EACH)
        data = Blobs(range(classes.stop) if stateless else classes)
        run = onward.open(
            output, model=model, optimizer=optimizer, strategy=hooks(strategy),
            save_every_steps=2, save_every_seconds=None,
        )  # fmt: skip
        run.scoring(lambda batch, m=model: m(batch[0]).argmax(1) == batch[1])
        loader = run.loader(
            data, batch_size=BATCH, ids=data.ids, labels=data.labels, only_new=not stateless
        )
        for part in range(increment):
            held = Blobs(range(part * CLASSES_EACH, (part + 1) * CLASSES_EACH), seed=1)
            run.holdout(f"part {part}", held, ids=held.ids)
        run.plan(f"{STEPS} steps")
        criterion = nn.CrossEntropyLoss()

        def forward(values: Any, labels: Any, run: Any = run, model: nn.Cell = model) -> Any:
            outputs = model(values)
            return criterion(outputs, labels) + run.penalty(outputs)  # noqa: B023

        gradients_of = ms.value_and_grad(forward, None, optimizer.parameters)
        for _epoch in run.epochs():
            model.set_train()
            for values, labels in loader:
                loss, gradients = gradients_of(values, labels)
                optimizer(gradients)
                run.step(loss=loss)
                if run.global_step == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
        run.finish()
    faulthandler.cancel_dump_traceback_later()


def run_process(output: Path, strategy: str, **options: Any) -> int:
    """One process to its end; its exit code, negative for a signal."""
    return run_in_process(train, str(output), strategy, **options)
