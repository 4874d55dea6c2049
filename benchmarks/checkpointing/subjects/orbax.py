"""Orbax with NumPy arrays: a copy, then TensorStore in the background."""

from __future__ import annotations

from typing import Any

import numpy as np
import orbax.checkpoint as ocp
import torch

from benchmarks.checkpointing.subjects.base import Subject
from benchmarks.checkpointing.training import Training


class Orbax(Subject):
    """NumPy views of the live tensors are saved; Orbax copies them, since they are mutable."""

    name = "orbax"
    setup = "`AsyncCheckpointer`, NumPy arrays, compression off (on takes twice the time)"

    def begin(self) -> None:
        handler = ocp.PyTreeCheckpointHandler(use_compression=False)
        self._checkpointer = ocp.AsyncCheckpointer(handler)

    def prepare_restore(self, variant: str) -> None:
        self.begin()

    def save(self, index: int) -> None:
        self._checkpointer.save(self.place(index), args=ocp.args.PyTreeSave(_arrays(self.training)))
        self.settle(index, self._checkpointer.wait_until_finished)

    def close(self) -> None:
        super().close()
        self._checkpointer.close()

    def restore(self, index: int) -> None:
        live = _arrays(self.training)
        how: Any = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in live}
        stored = self._checkpointer.restore(
            self.place(index), args=ocp.args.PyTreeRestore(live, restore_args=how)
        )
        state = self.training.optimizer.state_dict()
        with torch.no_grad():
            for name, array in live.items():
                if array.ndim:
                    np.copyto(array, stored[name])
                    continue
                number, key = name.split(".")[1:]
                counts = isinstance(state["state"][int(number)][key], int)
                value = stored[name].item()
                state["state"][int(number)][key] = (
                    int(value) if counts else torch.tensor(value, dtype=torch.float32)
                )
        self.training.optimizer.load_state_dict(state)

    def end_restore(self) -> None:
        self._checkpointer.close()


def _arrays(training: Training) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy() for name, value in training.tensors()}
