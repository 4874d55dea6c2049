"""Tables whose rows have names: a stored one becomes as long as the live one, row by row.

A *table* is a tensor whose first dimension counts classes, users or items: the weight of a head,
its bias, an embedding. Nothing here knows a framework.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from onward.frameworks.base import ITEM_BYTES, TensorLeaf, fetched

_ALIGNMENT = 64


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """How a table was stored, how many rows it has now, and where each stored row is now.

    `targets`: int64 of shape [stored rows], all different, each in 0 … `rows` - 1.
    """

    shape: tuple[int, ...]
    rows: int
    targets: npt.NDArray[np.int64]


Tables: TypeAlias = Mapping[str, Table]
"""By the path of the tensor: object, dot, name, such as `model.head.weight`."""


def moves(targets: npt.NDArray[np.int64], rows: int) -> bool:
    """Whether any row is new or elsewhere than it was."""
    return len(targets) != rows or not np.array_equal(targets, np.arange(rows))


def paths_at(path: str, tree: Mapping[str, Any], *, rows: int) -> list[str]:
    """The tensors at `path` (an object, a module or a tensor) that have this many rows."""
    return [
        each
        for each, leaf in tensors(tree)
        if (each == path or each.startswith(f"{path}.")) and leaf.shape[:1] == (rows,)
    ]


def tied(paths: Iterable[str], tree: Mapping[str, Any]) -> dict[str, str]:
    """Every other tensor of the live tree that shares its memory with one of `paths`."""
    owners = {
        leaf.identity: path for path, leaf in _in(tree, paths).items() if leaf.identity is not None
    }
    return {
        path: owners[leaf.identity]
        for path, leaf in tensors(tree)
        if leaf.identity in owners and owners[leaf.identity] != path
    }


def tensors(tree: Mapping[str, Any]) -> Iterable[tuple[str, TensorLeaf]]:
    """The path and leaf of each tensor that stands directly in an object of the tree."""
    for key, entries in tree.items():
        if isinstance(entries, Mapping):
            for name, leaf in entries.items():
                if isinstance(leaf, TensorLeaf):
                    yield f"{key}.{name}", leaf


def table_for(
    stored: TensorLeaf, live: TensorLeaf, targets: npt.NDArray[np.int64], *, rows: int
) -> Table | None:
    """The table, if both tensors are of one kind but for their rows, and have the named ones."""
    fits = (
        (stored.kind, stored.dtype) == (live.kind, live.dtype)
        and stored.shape[1:] == live.shape[1:]
        and stored.shape[:1] == (len(targets),)
        and live.shape[:1] == (rows,)
    )
    return Table(stored.shape, rows, targets) if fits else None


def grown_module(
    key: str, tree: Mapping[str, Any], live: Mapping[str, Any], tables: Tables
) -> dict[str, Any]:
    """A module's tree with its tables as long as the live ones; new rows are as they are live."""
    return {
        name: grown_leaf(leaf, tables[path], live=live[name])
        if (path := f"{key}.{name}") in tables
        else leaf
        for name, leaf in tree.items()
    }


def grown_leaf(
    stored: TensorLeaf,
    table: Table,
    *,
    live: TensorLeaf | None = None,
    first: npt.NDArray[np.uint8] | None = None,
) -> TensorLeaf:
    """The stored tensor with its rows where they are now.

    New rows are those of `live`; without it, every element of them is the bytes `first`, or zero.
    A leaf without data gives one.
    """
    shape = (table.rows, *stored.shape[1:])
    if stored.data is None:
        return TensorLeaf(stored.dtype, shape, stored.kind)
    width = prod(shape[1:]) * ITEM_BYTES[stored.dtype]
    data = _memory(table.rows * width)
    rows = data.reshape(table.rows, width)
    if live is not None:
        bytes_ = fetched(live).data
        assert bytes_ is not None
        data[:] = bytes_
    elif first is None:
        data[:] = 0
    elif width:
        rows.reshape(-1, len(first))[:] = first
    rows[table.targets] = stored.data.reshape(len(table.targets), width)
    return TensorLeaf(stored.dtype, shape, stored.kind, data, private=True)


def kept_apart(into: Any, described: Any, grown: Any) -> Any:
    """Of live memory (`Framework.destinations`), that of tensors which growth leaves alone.

    What grows is read elsewhere: its rows are needed one by one, and so are the live ones.
    """
    if not isinstance(into, Mapping):
        return into
    kept = {}
    for key, child in into.items():
        before, after = _child(described, key), _child(grown, key)
        if before is after or not isinstance(before, TensorLeaf):
            kept[key] = child if before is after else kept_apart(child, before, after)
    return kept


def _child(tree: Any, key: Any) -> Any:
    return tree.get(key) if isinstance(tree, Mapping) else None


def _in(tree: Mapping[str, Any], paths: Iterable[str]) -> dict[str, TensorLeaf]:
    wanted = set(paths)
    return {path: leaf for path, leaf in tensors(tree) if path in wanted}


def _memory(size: int) -> npt.NDArray[np.uint8]:
    """New memory that begins where `TensorLeaf.private` promises."""
    whole = np.empty(size + _ALIGNMENT, np.uint8)
    start = -int(whole.__array_interface__["data"][0]) % _ALIGNMENT
    return whole[start : start + size]
