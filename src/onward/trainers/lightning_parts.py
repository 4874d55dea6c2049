"""What of a Lightning trainer is in a checkpoint, beside the module, optimizers and schedulers."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from typing import Any

import lightning
import torch
from lightning.pytorch import callbacks as known
from lightning.pytorch.trainer import call

from onward.trainers import lightning_metrics
from onward.trainers.lightning_loop import go_back_to_start, load_progress, set_epoch

_KEPT_ELSEWHERE = {
    "epoch", "global_step", "pytorch-lightning_version", "state_dict", "loops", "callbacks",
    "optimizer_states", "lr_schedulers", "hparams_name", "hyper_parameters", "hparams_type",
    "datamodule_hparams_name", "datamodule_hyper_parameters", "datamodule_hparams_type",
}  # fmt: skip

_AVERAGES: tuple[Any, ...] = (known.WeightAveraging,) if hasattr(known, "WeightAveraging") else ()
"""From version 2.6 on."""

_OF_ONE_BUDGET = (known.EarlyStopping, known.Checkpoint, known.Timer, *_AVERAGES)
"""Callbacks whose `state_dict` counts or judges one fit: a new increment begins it anew."""


class TrainerParts:
    """A `Stateful` of loops, callbacks, precision, metrics, and what hooks add to checkpoints.

    What was loaded is given to its owners by `resume` or `carry_over`, once the output is open, and
    again by `at_batch`, right where it was saved: whatever hooks did in between leaves no trace.
    """

    def __init__(self, trainer: Any) -> None:
        self.ended = False
        """Whether the loops are through: nothing is left to train, only to finish."""
        self._trainer = trainer
        self._found: Mapping[str, Any] | None = None

    # A stateful object.

    def state_dict(self) -> dict[str, Any]:
        trainer = self._trainer
        module, precision = trainer.lightning_module, trainer.precision_plugin
        dumped = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
        own = module.state_dict()
        named = {"precision": type(precision).__qualname__}
        if trainer.datamodule is not None:
            named["datamodule"] = type(trainer.datamodule).__qualname__
        return {
            "loops": dumped["loops"]["fit_loop"],
            "ended": self.ended,
            "should_stop": trainer.should_stop,
            "callbacks": lightning_metrics.unshared(dumped["callbacks"]),
            **{part: dumped.get(name) for part, name in named.items()},
            "added": {
                key: value
                for key, value in dumped.items()
                if key not in _KEPT_ELSEWHERE and key not in named.values()
            },
            "weights": {
                name: value
                for name, value in dumped["state_dict"].items()
                if not _is_same(value, own.get(name))
            },
            "metrics": lightning_metrics.unshared(lightning_metrics.capture(trainer)),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._found = state

    # What becomes of what was loaded.

    def resume(self) -> None:
        """The increment goes on: all parts are as they were, and its loops begin in their epoch."""
        found = self._found
        assert found is not None
        self.ended = found["ended"]
        self._say_what_is_gone(found["callbacks"])
        self._give(copy.deepcopy(found), found["callbacks"])
        if self.ended:
            self.at_batch()
        else:
            go_back_to_start(self._trainer.fit_loop)
            set_epoch(self._trainer.fit_loop, found["loops"])

    def carry_over(self, *, weights_are_new: bool) -> None:
        """An increment begins: its loops count from zero, what callbacks have learned is kept.

        `weights_are_new` says that weights came from elsewhere, without anything of a trainer.
        """
        go_back_to_start(self._trainer.fit_loop)
        if self._found is not None:
            judges = [c.state_key for c in self._trainer.callbacks if isinstance(c, _OF_ONE_BUDGET)]
            callbacks = self._found["callbacks"]
            self._give(self._found, {k: v for k, v in callbacks.items() if k not in judges})
            self._found = None
        elif weights_are_new:
            module = self._trainer.lightning_module
            for callback in self._trainer.callbacks:
                if isinstance(callback, _AVERAGES):  # it averaged what the script had made
                    weights = {"state_dict": module.state_dict()}
                    callback.on_load_checkpoint(self._trainer, module, weights)

    def at_batch(self) -> None:
        """The loops are where this was saved: everything, once more, with all counters."""
        found, self._found = self._found, None
        if found is None:
            return
        trainer = self._trainer
        self._give(found, found["callbacks"])
        load_progress(trainer.fit_loop, found["loops"])
        trainer.should_stop = found["should_stop"]
        lightning_metrics.restore(trainer, found["metrics"])
        fetcher = trainer.fit_loop._data_fetcher
        if fetcher is not None:
            fetcher.fetched = trainer.fit_loop.epoch_loop.batch_progress.current.ready

    # Details.

    def _give(self, found: Mapping[str, Any], callbacks: Mapping[str, Any]) -> None:
        """Calls everyone who has something in a checkpoint, in Lightning's order."""
        trainer = self._trainer
        module, datamodule = trainer.lightning_module, trainer.datamodule
        precision = trainer.precision_plugin
        checkpoint = {
            "epoch": trainer.current_epoch,
            "global_step": trainer.global_step,
            "pytorch-lightning_version": lightning.__version__,
            "state_dict": {**module.state_dict(), **found["weights"]},
            "loops": {"fit_loop": found["loops"]},
            "callbacks": callbacks,
            **found["added"],
        }
        call._call_lightning_module_hook(trainer, "on_load_checkpoint", checkpoint)
        if datamodule is not None and found.get("datamodule"):
            call._call_lightning_datamodule_hook(trainer, "load_state_dict", found["datamodule"])
        with warnings.catch_warnings():
            # What is missing among callbacks has been said once, and in other words.
            warnings.filterwarnings("ignore", message="Be aware that when using `ckpt_path`")
            call._call_callbacks_on_load_checkpoint(trainer, checkpoint)
        call._call_callbacks_load_state_dict(trainer, checkpoint)
        precision.on_load_checkpoint(checkpoint)
        if found["precision"]:
            precision.load_state_dict(found["precision"])

    def _say_what_is_gone(self, callbacks: Mapping[str, Any]) -> None:
        here = {callback.state_key for callback in self._trainer.callbacks}
        gone = sorted(str(key) for key in callbacks if key not in here)
        if gone:
            warnings.warn(
                f"the checkpoint holds the state of callbacks that this Trainer does not have, or "
                f"has with other arguments: {', '.join(gone)}; it is not restored",
                stacklevel=4,
            )


def _is_same(one: Any, two: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor):
        return one is two or one.data_ptr() == two.data_ptr()
    return one is two
