"""Small trainings with everything that must resume exactly, run in processes that get killed."""

from __future__ import annotations

import multiprocessing
import random
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset
from torchdata.stateful_dataloader import StatefulDataLoader

import onward

from .killing import Executioner as _executioner
from .killing import Kill, SampleLog, append, differing, final_state, newest

__all__ = ["Kill", "SampleLog", "differing", "final_state", "newest"]  # the law, for other suites

ITEMS, FEATURES, CLASSES = 96, 12, 4
EPOCHS, BATCH = 3, 8


@dataclass(frozen=True)
class Scenario:
    """One way of training. `accumulate` micro-batches make an optimizer step."""

    name: str
    optimizer: str = "adamw-foreach"
    loader: str = "onward"  # or "user", "stateful"
    accumulate: int = 1
    autocast: bool = False
    scaler: bool = False
    persistent: bool = False
    step_after_micro_batches: bool = True


SCENARIOS = [
    Scenario("adamw foreach, cosine with warm-up, EMA"),
    Scenario("adamw fused, bf16, kept workers", "adamw-fused", autocast=True, persistent=True),
    Scenario("sgd momentum, gradient accumulation", "sgd", accumulate=3),
    Scenario("accumulation counted by the loop", accumulate=2, step_after_micro_batches=False),
    Scenario("gradient scaler, the user's DataLoader", "sgd", loader="user", scaler=True),
    Scenario("the user's DataLoader, persistent workers", loader="user", persistent=True),
    Scenario("StatefulDataLoader", loader="stateful"),
]  # fmt: skip


class Items(Dataset[tuple[int, torch.Tensor, int]]):
    """Synthetic items; each is augmented by all three global random generators."""

    def __init__(self, count: int = ITEMS) -> None:
        generator = torch.Generator().manual_seed(7)
        self.values = torch.randn(count, FEATURES, generator=generator)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> tuple[int, torch.Tensor, int]:
        value = self.values[index] + 0.1 * torch.randn(FEATURES)
        value = value * (1 + 0.1 * random.random()) + 0.1 * float(np.random.rand())
        return index, value, index % CLASSES


def train(
    output: str,
    scenario: Scenario,
    *,
    workers: int = 0,
    kill: Kill | None = None,
    items: int = ITEMS,
    acknowledge: str = "",
    epochs: int = EPOCHS,
) -> None:
    """One process's part of a training; ends by finishing or by its own SIGKILL."""
    # Data workers shall fork from this process, not each start a Python of their own.
    multiprocessing.set_start_method("fork", force=True)
    torch.set_num_threads(1)
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)
    die = _executioner(kill or Kill())
    die.watch_file_operations()
    log = SampleLog()
    dataset = Items(items)
    model = nn.Sequential(
        nn.Linear(FEATURES, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3),
        nn.Linear(16, CLASSES),
    )  # fmt: skip
    optimizer = _optimizer(scenario, model)
    steps = -(-len(dataset) // BATCH) * epochs // scenario.accumulate
    scheduler = SequentialLR(
        optimizer,
        [LinearLR(optimizer, 0.1, total_iters=5), CosineAnnealingLR(optimizer, max(1, steps - 5))],
        milestones=[5],
    )
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    scaler = torch.amp.GradScaler("cpu", enabled=scenario.scaler, growth_interval=4)
    run = onward.open(
        output, model=model, optimizer=optimizer, scheduler=scheduler, ema=ema, scaler=scaler,
        samples=log, save_every_steps=3, save_every_seconds=None, seed=11,
    )  # fmt: skip
    loader = _loader(run, scenario, dataset, workers)
    criterion = nn.CrossEntropyLoss()
    micro = 0
    acknowledged = run.checkpoint
    for _epoch in run.epochs(epochs):
        model.train()
        die.reached("before-first-batch")
        for ids, values, labels in loader:
            with torch.autocast("cpu", torch.bfloat16, enabled=scenario.autocast):
                loss = criterion(model(values), labels) / scenario.accumulate
            scaler.scale(loss).backward()
            log.ids.extend(ids.tolist())
            micro += 1
            full = micro % scenario.accumulate == 0
            if full:
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
                scheduler.step()
                ema.update_parameters(model)
            if full or scenario.step_after_micro_batches:
                run.step(loss=loss)
            if acknowledge and run.checkpoint != acknowledged:
                acknowledged = run.checkpoint
                append(acknowledge, f"{acknowledged}\n")
            die.reached("step")
        die.reached("epoch-end")
        run.log(noise=float(torch.rand(())))  # a script that draws numbers between epochs
    run.finish()


def _optimizer(scenario: Scenario, model: nn.Module) -> torch.optim.Optimizer:
    parameters = model.parameters()
    match scenario.optimizer:
        case "adamw-foreach":
            return torch.optim.AdamW(parameters, lr=1e-2, foreach=True)
        case "adamw-fused":
            return torch.optim.AdamW(parameters, lr=1e-2, fused=True)
    return torch.optim.SGD(parameters, lr=1e-2, momentum=0.9, nesterov=True)


def _loader(run: onward.Run, scenario: Scenario, dataset: Items, workers: int) -> Any:
    options: dict[str, Any] = {"batch_size": BATCH, "num_workers": workers}
    if workers:
        options["persistent_workers"] = scenario.persistent
    if scenario.loader == "onward":
        return run.loader(dataset, **options)
    if scenario.loader == "user":
        return run.batches(DataLoader(dataset, shuffle=True, **options))
    # Its own state demands the same number of workers before and after.
    return run.batches(StatefulDataLoader(dataset, shuffle=True, batch_size=BATCH, num_workers=0))


# What tests do with it.


def processes() -> ForkServerContext:
    """Processes that have imported torch already: a kill costs milliseconds, not seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [
            "torch",
            "torch._dynamo",
            "torchdata.stateful_dataloader",
            "onward.training.session",
            "onward.data.torch",
        ]
    )
    return context


def run_process(output: Path, scenario: Scenario, *, timeout_s: float = 120, **options: Any) -> int:
    """One process to its end; its exit code, negative for a signal."""
    process = processes().Process(
        target=train, args=(str(output), scenario), kwargs=options, daemon=False
    )
    process.start()
    process.join(timeout_s)
    assert process.exitcode is not None, "the process hangs"
    return process.exitcode
