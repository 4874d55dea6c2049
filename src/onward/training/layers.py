"""Randomness inside of layers, which some frameworks keep where nobody can read it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from onward.data.order import derive_seed
from onward.frameworks.base import Framework, LayerSeeds
from onward.training.loaders import Loaders


class LayerRandomness:
    """Has such layers draw what follows from the step; nothing where a framework has none."""

    def __init__(
        self,
        framework: Framework,
        objects: Mapping[str, Any],
        loaders: Loaders,
        *,
        say: Callable[[str], None],
    ) -> None:
        self._framework = framework
        self._objects = objects
        self._loaders = loaders
        self._say = say
        self._seeds: LayerSeeds | None = None
        self._looked = False

    def begin(self, step: int) -> None:
        """Everything is restored, and so many optimizer steps are done."""
        self._seeds = self._framework.layer_seeds(
            self._objects, lambda path, step: derive_seed(self._loaders.seed, "layers", path, step)
        )
        if self._seeds is not None:
            self._seeds.at_step(step)

    def after_step(self, step: int) -> None:
        """So many optimizer steps are done."""
        if self._seeds is None:
            return
        if not self._looked:
            self._looked = True
            hidden = self._seeds.out_of_reach()
            if hidden:
                self._say(
                    f"{', '.join(hidden)} draw random numbers where nobody can save them: a "
                    "resumed run drops other units than one that was never interrupted (on a CPU "
                    "in PyNative mode, without ms.jit, they would be the same)"
                )
        self._seeds.at_step(step)
