"""A memory and its sampler in their smallest form: what penalties need of them, and no more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from onward.data.order import Indices, derive_seed, permutation
from onward.learning.hooks import Counts, Lessons, Observer, Sampler, Setting


class SmallMemory:
    """As many samples of each class as there is room for; older ones stay in their slots."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.labels = np.full(capacity, -1)
        self.inputs = np.zeros((capacity, 0), np.float32)
        self.columns: dict[str, dict[str, npt.NDArray[Any]]] = {}

    @property
    def slots(self) -> Indices:
        return np.flatnonzero(self.labels >= 0)

    def sample(self, slot: int) -> Any:
        return self.inputs[slot], int(self.labels[slot])

    def beside(self, name: str) -> dict[str, npt.NDArray[Any]]:
        return self.columns.setdefault(name, {})

    def learn(self, samples: list[tuple[Any, int]], seed: int) -> None:
        classes = np.union1d(self.labels[self.slots], [label for _, label in samples])
        room = self.capacity // len(classes)
        for label in classes:
            self.labels[np.flatnonzero(self.labels == label)[room:]] = -1
        order = permutation(len(samples), seed).tolist()
        self.inputs = np.resize(self.inputs, (self.capacity, len(samples[0][0])))
        for label in {label for _, label in samples}:
            chosen = [samples[i][0] for i in order if samples[i][1] == label]
            free = np.flatnonzero(self.labels < 0)[: room - (self.labels == label).sum()]
            for slot, inputs in zip(free, chosen, strict=False):
                self.inputs[slot], self.labels[slot] = inputs, label
                for columns in self.columns.values():
                    for column in columns.values():
                        column[slot] = 0


class SmallReplay(Sampler, Observer):
    """Half of each batch from the memory, which is filled when an increment ends."""

    name = "small replay"

    def __init__(self, capacity: int) -> None:
        self.memory: Any = SmallMemory(capacity)

    def begin(self, setting: Setting) -> None:
        self._seed = derive_seed(setting.seed, setting.increment)

    def share(self, counts: Counts) -> float:
        return 0.5

    def after_increment(self, lessons: Lessons) -> None:
        samples = [lessons.raw(index) for index in lessons.new.tolist()]
        self.memory.learn(samples, self._seed)

    def state_dict(self) -> dict[str, Any]:
        memory = self.memory
        return {"labels": memory.labels, "inputs": memory.inputs, "columns": memory.columns}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        for name, value in state_dict.items():
            setattr(self.memory, name, value)
