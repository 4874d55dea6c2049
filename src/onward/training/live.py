"""The live state of a run as one tree: the user's objects, the run's own counters, randomness."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from onward.data.order import derive_seed
from onward.frameworks.base import Framework, LayerSeeds
from onward.training.counters import Counters

OWN, RANDOMNESS = "onward", "randomness"
"""Top-level entries of a state tree that belong to the run, not to the user's objects."""


class LiveState:
    """Captures it, and sets random numbers where they belong.

    `say` is told once of layers whose random numbers are out of reach.
    """

    def __init__(
        self,
        framework: Framework,
        objects: Mapping[str, Any],
        counters: Counters,
        *,
        say: Callable[[str], None],
    ) -> None:
        self._framework = framework
        self._objects = objects
        self._counters = counters
        self._say = say
        self._pending: Mapping[str, Any] | None = None
        self._layers: LayerSeeds | None = None
        self._looked = False

    def begin(self) -> None:
        """Everything is restored: layers that draw by themselves are given seeds by step."""
        loaders = self._counters.loaders
        self._layers = self._framework.layer_seeds(
            self._objects, lambda path, step: derive_seed(loaders.seed, "layers", path, step)
        )
        if self._layers is not None:
            self._layers.at_step(self._counters.global_step)

    def after_step(self) -> None:
        """An optimizer step is done and counted."""
        if self._layers is None:
            return
        if not self._looked:
            self._looked = True
            hidden = self._layers.out_of_reach()
            if hidden:
                self._say(
                    f"{', '.join(hidden)} draw random numbers where nobody can save them: a "
                    "resumed run drops other units than one that was never interrupted (on a CPU "
                    "in PyNative mode, without ms.jit, they would be the same)"
                )
        self._layers.at_step(self._counters.global_step)

    def learned(self) -> dict[str, Any]:
        """The tree of what is learned and counted."""
        # With the run's own state: a ledger is as large as the data, and mostly unchanged.
        return self._framework.capture({**self._objects, OWN: self._counters})

    def capture(self) -> dict[str, Any]:
        """The whole tree."""
        state = self.learned()
        # While a restored position has not been reached, the checkpoint's generators are pending.
        pending = self._pending
        state[RANDOMNESS] = pending if pending is not None else self._framework.capture_randomness()
        return state

    def restore_randomness_later(self, tree: Mapping[str, Any]) -> None:
        """Sets the generators when the loop gets to where the checkpoint was taken."""
        self._pending = tree

    def apply_randomness(self) -> None:
        """The loop is there."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            self._framework.restore_randomness(pending)
