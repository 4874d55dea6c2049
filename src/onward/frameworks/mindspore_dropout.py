"""Dropout layers whose random numbers follow from the step.

`nn.Dropout` draws from a generator inside its kernel, which nobody can read or set, which begins
anew with every process, and whose numbers on a CPU depend on how the kernel was shared out among
threads: two runs with one seed differ. Where Python runs the layer, in PyNative mode on a CPU,
Onward draws its mask instead: from the run's seed, the layer's path, the optimizer step and how
often the layer was called since. There is nothing to save, and a resumed run drops the same units.

Inside of a compiled graph, and on an accelerator, the layer is MindSpore's as it always was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from onward.frameworks.mindspore_tensors import on_host

DeriveSeed = Callable[[str, int], int]


class _SeededDropout(ops.Dropout):  # type: ignore[misc]
    """The primitive of a layer. Compilers see MindSpore's own; Python calls `__call__`."""

    def __init__(self, keep: float, seed0: int, seed1: int, path: str, owner: SeededDropouts):
        super().__init__(keep, seed0, seed1)
        self._keep = keep
        self._path = path
        self._owner = owner
        self.calls = 0
        self.used = False

    def __call__(self, x: Any) -> Any:
        if not on_host():
            return super().__call__(x)
        self.used = True
        key = self._owner.seed_of(self._path) + (self.calls << 64)
        self.calls += 1
        size = int(np.prod(x.shape))
        drawn = np.random.Philox(key=key).random_raw((size + 1) // 2).view(np.uint32)[:size]
        kept = drawn < np.uint32(min(self._keep * 2**32, 2**32 - 1))
        mask = ms.Tensor(kept.reshape(x.shape).astype(np.float32) / np.float32(self._keep))
        mask = mask.astype(x.dtype)
        return x * mask, mask


# Compilers know a primitive by the name of its class.
_SeededDropout.__name__ = "Dropout"


class SeededDropouts:
    """The dropout layers of some networks, by path; a `LayerSeeds`."""

    def __init__(self, layers: Mapping[str, nn.Dropout], derive_seed: DeriveSeed) -> None:
        self._layers = dict(layers)
        self._derive_seed = derive_seed
        self._step = 0
        for path, layer in self._layers.items():
            own = layer.dropout
            layer.dropout = _SeededDropout(_keeps(layer), own.Seed0, own.Seed1, path, self)

    def at_step(self, step: int) -> None:
        """So many optimizer steps are done: what follows belongs to the next one."""
        self._step = step
        for layer in self._layers.values():
            layer.dropout.calls = 0

    def out_of_reach(self) -> list[str]:
        """The layers that train but that Python did not call: asked after a step."""
        return [p for p, layer in self._layers.items() if layer.training and not layer.dropout.used]

    def seed_of(self, path: str) -> int:
        """64 bits for a layer at this step."""
        return self._derive_seed(path, self._step)


def dropouts(cells: Mapping[str, nn.Cell]) -> dict[str, nn.Dropout]:
    """The layers that drop anything, by path."""
    return {
        f"{key}.{path}" if path else key: part
        for key, cell in cells.items()
        for path, part in cell.cells_and_names()
        if type(part) is nn.Dropout and _keeps(part) < 1.0
    }


def _keeps(layer: nn.Dropout) -> float:
    return float(layer.keep_prob) if layer.p is None else 1.0 - float(layer.p)
