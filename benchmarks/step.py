"""`run.step()` without a save: what the loop pays for being watched."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator

import torch

import onward
from benchmarks.measuring import Result

CALLS, REPETITIONS = 20_000, 7


def measure() -> Iterator[Result]:
    """Microseconds per call, with a loader, an optimizer's hook and a loss, as in a real loop."""
    with tempfile.TemporaryDirectory() as folder:
        model = torch.nn.Linear(4, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        run = onward.open(folder, model=model, optimizer=optimizer, save_every_seconds=None)
        loader = run.loader(torch.utils.data.TensorDataset(torch.zeros(64, 4)), batch_size=4)
        next(iter(loader))
        loss = model(torch.zeros(1, 4)).sum()
        values = []
        for _ in range(REPETITIONS):
            started = time.perf_counter()
            for _ in range(CALLS):
                run._on_optimizer_step()  # what optimizer.step() would call
                run.step(loss=loss)
            values.append((time.perf_counter() - started) / CALLS * 1e6)
        run.close()
    yield Result("run.step() without a save", "µs", 20, tuple(values))
