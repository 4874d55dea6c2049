"""Cells <-> state trees: parameters and buffers by their path in the cell.

The path is what `parameters_and_names` gives. It is not `Parameter.name`, which changes when the
cell becomes part of another one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mindspore import nn

from onward.frameworks.base import TensorLeaf
from onward.frameworks.mindspore_tensors import describe, leaf_of, live_leaf, write
from onward.frameworks.values import differences_by_name, shown


def tensors(cell: nn.Cell) -> dict[str, Any]:
    """The live parameters, and the buffers that are saved, by path."""
    found = dict(cell.parameters_and_names())
    for path, buffer in cell.named_buffers():
        above, _, name = path.rpartition(".")
        owner = cell.get_sub_cell(above) if above else cell
        if name not in owner._non_persistent_buffers_set:
            found[path] = buffer
    return found


def capture(cell: nn.Cell, key: str) -> dict[str, TensorLeaf]:
    """The tree of a cell: a leaf for each parameter and buffer."""
    return {name: leaf_of(value, f"{key}.{name}") for name, value in tensors(cell).items()}


def differences(cell: nn.Cell, tree: Any, key: str) -> list[str]:
    """Every reason why `tree` does not fit `cell`."""
    return differences_by_name(tensors(cell), tree, key, kind="network", difference=_difference)


def destinations(cell: nn.Cell) -> dict[str, TensorLeaf]:
    """The live memory of those tensors that can be written where they are."""
    leaves = {name: live_leaf(value) for name, value in tensors(cell).items()}
    return {name: leaf for name, leaf in leaves.items() if leaf is not None}


def restore(cell: nn.Cell, tree: Mapping[str, Any]) -> None:
    """Copies `tree` into the tensors of `cell`, which stay the same objects."""
    for name, live in tensors(cell).items():
        write(live, tree[name])


@contextmanager
def evaluating(cells: list[nn.Cell]) -> Iterator[None]:
    """The cells in evaluation mode, and each part as it was afterwards."""
    parts = [part for cell in cells for _, part in cell.cells_and_names()]
    before = [(part, part.training, part._phase) for part in parts]
    for cell in cells:
        cell.set_train(False)
    try:
        yield
    finally:
        for part, training, phase in before:
            part.add_flags(training=training)
            part._phase = phase


def _difference(live: Any, stored: Any, path: str) -> str:
    if not isinstance(stored, TensorLeaf):
        return f"{path}: a tensor here, something else there"
    there = shown(stored)
    here = f"{describe(live, path)} {[int(extent) for extent in live.shape]}"
    return "" if there == here else f"{path}: the checkpoint has {there}, the live network {here}"
