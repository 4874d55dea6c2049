"""What the callback for Lightning refuses, and what to do instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    LearningRateFinder,
    OnExceptionCheckpoint,
    StochasticWeightAveraging,
)
from lightning.pytorch.callbacks.finetuning import BaseFinetuning
from lightning.pytorch.utilities import CombinedLoader
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature

from onward.errors import UsageError
from onward.frameworks.versions import Tested

TESTED = Tested(
    "lightning",
    (2, 5),
    (2, 6),
    older="the progress that its loops keep has another form there",
    newer="an exact resume depends on how its loops are written, and these are not known yet",
)

_TUNERS = (BatchSizeFinder, LearningRateFinder)


def check_options(options: Mapping[str, Any]) -> None:
    """Raises `UsageError` for objects that the trainer itself has to give."""
    taken = ("model", "optimizer", "scheduler", "trainer")
    given = [name for name in options if name.rstrip("0123456789") in taken]
    if given:
        raise UsageError(
            f"OnwardCallback was given {', '.join(given)}",
            why="module, optimizers and schedulers are taken from the trainer",
            do="leave them away, or call your own object by another name",
        )


def check_trainer(trainer: Any, module: Any) -> None:
    """Raises `UsageError` for the first thing that could not be resumed exactly."""
    if not isinstance(trainer, pl.Trainer):
        raise UsageError(
            f"the trainer is a {type(trainer).__module__}.{type(trainer).__qualname__}",
            why="the callback belongs to the package `lightning`",
            do="import lightning as L everywhere, in place of pytorch_lightning",
        )
    if trainer.world_size > 1 or trainer.strategy.restore_checkpoint_after_setup:
        raise UsageError(
            f"{type(trainer.strategy).__name__} over {trainer.world_size} process(es)",
            why="the state of several processes, or of a sharded model, is not stored yet",
            do="train in one process: Trainer(devices=1, strategy='auto')",
        )
    for option in ("reload_dataloaders_every_n_epochs", "overfit_batches"):
        if getattr(trainer, option):
            raise UsageError(
                f"Trainer({option}={getattr(trainer, option)})",
                why="batches are Onward's, the same ones for the whole increment",
                do=f"leave {option} away; more data is learned when the same command runs again",
            )
    if is_param_in_hook_signature(module.training_step, "dataloader_iter", explicit=True):
        raise UsageError(
            "training_step takes a dataloader_iter",
            why="nobody could tell which batches it has learned",
            do="let it take a batch: training_step(self, batch, batch_idx)",
        )
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        _check_callback(callback)


def check_no_file(trainer: Any) -> None:
    """Raises `UsageError` where a checkpoint of Lightning's shall be loaded as well."""
    if trainer.ckpt_path is None:
        return
    raise UsageError(
        f"trainer.fit(ckpt_path={str(trainer.ckpt_path)!r}) beside an OnwardCallback",
        why="the output decides where training goes on, and there can be only one",
        do="leave ckpt_path away; to begin with the weights of that file, load them into the "
        "module first, or put them into the output with `onward import`",
    )


def check_train_loader(found: Any) -> None:
    """Raises `UsageError` for several train loaders: one position is kept, and one order."""
    if isinstance(found, CombinedLoader | list | tuple | dict):
        raise UsageError(
            f"the train dataloader is a {type(found).__name__}",
            why="one loader is resumed exactly, not a combination of several",
            do="give one DataLoader, over a dataset that combines the others "
            "(torch.utils.data.ConcatDataset, or one whose items are tuples)",
        )


def check_length(trainer: Any, feed: Any) -> None:
    """Raises `UsageError` where Lightning would look a batch ahead to find an epoch's end."""
    try:
        len(feed)
    except (TypeError, NotImplementedError):
        limit = trainer.limit_train_batches
        if not (isinstance(limit, int) and limit > 0):
            raise UsageError(
                "the train dataloader has no length",
                why="an epoch's last batch could only be told by loading the one after it",
                do="say how long an epoch is: Trainer(limit_train_batches=1000)",
            ) from None


def _check_callback(callback: Any) -> None:
    name = type(callback).__name__
    why = do = ""
    if isinstance(callback, _TUNERS):
        why = "it trains for a while in order to choose a number, which is part of no increment"
        do = "tune with a Trainer of its own (lightning.pytorch.tuner.Tuner), then fit with this"
    elif isinstance(callback, BaseFinetuning):
        why = "the optimizer gets parameter groups on the way, which a new process does not have"
        do = "give the optimizer all groups in configure_optimizers and freeze by requires_grad"
    elif isinstance(callback, StochasticWeightAveraging):
        why = "it replaces the schedulers on the way, and keeps its averages where none can save it"
        do = "use lightning.pytorch.callbacks.WeightAveraging"
    elif isinstance(callback, OnExceptionCheckpoint):
        why = "Lightning would load its file when training starts again, beside the output"
        do = "leave it away: the output holds the state of the last save"
    if why:
        raise UsageError(f"{name} beside an OnwardCallback", why=why, do=do)
