"""GDumb: keep a balanced memory, and train on nothing else, from scratch. To be beaten."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onward.errors import UsageError
from onward.learning.hooks import Counts, Lessons, Observer, Sampler, Setting, Transform
from onward.learning.memory import Memory
from onward.learning.versions import accepted


class GDumb(Sampler, Observer, Transform):
    """Each increment offers its items to a class-balanced memory and trains a fresh model on that.

    SOURCE: Prabhu et al. 2020 (GDumb: a simple approach that questions our progress in continual
    learning, ECCV). A strategy that does no better with the same memory has learned nothing from
    what it does not remember.
    """

    name = "gdumb"

    def __init__(self, memory: Memory) -> None:
        if memory.policy != "class-balanced":
            raise UsageError(
                f"GDumb was given a memory that keeps a {memory.policy}",
                do='give it Memory(…, policy="class-balanced")',
            )
        self.memory = memory

    def begin(self, setting: Setting) -> None:
        self._setting = setting

    def at_start(self, fresh: Mapping[str, Any]) -> None:
        maths = self._setting.maths
        for name, value in maths.weights(self._setting.model).items():
            maths.assign(value, maths.placed(fresh[name], like=value))

    def before_increment(self, lessons: Lessons) -> None:
        assert self.memory is not None
        self.memory.offer(lessons, increment=self._setting.increment)

    def share(self, counts: Counts) -> float:
        return 0.0

    def state_dict(self) -> dict[str, Any]:
        assert self.memory is not None
        return {"version": 1, "memory": self.memory.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        accepted(state_dict, self.name, version=1)
        assert self.memory is not None
        self.memory.load_state_dict(state_dict["memory"])

    def describe(self) -> str:
        assert self.memory is not None
        return f"GDumb, a balanced memory of {self.memory.capacity:,} samples alone"
