"""What the learning code costs a loop, beside a bare one over the very same batches.

An MLP (Adam, batches of 128) goes on from a finished increment. The bare loop has
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
BATCH, STEPS, TURNS, WARM_UP, LAG = 128, 250, 5, 120, 100
WIDTHS = {"MLP 256-128": (256, 128), "MLP 400-400": (400, 400)}
"""The networks of the learning benchmark: on Fashion-MNIST, on Split-MNIST."""

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
        for network in WIDTHS:
            with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
                ratios = _ratios(Path(folder), strategy, network)
            percent = tuple(100 * (ratio - 1) for ratio in ratios)
            yield Result(f"{name} / bare loop, {network}", "% more", target, percent)


def _ratios(folder: Path, strategy: str, network: str) -> list[float]:
    first = folder / "first"
    _train(first, strategy, network, Pairs(ITEMS))
    ratios = []
    for turn in range(TURNS):
        output = folder / f"turn-{turn}"
        shutil.copytree(first, output)
        ratios.append(_train(output, strategy, network, Pairs(ITEMS + NEW)))
        shutil.rmtree(output)
    return ratios


def _train(output: Path, strategy: str, network: str, data: Pairs) -> float:
    """An increment, each of whose steps is followed by the bare one; the ratio of the medians."""
    model, optimizer = _model(network)
    memory = {} if strategy == "uniform" else {"memory": MEMORY}
    hooks = learning.strategy(strategy, **memory)
    run = onward.open(
        output, model=model, optimizer=optimizer, strategy=hooks,
        save_every_seconds=None, save_every_epoch=False,
    )  # fmt: skip
    loader = run.loader(data, batch_size=BATCH, drop_last=True)
    run.plan(f"{STEPS} steps", schedule=False)
    bare = Bare(data, network, _remembered(hooks), penalized=strategy == "der++")
    waiting: list[list[int]] = []
    ours: list[float] = []
    theirs: list[float] = []
    for _epoch in run.epochs():
        batches = iter(loader)
        while True:
            began = time.thread_time()
            batch = next(batches, None)
            if batch is None:
                break
            outputs = model(batch[0])
            loss = nn.functional.cross_entropy(outputs, batch[1]) + run.penalty(outputs)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.step(loss=loss)
            ours.append(time.thread_time() - began)
            # Not the rows of just now: they would still be in the processor's cache.
            waiting.append(list(loader.rows))
            theirs.append(bare.step(waiting[max(0, len(waiting) - LAG)]))
    run.finish()
    return float(np.median(ours[WARM_UP:]) / np.median(theirs[WARM_UP:]))


class Bare:
    """A loop without Onward, step by step."""

    def __init__(self, data: Pairs, network: str, memory: Rows | None, *, penalized: bool) -> None:
        self._data, self._memory, self._penalized = data, memory, penalized
        self._model, self._optimizer = _model(network)
        self._logits = torch.zeros(MEMORY, 10)

    def step(self, rows: list[int]) -> float:
        """One step on these rows; the seconds that it took, without finding out what they are."""
        new = [row for row in rows if row < len(self._data)]
        slots = [row - len(self._data) for row in rows[len(new) :]]
        began = time.thread_time()
        inputs, labels = self._data.inputs[new], self._data.labels[new]
        if slots:
            assert self._memory is not None
            inputs = torch.cat([inputs, self._memory[0][slots]])
            labels = torch.cat([labels, self._memory[1][slots]])
        outputs = self._model(inputs)
        loss = nn.functional.cross_entropy(outputs, labels)
        if self._penalized and slots:
            away = outputs[len(new) :] - self._logits[slots]
            loss = loss + 0.5 * (away * away).mean()
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        return time.thread_time() - began


def _remembered(hooks: list[Any]) -> Rows | None:
    memory = hooks[0].memory
    if memory is None or not len(memory):
        return None
    samples = [memory.sample(slot, tensor=torch.from_numpy) for slot in memory.slots.tolist()]
    return torch.stack([s[0] for s in samples]), torch.stack([s[1] for s in samples])


def _model(network: str) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    first, second = WIDTHS[network]
    model = nn.Sequential(
        nn.Linear(784, first), nn.ReLU(), nn.Linear(first, second), nn.ReLU(), nn.Linear(second, 10)
    )
    return model, torch.optim.Adam(model.parameters(), lr=1e-3)
