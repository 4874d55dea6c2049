"""What the learning code costs a loop, beside a bare one over the very same batches.

An MLP (784-256-128-10, Adam, batches of 128) goes on from a finished increment. The bare loop has
the rows of each batch ready as indices, and puts a batch together as any quick script would: by
indexing tensors, and where there is a memory by joining two. Both make the same steps, turn by
turn; CPU time of the one thread that trains is compared.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import onward
from benchmarks.measuring import Result
from onward import learning

ITEMS, NEW, MEMORY = 48_000, 12_000, 1_000
BATCH, STEPS, TURNS, WARM_UP = 128, 250, 7, 20

Rows = tuple[torch.Tensor, torch.Tensor]


class Pairs(torch.utils.data.Dataset[Rows]):
    """Random images and labels in memory, given as whole batches."""

    def __init__(self, count: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.inputs = torch.rand(count, 784, generator=generator)
        self.labels = torch.randint(0, 10, (count,), generator=generator)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Rows:
        return self.inputs[index], self.labels[index]

    def __getitems__(self, indices: list[int]) -> Rows:
        return self.inputs[indices], self.labels[indices]


def measure() -> Iterator[Result]:
    """The share by which a step takes more CPU time: uniform replay, ER, DER++."""
    torch.set_num_threads(1)
    for name, strategy, target in (
        ("uniform replay", "uniform", 5.0),
        ("ER, memory of 1,000", "er", 10.0),
        ("DER++, memory of 1,000", "der++", 10.0),
    ):
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
            ratios = _ratios(Path(folder), strategy)
        percent = tuple(100 * (ratio - 1) for ratio in ratios)
        yield Result(f"learning code beside a bare loop: {name}", "%", target, percent)


def _ratios(folder: Path, strategy: str) -> list[float]:
    first = folder / "first"
    _train(first, strategy, Pairs(ITEMS), steps=STEPS, first=True)
    ratios = []
    for turn in range(TURNS):
        output = folder / f"turn-{turn}"
        shutil.copytree(first, output)
        ratios.append(_train(output, strategy, Pairs(ITEMS + NEW), steps=STEPS, first=False))
        shutil.rmtree(output)
    return ratios


def _train(output: Path, strategy: str, data: Pairs, *, steps: int, first: bool) -> float:
    """Trains through Onward, then the same batches without it; returns the ratio of the times."""
    model, optimizer = _model()
    memory = {} if strategy == "uniform" else {"memory": MEMORY}
    hooks = learning.strategy(strategy, **memory)
    run = onward.open(
        output, model=model, optimizer=optimizer, strategy=hooks,
        save_every_seconds=None, save_every_epoch=False,
    )  # fmt: skip
    loader = run.loader(data, batch_size=BATCH, drop_last=True)
    run.plan(f"{steps} steps", schedule=False)
    rows: list[list[int]] = []
    times: list[float] = []
    began = time.thread_time()
    for _epoch in run.epochs():
        for inputs, labels in loader:
            outputs = model(inputs)
            loss = nn.functional.cross_entropy(outputs, labels) + run.penalty(outputs)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.step(loss=loss)
            rows.append(list(loader.rows))
            times.append(time.thread_time() - began)
            began = time.thread_time()
    if first:
        run.finish()
        return 1.0
    run.close()
    bare = _bare(data, rows, _remembered(hooks, data), penalized=strategy == "der++")
    return float(np.median(times[WARM_UP:]) / np.median(bare[WARM_UP:]))


def _bare(
    data: Pairs, rows: list[list[int]], memory: Rows | None, *, penalized: bool
) -> list[float]:
    """The same batches in a bare loop; how long each step took."""
    model, optimizer = _model()
    logits = torch.zeros(MEMORY, 10)
    times = []
    for batch in rows:
        new = [row for row in batch if row < len(data)]
        slots = [row - len(data) for row in batch[len(new) :]]
        began = time.thread_time()
        inputs, labels = data.inputs[new], data.labels[new]
        if slots:
            assert memory is not None
            inputs = torch.cat([inputs, memory[0][slots]])
            labels = torch.cat([labels, memory[1][slots]])
        outputs = model(inputs)
        loss = nn.functional.cross_entropy(outputs, labels)
        if penalized and slots:
            loss = loss + 0.5 * nn.functional.mse_loss(outputs[len(new) :], logits[slots])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        times.append(time.thread_time() - began)
    return times


def _remembered(hooks: list[Any], data: Pairs) -> Rows | None:
    memory = hooks[0].memory
    if memory is None:
        return None
    samples = [memory.sample(slot, tensor=torch.from_numpy) for slot in memory.slots.tolist()]
    return torch.stack([s[0] for s in samples]), torch.stack([s[1] for s in samples])


def _model() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10)
    )
    return model, torch.optim.Adam(model.parameters(), lr=1e-3)
