"""What is in the batch: all data, or what is new beside what is remembered, or only what is new."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from onward.data.mixing import planned_share
from onward.errors import UsageError
from onward.learning.hooks import Counts, Lessons, Observer, Sampler, Setting
from onward.learning.memory import Memory, Policy
from onward.learning.versions import accepted

_VERSION = 1


class _Stateless(Sampler):
    """A sampler that has nothing to remember."""

    def state_dict(self) -> dict[str, Any]:
        """Only a version."""
        return {"version": _VERSION}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Refuses what a newer Onward wrote."""
        accepted(state_dict, self.name, version=_VERSION)


class UniformReplay(_Stateless):
    """Uniform over all data, while the old data can be reached: the default.

    A batch has as large a share of new items as the data has; nothing published beats that for each
    gradient step. One thing comes first: where so few rows are drawn that some new items would
    never be met, their share is raised until each is met once, up to half of a batch
    (`planned_share`).

    SOURCE: Prabhu et al. 2023, "Computationally budgeted continual learning: what does matter?"
    """

    name = "uniform replay"

    def share(self, counts: Counts) -> float:
        """new / (new + old at hand), or more; 1 where nothing old is at hand."""
        if not counts.old:
            return 1.0
        if counts.draws is None:
            return counts.new / (counts.new + counts.old)
        return planned_share(replace(counts, known=counts.old), draws=counts.draws)


class NoReplay(_Stateless):
    """Only what is new: for penalties that work without old data. Alone it forgets."""

    name = "no replay"

    def share(self, counts: Counts) -> float:
        """1: new items alone, unless there are none."""
        return 1.0


class Ratio(_Stateless):
    """So many old items for each new one, however many there are of each.

    Raises `UsageError` for a ratio that is negative or no finite number.
    """

    name = "ratio"

    def __init__(self, replay: float) -> None:
        if not (math.isfinite(replay) and replay >= 0):
            raise UsageError(
                f"{replay} old items for each new one", do="give a number of 0 or more"
            )
        self.replay = float(replay)

    def share(self, counts: Counts) -> float:
        """1 / (1 + replay)."""
        return 1.0 / (1.0 + self.replay) if counts.old else 1.0

    def describe(self) -> str:
        return f"replay of {self.replay:g} old items for each new one"


class MemoryReplay(Sampler, Observer):
    """What is new beside samples from a bounded memory, for old data that cannot be reached.

    `memory` is one, or how large it is to be, with `policy` as for `Memory`. `share` of the items
    in a batch are new: `"uniform"` is new / (new + known), the memory standing in for all that was
    ever learned, but between `LEAST_NEW` and `MOST_NEW`; or a number in 0 … 1. Below a quarter a
    little new data is hardly learned, while the few remembered samples are learned by heart.

    At the end of each increment its items are offered to the memory. One shared batch of both: the
    loss of the whole batch is what training on all data would give, estimated from few samples.

    SOURCE: Chaudhry et al. 2019, "On tiny episodic memories in continual learning" (experience
    replay).
    """

    name = "memory"

    LEAST_NEW = 0.25
    MOST_NEW = 0.75

    def __init__(
        self,
        memory: int | Memory,
        *,
        policy: Policy = "reservoir",
        share: Literal["uniform"] | float = "uniform",
    ) -> None:
        given = memory if isinstance(memory, Memory) else Memory(memory, policy=policy)
        self.memory: Memory = given
        self._share = checked_share(share)
        self._increment = 0

    def begin(self, setting: Setting) -> None:
        """Takes its seed and the number of the increment from the run."""
        self.memory.seed = setting.seed
        self._increment = setting.increment

    def share(self, counts: Counts) -> float:
        """See the class."""
        if not counts.old:
            return 1.0
        if self._share != "uniform":
            return float(self._share)
        uniform = counts.new / (counts.new + counts.known)
        return min(max(uniform, self.LEAST_NEW), self.MOST_NEW)

    def after_increment(self, lessons: Lessons) -> None:
        """Offers what was learned to the memory."""
        self.memory.offer(lessons, increment=self._increment)

    def state_dict(self) -> dict[str, Any]:
        """The memory."""
        return {"version": _VERSION, "memory": self.memory.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Becomes what `state_dict` once returned."""
        accepted(state_dict, self.name, version=_VERSION)
        self.memory.load_state_dict(state_dict["memory"])

    def describe(self) -> str:
        return f"replay from a {self.memory.policy} memory of {self.memory.capacity:,} samples"


def checked_share(share: Literal["uniform"] | float) -> Literal["uniform"] | float:
    """The share, or `UsageError`."""
    if share == "uniform":
        return "uniform"
    if isinstance(share, str) or not 0.0 <= share <= 1.0:
        raise UsageError(f"a share of {share!r} new items", do='give "uniform", or one in 0 … 1')
    return float(share)
