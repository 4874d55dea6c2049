"""Lightning: `Trainer.save_checkpoint` in a running `fit`, with its asynchronous plugin."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.plugins.io import AsyncCheckpointIO, TorchCheckpointIO

from benchmarks.checkpointing.subjects.base import Subject
from benchmarks.checkpointing.training import Training


class Lightning(Subject):
    """The measured loop runs within `training_step`, with manual optimization."""

    name = "lightning"
    setup = "`Trainer.save_checkpoint` within `fit`, `AsyncCheckpointIO`"

    def inside(self, body: Callable[[], None]) -> None:
        self._plugin = AsyncCheckpointIO(TorchCheckpointIO())
        self._trainer = _trainer(self._plugin, epochs=1)
        self._trainer.fit(_Module(self.training, body), [0])

    def save(self, index: int) -> None:
        self._trainer.save_checkpoint(self.place(index))
        self.settle(index, self._plugin.teardown)  # its way to wait; the next save starts it anew

    def restore(self, index: int) -> None:
        # Restored as a user resumes: `fit` with the path, up to the first step.
        _trainer(epochs=2).fit(
            _Module(self.training, lambda: None), [0], ckpt_path=str(self.place(index))
        )


class _Module(LightningModule):
    def __init__(self, training: Training, body: Callable[[], None]) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = training.model
        self._training = [training]  # in a list: not a submodule, not saved
        self._body = body

    def training_step(self, batch: Any, index: int) -> None:
        self._body()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self._training[0].optimizer


def _trainer(*plugins: AsyncCheckpointIO, epochs: int) -> Trainer:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    return Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        plugins=list(plugins),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
