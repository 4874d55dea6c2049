"""safetensors: one flat file of tensors; what is no tensor goes into its text metadata."""

from __future__ import annotations

import json

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from benchmarks.checkpointing.subjects.base import Subject


class Safetensors(Subject):
    name = "safetensors"
    asynchronous = False
    setup = "`save_file`; `safe_open` and a copy into the live tensors"

    def save(self, index: int) -> None:
        groups = self.training.optimizer.state_dict()["param_groups"]
        save_file(
            dict(self.training.tensors()), self.place(index), {"param_groups": json.dumps(groups)}
        )
        self.settle(index)

    def restore(self, index: int) -> None:
        optimizer = self.training.optimizer
        with safe_open(self.place(index), framework="pt") as file, torch.no_grad():
            groups = json.loads(file.metadata()["param_groups"])
            state = optimizer.state_dict()["state"]
            for name, live in self.training.tensors():
                stored = file.get_tensor(name)
                if name.startswith("model.") or live.ndim:
                    live.copy_(stored)
                else:  # SparseAdam counts its steps in a plain number
                    number, key = name.split(".")[1:]
                    counts = isinstance(state[int(number)][key], int)
                    state[int(number)][key] = int(stored) if counts else stored
        optimizer.load_state_dict({"state": state, "param_groups": groups})
