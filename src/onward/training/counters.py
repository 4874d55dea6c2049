"""What a run counts: steps and epochs, of this increment and of the model's whole life."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from onward.training.learning import Learning
from onward.training.loaders import Loaders


@dataclass(slots=True)
class Counters:
    """A run's own state, beside the user's objects; a `Stateful`, with the loaders' positions."""

    loaders: Loaders
    learning: Learning
    global_step: int = 0
    increment_step: int = 0
    epoch: int = 0
    epochs_before: int = 0
    new_increment: bool = False
    """Whether what is loaded belongs to a finished increment before this one."""

    def state_dict(self) -> dict[str, Any]:
        return {
            "global_step": self.global_step,
            "increment_step": self.increment_step,
            "epoch": self.epoch,
            "epochs_before": self.epochs_before,
            "loaders": self.loaders.state_dict(),
            "learning": self.learning.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.global_step = state["global_step"]
        self.epochs_before = state["epochs_before"]
        if self.new_increment:
            self.epochs_before += state["epoch"]
        else:
            self.increment_step = state["increment_step"]
            self.epoch = state["epoch"]
        self.loaders.load_state_dict(state["loaders"], new_increment=self.new_increment)
        learning = state.get("learning")  # checkpoints of the first version have none
        if learning is not None:
            self.learning.load_state_dict(learning, new_increment=self.new_increment)
