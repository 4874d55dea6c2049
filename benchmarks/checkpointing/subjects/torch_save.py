"""`torch.save` and `torch.load`: what most scripts do."""

from __future__ import annotations

import torch

from benchmarks.checkpointing.subjects.base import Subject


class TorchSave(Subject):
    name = "torch.save"
    asynchronous = False
    setup = "`torch.save`; `torch.load(mmap=True)`"

    def save(self, index: int) -> None:
        torch.save(self.state(), self.place(index))
        self.settle(index)

    def restore(self, index: int) -> None:
        self.load(torch.load(self.place(index), mmap=True, weights_only=True))
