"""What of a `Trainer` is in a checkpoint beside model and optimizer: all of it plain data."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers.trainer_callback import ExportableState

from onward.errors import Mismatch, NewerFormat

_VERSION = 1
_STATE = (
    "epoch", "global_step", "num_input_tokens_seen", "total_flos", "log_history", "best_metric",
    "best_global_step", "best_model_checkpoint",
)  # fmt: skip
_FLAGS = (
    "should_training_stop", "should_epoch_stop", "should_save", "should_evaluate", "should_log",
)  # fmt: skip


class TrainerParts:
    """The trainer's counters, logs, flags and schedule, and the state of its callbacks.

    A `Stateful` that is loaded before the trainer has made its scheduler and its `TrainerState`:
    what was loaded waits until then. They belong to an increment, so only a resume takes them up.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._loaded: Mapping[str, Any] | None = None
        self._groups: list[dict[str, Any]] = []
        self._counted = 0
        self._told: tuple[float | None, float | None] = (None, None)
        self.resumed = False
        """Whether an unfinished increment goes on."""

    @property
    def stopped(self) -> bool:
        """Whether the trainer had decided, when it was saved, not to go on in its epoch."""
        if not self.resumed or self._loaded is None:
            return False
        flags = self._loaded["control"]
        return bool(flags["should_training_stop"] or flags["should_epoch_stop"])

    # Its state.

    def state_dict(self) -> dict[str, Any]:
        trainer = self._trainer
        scheduler = trainer.lr_scheduler
        loss = getattr(trainer, "_tr_loss", None)
        return {
            "version": _VERSION,
            "accumulate": trainer.args.gradient_accumulation_steps,
            "state": {name: copy.deepcopy(getattr(trainer.state, name)) for name in _STATE},
            "control": {name: bool(getattr(trainer.control, name)) for name in _FLAGS},
            "callbacks": [
                [type(callback).__name__, state] for callback, state in _states_of(trainer)
            ],
            "scheduler": None if scheduler is None else {
                "type": type(scheduler).__name__, "state": scheduler.state_dict(),
            },
            "loss": None if loss is None else loss.detach().clone(),
            "total_loss": float(getattr(trainer, "_total_loss_scalar", 0.0)),
            "logged_step": int(getattr(trainer, "_globalstep_last_logged", 0)),
            "flos": float(trainer.current_flos),
            "grad_norm": self._told[0],
            "learning_rate": self._told[1],
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state["version"] > _VERSION:
            raise NewerFormat("the trainer's state is newer than this Onward", do="update Onward")
        self._loaded = state

    # How it gets back, in the order of the trainer's own preparations.

    def opened(self, *, resumed: bool) -> None:
        """The output is open, and the optimizer as it was; the trainer makes its scheduler next."""
        self.resumed = resumed
        self._told = (None, None)
        if not resumed:
            return
        # Which sets the learning rate of its first step.
        groups = self._trainer.optimizer.param_groups
        self._groups = [{k: v for k, v in group.items() if k != "params"} for group in groups]
        self._check_best_model()

    def check_place(self, batches_taken: int) -> None:
        """Raises `Mismatch` where batches taken so far would make other optimizer steps now."""
        if not self.resumed or self._loaded is None or not batches_taken:
            return
        there = self._loaded["accumulate"]
        here = self._trainer.args.gradient_accumulation_steps
        if there != here:
            raise Mismatch(
                "the trainer cannot go on within the epoch that was interrupted",
                differences=[f"gradient_accumulation_steps: {there} in the checkpoint, {here} now"],
                why="its steps would be made of other batches",
                do="resume with the same, and change it for the next increment",
            )

    def apply_to_state(self, state: Any) -> None:
        """The `TrainerState` is made; its `max_steps` and the like are today's arguments."""
        assert self._loaded is not None
        for name in _STATE:
            setattr(state, name, copy.deepcopy(self._loaded["state"][name]))
        self._counted = state.global_step

    def apply_to_loop(self, control: Any) -> None:
        """All is made, nothing is trained yet."""
        trainer = self._trainer
        self._counted = trainer.state.global_step
        if not self.resumed:
            return
        loaded = self._loaded
        assert loaded is not None
        self._check_same_parts(loaded)
        if loaded["scheduler"] is not None:
            trainer.lr_scheduler.load_state_dict(copy.deepcopy(loaded["scheduler"]["state"]))
        for group, saved in zip(trainer.optimizer.param_groups, self._groups, strict=True):
            group.update(saved)
        for (callback, _), (_, saved) in zip(_states_of(trainer), loaded["callbacks"], strict=True):
            _give_back(callback, saved)
        for name in _FLAGS:
            setattr(control, name, loaded["control"][name])
        if loaded["loss"] is not None:
            trainer._tr_loss = loaded["loss"].clone().to(trainer.args.device)
        trainer._total_loss_scalar = loaded["total_loss"]
        trainer._globalstep_last_logged = loaded["logged_step"]
        trainer.current_flos = loaded["flos"]
        # What it reports at the end is about the increment, not about this process's part of it.
        trainer._initial_global_step = 0
        trainer._initial_num_input_tokens_seen = 0
        self._told = (loaded["grad_norm"], loaded["learning_rate"])

    # In the loop.

    def last_told(self, grad_norm: Any, learning_rate: Any) -> tuple[Any, Any]:
        """What is to be logged of the last step, also in a process that resumed right after it."""
        if learning_rate is None:
            return self._told
        norm = grad_norm
        if norm is not None and not isinstance(norm, float):
            norm = float(norm)
        self._told = (norm, float(learning_rate))
        return grad_norm, learning_rate

    def counts_step(self) -> bool:
        """Whether the trainer made an optimizer step since this was last asked."""
        before, self._counted = self._counted, self._trainer.state.global_step
        return bool(self._counted > before)

    # Details.

    def _check_same_parts(self, loaded: Mapping[str, Any]) -> None:
        there = [name for name, _ in loaded["callbacks"]]
        here = [type(callback).__name__ for callback, _ in _states_of(self._trainer)]
        differences = []
        if there != here:
            differences.append(f"callbacks with state: {there} in the checkpoint, {here} now")
        if loaded["scheduler"] is not None:
            kind, now = loaded["scheduler"]["type"], type(self._trainer.lr_scheduler).__name__
            if kind != now:
                differences.append(f"scheduler: {kind} in the checkpoint, {now} now")
        if differences:
            raise Mismatch(
                "the trainer is not made as the one whose increment is not finished",
                differences=differences,
                do="give it the same scheduler and callbacks, and change them for the next one",
            )

    def _check_best_model(self) -> None:
        assert self._loaded is not None
        best = self._loaded["state"]["best_model_checkpoint"]
        if self._trainer.args.load_best_model_at_end and best and not Path(best).is_dir():
            raise Mismatch(
                "the best model of the unfinished increment is gone",
                differences=[f"{best}: is no folder"],
                why="load_best_model_at_end=True would load it, and it is one of the trainer's own "
                "checkpoints, which Onward does not keep",
                do="bring it back, or go on with load_best_model_at_end=False",
            )


def _states_of(trainer: Any) -> list[tuple[Any, dict[str, Any]]]:
    """The callbacks that have state, each with it: `transformers`' own way, or `state_dict`."""
    found: list[tuple[Any, dict[str, Any]]] = []
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, ExportableState):
            found.append((callback, copy.deepcopy(callback.state().get("attributes", {}))))
        elif hasattr(callback, "state_dict") and hasattr(callback, "load_state_dict"):
            found.append((callback, copy.deepcopy(callback.state_dict())))
    return found


def _give_back(callback: Any, saved: Mapping[str, Any]) -> None:
    if not isinstance(callback, ExportableState):
        callback.load_state_dict(copy.deepcopy(saved))
        return
    for name, value in saved.items():
        setattr(callback, name, copy.deepcopy(value))
