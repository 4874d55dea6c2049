"""Small trainings by Lightning's `Trainer`, run in processes that get killed."""

from __future__ import annotations

import logging
import multiprocessing
import os
import random
import signal
import warnings
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch import callbacks as known
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric

from onward.trainers.lightning import OnwardCallback

from .scenarios import BATCH, CLASSES, FEATURES, Items, Kill, _executioner

EPOCHS = 3


@dataclass(frozen=True)
class Scenario:
    """One way of training with a `Trainer`."""

    name: str
    loader: str = "user"  # or "onward", "datamodule"
    scheduler: str = "step"  # or "plateau", "hand"
    accumulate: int = 1  # in the first epoch; one less in the others
    precision: str = "32-true"
    clip: float | None = None
    validate_every: float | int = 1.0
    judges: bool = False  # EarlyStopping and ModelCheckpoint
    average: bool = False
    by_hand: bool = False  # two optimizers
    max_steps: int = -1


SCENARIOS = [
    Scenario("early stop within an epoch, ModelCheckpoint", validate_every=0.5, judges=True),
    Scenario("bf16, accumulation, clipping, plateau", scheduler="plateau", accumulate=3,
             precision="bf16-mixed", clip=0.5),
    Scenario("two optimizers by hand", scheduler="hand", by_hand=True, validate_every=5),
    Scenario("Onward's mix, EMA", loader="onward", average=True, validate_every=4),
    Scenario("a data module, max_steps", loader="datamodule", max_steps=31, validate_every=0.25),
]  # fmt: skip


class Network(L.LightningModule):
    """Dropout, batch norm, metrics of all kinds, and a tensor of its own in checkpoints."""

    def __init__(self, scenario: Scenario) -> None:
        super().__init__()
        self.automatic_optimization = not scenario.by_hand
        self.scenario = scenario
        self.body = nn.Sequential(
            nn.Linear(FEATURES, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3)
        )
        self.head = nn.Linear(16, CLASSES)
        self.mean = MeanMetric()
        self.noise = torch.zeros(2)

    def _loss(self, batch: Any) -> torch.Tensor:
        return nn.functional.cross_entropy(self.head(self.body(batch[1])), batch[2])

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor | None:
        if not self.automatic_optimization:
            self._step_by_hand(batch, batch_idx)
            return None
        loss = self._loss(batch)
        self.log("loss", loss, on_step=True, on_epoch=True)
        self.mean.update(loss.detach())
        self.log("mean", self.mean, on_step=False, on_epoch=True)
        return loss

    def _step_by_hand(self, batch: Any, batch_idx: int) -> None:
        first, second = self.optimizers()
        for optimizer in (first, second) if batch_idx % 2 else (first,):
            loss = self._loss(batch)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
        self.lr_schedulers().step()
        self.log("loss", loss, on_step=True, on_epoch=True)

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        # Drawn numbers go on from where training is: what validation draws must be the same.
        self.log("val", self._loss(batch) + 0.01 * torch.rand(()))

    def on_train_epoch_end(self) -> None:
        # Whatever was logged in this epoch, and is not remembered, shows in the checkpoint.
        logged = torch.stack([value.float() for value in self.trainer.callback_metrics.values()])
        self.noise = self.noise + torch.randn(2) + logged.sum()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["noise"] = self.noise

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.noise = checkpoint["noise"]

    def configure_optimizers(self) -> Any:
        if self.scenario.by_hand:
            first = torch.optim.SGD(self.body.parameters(), lr=1e-2, momentum=0.9)
            second = torch.optim.AdamW(self.head.parameters(), lr=1e-2)
            return [first, second], [torch.optim.lr_scheduler.ExponentialLR(first, 0.99)]
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
        if self.scenario.scheduler == "plateau":
            plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=9)
            return {
                "optimizer": optimizer,
                "lr_scheduler": {"scheduler": plateau, "monitor": "loss_epoch"},
            }
        steps = 40
        if self.scenario.loader == "user":
            steps = int(self.trainer.estimated_stepping_batches)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        decay = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.9)
        return [optimizer], [{"scheduler": cosine, "interval": "step"}, decay]


class Data(L.LightningDataModule):
    """Knows how often it was asked, and keeps that."""

    def __init__(self, train: Any, held: Any) -> None:
        super().__init__()
        self.train, self.held, self.epochs = train, held, 0

    def train_dataloader(self) -> Any:
        return self.train

    def val_dataloader(self) -> Any:
        return [self.held, self.held]

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        self.epochs += 1
        return batch

    def state_dict(self) -> dict[str, Any]:
        return {"epochs": self.epochs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epochs = state["epochs"]


class Executioner(_executioner):
    """Lets the save on its way end before it kills, so that each life gets somewhere."""

    def __init__(self, kill: Kill, callback: OnwardCallback) -> None:
        super().__init__(kill)
        self._callback = callback

    def reached(self, event: str) -> None:
        last = self._counts.get(event, 0) + 1 == self._kill.at
        if event == self._kill.event != "file-operation" and last:
            assert self._callback.run is not None
            self._callback.run.wait()
        super().reached(event)


class Watcher(L.Callback):
    """Notes what was learned, and where, and kills the process where it shall be killed."""

    def __init__(self, die: _executioner, stop_at: int) -> None:
        self.ids: list[int] = []
        self.places: list[int] = []
        self.validations = 0
        self._die, self._stop_at = die, stop_at

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.validations = 0  # as callbacks do that begin anew with each fit

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self._die.reached("before-first-batch")

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.ids.extend(batch[0].tolist())
        self.places += [
            trainer.current_epoch,
            batch_idx,
            trainer.global_step,
            trainer.is_last_batch,
        ]
        self._die.reached("step")
        if len(self.ids) == self._stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.sanity_checking:
            self.validations += 1
            self._die.reached("validation")

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self._die.reached("epoch-end")

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._die.reached("train-end")

    def state_dict(self) -> dict[str, Any]:
        return {
            "ids": list(self.ids), "places": list(self.places), "validations": self.validations,
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.ids, self.places = list(state["ids"]), list(state["places"])
        self.validations = state["validations"]


def train(
    output: str,
    scenario: Scenario,
    *,
    workers: int = 0,
    kill: Kill | None = None,
    stop_at: int = 0,
    items: int = 96,
    files: str = "",
) -> None:
    """One process's part of a training; ends by finishing, by its own SIGKILL or SIGTERM."""
    multiprocessing.set_start_method("fork", force=True)
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(3)
    options: dict[str, Any] = {"batch_size": BATCH, "num_workers": workers}
    options["persistent_workers"] = workers > 0
    module = Network(scenario)
    often = 3 if scenario.accumulate == 1 else 1

    def prepare(run: Any) -> None:
        finish = run.finish

        def finishing() -> Any:
            die.reached("finishing")
            return finish()

        run.finish = finishing

    callback = OnwardCallback(
        output, save_every_steps=often, save_every_seconds=None, seed=11, prepare=prepare
    )
    die = Executioner(kill or Kill(), callback)
    die.watch_file_operations()
    train = DataLoader(Items(items), shuffle=True, **options)
    held = DataLoader(Items(24), **options)
    callbacks: list[L.Callback] = [callback, Watcher(die, stop_at)]
    if scenario.judges:
        callbacks += [
            EarlyStopping("val", patience=4, min_delta=9.0),
            ModelCheckpoint(
                dirpath=files, monitor="val", save_top_k=2, enable_version_counter=False
            ),
        ]
    if scenario.accumulate > 1:
        schedule = {0: scenario.accumulate, 1: scenario.accumulate - 1}
        callbacks.append(known.GradientAccumulationScheduler(schedule))
    if scenario.average and hasattr(known, "EMAWeightAveraging"):  # from version 2.6 on
        callbacks.append(known.EMAWeightAveraging(decay=0.9))
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=EPOCHS if scenario.max_steps < 0 else -1,
        max_steps=scenario.max_steps,
        precision=scenario.precision,  # type: ignore[arg-type]
        gradient_clip_val=scenario.clip,
        val_check_interval=scenario.validate_every,
        callbacks=callbacks,
        log_every_n_steps=1,
        logger=False,
        enable_checkpointing=scenario.judges,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    if scenario.loader == "datamodule":
        trainer.fit(module, datamodule=Data(train, held))
    elif scenario.loader == "onward":
        mixed = callback.loader(Items(items), **options)
        trainer.fit(module, mixed, held)
    else:
        trainer.fit(module, train, held)


# What tests do with it.


def processes() -> ForkServerContext:
    """Processes that have imported Lightning already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["torch", "torch._dynamo", "lightning", "tests.bitwise.lightning_scenarios"]
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
