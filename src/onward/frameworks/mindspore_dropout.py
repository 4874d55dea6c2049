"""Dropout layers whose random state can be taken up again.

`nn.Dropout` draws from a generator inside its kernel, which nobody can read or set, and which
begins anew with every process. Its numbers follow from the layer's seeds and from all calls since
it was made. So the layer gets new seeds every `_EVERY` optimizer steps, which follow from the run's
seed and the step; and the calls since then are counted, to be made again, on zeros, after a
restore. (New seeds at every step would cost 1 to 3 ms each: MindSpore then builds a new kernel.)

Only what Python calls can be counted: inside of a compiled graph a layer is as it always was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import mindspore as ms
from mindspore import nn, ops

from onward.errors import Mismatch

_EVERY = 64
_WORD = 2**31 - 1

DeriveSeed = Callable[..., int]


class _Counting(ops.Dropout):  # type: ignore[misc]
    """The primitive of a layer, which remembers how often it was called with which shapes."""

    def __init__(self, keep_prob: float, seed0: int, seed1: int) -> None:
        super().__init__(keep_prob, seed0, seed1)
        self.calls: list[list[Any]] = []
        self.used = False

    def __call__(self, x: Any) -> Any:
        self.used = True
        shape, dtype = list(x.shape), str(x.dtype)
        if self.calls and self.calls[-1][:2] == [shape, dtype]:
            self.calls[-1][2] += 1
        else:
            self.calls.append([shape, dtype, 1])
        return super().__call__(x)


# Compilers know a primitive by the name of its class.
_Counting.__name__ = "Dropout"


class CountedDropouts:
    """The dropout layers of the networks, with seeds that follow from the step.

    `state_dict` names, for each layer, the calls since it last got seeds.
    """

    def __init__(self, layers: Mapping[str, nn.Dropout], derive_seed: Callable[[str, int], int]):
        self._layers = dict(layers)
        self._derive_seed = derive_seed
        self._block = -1

    def at_step(self, step: int) -> None:
        """So many optimizer steps are done: new seeds, if it is time."""
        block = step // _EVERY
        if block != self._block:
            self._reseed(block)

    def uncounted(self) -> list[str]:
        """The layers that train but were not called from Python in this process, after a step.

        They run in a compiled graph, where their state is out of reach.
        """
        return [
            path
            for path, layer in self._layers.items()
            if layer.training and not layer.dropout.used
        ]

    def state_dict(self) -> dict[str, Any]:
        return {
            "block": self._block,
            "calls": {
                path: [list(call) for call in layer.dropout.calls]
                for path, layer in self._layers.items()
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Brings each layer to where it was. Raises `Mismatch` for other layers."""
        if state["calls"].keys() != self._layers.keys():
            both = state["calls"].keys() ^ self._layers.keys()
            raise Mismatch(
                "the network's dropout layers are not those of the checkpoint",
                differences=[f"{path}: only in one of them" for path in sorted(both)],
                do="resume with the same network",
            )
        self._reseed(state["block"])
        for path, calls in state["calls"].items():
            layer = self._layers[path]
            for shape, dtype, times in calls:
                zeros = ops.zeros(tuple(shape), getattr(ms, dtype.lower()))
                for _ in range(times):
                    layer.dropout(zeros)
            layer.dropout.used = False

    def _reseed(self, block: int) -> None:
        self._block = block
        for path, layer in self._layers.items():
            seed = self._derive_seed(path, block)
            # Zero would mean a random seed.
            layer.dropout = _Counting(_keeps(layer), 1 + seed % _WORD, 1 + (seed >> 32) % _WORD)


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
