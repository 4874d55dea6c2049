"""A replay memory as a loader sees it: samples in the tensors of the framework in use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from onward.learning.maths import Maths
from onward.learning.memory import Memory


@dataclass(frozen=True)
class Remembered:
    """The slots of `memory`; data workers are given a copy of it."""

    memory: Memory
    maths: Maths

    def sample(self, slot: int) -> Any:
        """What is remembered there, as the dataset once gave it."""
        return self.memory.sample(slot, tensor=self.maths.host_tensor)

    def batch(self, slots: list[int]) -> Any | None:
        """These slots collated as frameworks do by default, or None where only they can do that."""
        return self.memory.batch(slots, tensor=self.maths.host_tensor)
