"""Samplers: what is in a batch, of what is new and of what was learned before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from onward.errors import UsageError
from onward.learning.hooks import Counts, Lessons, Observer, Sampler, Setting
from onward.learning.memory import Memory
from onward.learning.versions import accepted

_LEAST_OLD = 0.5


class UniformReplay(Sampler):
    """Uniform over all data, while the old data can be reached: the default.

    A batch has as large a share of new items as the data has; nothing published beats that for each
    gradient step (Prabhu et al. 2023, Computationally budgeted continual learning). One thing comes
    first: where so few rows are drawn that some new items would never be met, their share is
    raised until each is met once, up to half of a batch. A model must not be said to have learned
    what it never saw; what even then is not met stays new.
    """

    name = "uniform replay"

    def share(self, counts: Counts) -> float:
        uniform = counts.new / (counts.new + counts.known)
        if not counts.old:
            return 1.0
        met_once = counts.new / counts.draws if counts.draws else 1.0
        return max(uniform, min(1 - _LEAST_OLD, met_once))

    def state_dict(self) -> dict[str, Any]:
        return {"version": 1}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        accepted(state_dict, self.name, version=1)


class MemoryReplay(Sampler, Observer):
    """Experience replay from a bounded memory, old and new in one batch (Chaudhry et al. 2019).

    With `share="uniform"` a batch has as large a share of new items as they have of all that was
    ever learned: the memory stands in for all of it, as the losses of van de Ven et al. 2022 are
    weighted. A number fixes the share. When an increment ends, the memory is offered what it met.
    """

    name = "memory"

    def __init__(self, memory: Memory, *, share: float | Literal["uniform"] = "uniform") -> None:
        if share != "uniform" and not 0.0 < share <= 1.0:
            raise UsageError(
                f"share is {share!r}", do='give the share of new items, above 0, or "uniform"'
            )
        self.memory = memory
        self._share = share

    def begin(self, setting: Setting) -> None:
        self._increment = setting.increment

    def share(self, counts: Counts) -> float:
        if not counts.old:
            return 1.0
        if self._share != "uniform":
            return float(self._share)
        return counts.new / (counts.new + counts.known)

    def after_increment(self, lessons: Lessons) -> None:
        assert self.memory is not None
        self.memory.offer(lessons, increment=self._increment)

    def state_dict(self) -> dict[str, Any]:
        assert self.memory is not None
        return {"version": 1, "memory": self.memory.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        accepted(state_dict, self.name, version=1)
        assert self.memory is not None
        self.memory.load_state_dict(state_dict["memory"])

    def describe(self) -> str:
        assert self.memory is not None
        return f"{self.memory.policy} memory of {self.memory.capacity:,} samples"


class NoReplay(Sampler):
    """New items alone: for strategies that work without old ones, and to see what is forgotten."""

    name = "no replay"

    def share(self, counts: Counts) -> float:
        return 1.0

    def state_dict(self) -> dict[str, Any]:
        return {"version": 1}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        accepted(state_dict, self.name, version=1)
