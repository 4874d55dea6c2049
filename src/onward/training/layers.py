"""Randomness inside of layers, which some frameworks keep where nobody can read it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from onward.data.order import derive_seed
from onward.frameworks.base import CountedRandomness, Framework
from onward.training.loaders import Loaders

LAYERS = "layers"
"""The entry of the tree of randomness that is about layers."""


class LayerRandomness:
    """Seeds such layers by step and counts what they draw; nothing where a framework has none."""

    def __init__(
        self,
        framework: Framework,
        objects: Mapping[str, Any],
        loaders: Loaders,
        *,
        say: Callable[[str], None],
    ) -> None:
        self.restored: Any = None
        """What a resumed checkpoint says of them."""
        self._framework = framework
        self._objects = objects
        self._loaders = loaders
        self._say = say
        self._counted: CountedRandomness | None = None
        self._looked = False

    def begin(self, step: int) -> None:
        """Everything is restored: brings the layers to where they were, or seeds them."""
        self._counted = self._framework.counted_randomness(
            self._objects, lambda path, block: derive_seed(self._loaders.seed, LAYERS, path, block)
        )
        if self._counted is None:
            return
        if self.restored is not None:
            self._counted.load_state_dict(self.restored)
        else:
            self._counted.at_step(step)

    def after_step(self, step: int) -> None:
        """So many optimizer steps are done."""
        if self._counted is None:
            return
        if not self._looked:
            self._looked = True
            hidden = self._counted.uncounted()
            if hidden:
                self._say(
                    f"{', '.join(hidden)} draw random numbers inside of a compiled graph, where "
                    "nobody can save them: a resumed run will drop other units than one that was "
                    "never interrupted (in PyNative mode, without ms.jit, it would be exact)"
                )
        self._counted.at_step(step)

    def state_dict(self) -> dict[str, Any]:
        """An entry for the tree of randomness, or none."""
        return {} if self._counted is None else {LAYERS: self._counted.state_dict()}
