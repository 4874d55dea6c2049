"""GDumb: forget everything and learn the memory alone. The baseline that must be beaten."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from onward.errors import Mismatch, UsageError
from onward.learning.hooks import Counts, Lessons, Observer, Sampler, Setting, Transform
from onward.learning.memory import Memory
from onward.learning.versions import accepted

_VERSION = 1


class GDumb(Sampler, Observer, Transform):
    """Before an increment, keeps a class-balanced memory of all data so far; then trains fresh
    weights on the memory alone.

    A way not to forget that loses to this one is of no use for that data and that memory.

    SOURCE: Prabhu, Torr, Dokania 2020, "GDumb: a simple approach that questions our progress in
    continual learning", algorithms 1 and 2.
    """

    name = "gdumb"

    def __init__(self, memory: int | Memory) -> None:
        given = memory if isinstance(memory, Memory) else Memory(memory, policy="class-balanced")
        if given.policy != "class-balanced":
            raise UsageError(
                f"GDumb was given a memory that keeps a {given.policy}",
                do='give it Memory(…, policy="class-balanced"), or only its size',
            )
        self.memory: Memory = given
        self._setting: Setting | None = None

    def begin(self, setting: Setting) -> None:
        """Takes its seed and the number of the increment from the run."""
        self._setting = setting
        self.memory.seed = setting.seed

    def share(self, counts: Counts) -> float:
        """0: the memory alone, which holds some of what is new by then."""
        return 0.0

    def before_increment(self, lessons: Lessons) -> None:
        """Offers what is new to the memory."""
        assert self._setting is not None
        self.memory.offer(lessons, increment=self._setting.increment)

    def at_start(self, fresh: Mapping[str, Any]) -> None:
        """Puts the fresh weights back.

        Raises `Mismatch` for weights without a fresh counterpart of the same shape; nothing has
        changed then.
        """
        assert self._setting is not None
        maths = self._setting.maths
        live = maths.weights(self._setting.model)
        differences = [
            f"{name} has no fresh weights of shape {list(target.shape)}"
            for name, target in live.items()
            if name not in fresh or tuple(fresh[name].shape) != tuple(target.shape)
        ]
        if differences:
            raise Mismatch(
                "GDumb cannot begin anew",
                differences=differences,
                do="give the run the model as the script initialises it",
            )
        for name, target in live.items():
            value = fresh[name]
            if isinstance(value, np.ndarray):
                value = maths.tensor(value, like=target)
            maths.assign(target, value)

    def state_dict(self) -> dict[str, Any]:
        """The memory."""
        return {"version": _VERSION, "memory": self.memory.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Becomes what `state_dict` once returned."""
        accepted(state_dict, self.name, version=_VERSION)
        self.memory.load_state_dict(state_dict["memory"])

    def describe(self) -> str:
        return f"GDumb: fresh weights, trained on a memory of {self.memory.capacity:,} alone"
