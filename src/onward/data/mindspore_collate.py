"""Items as NumPy rows, rows as batches of MindSpore's tensors.

Batches are made in NumPy, in whichever process that happens, and become tensors where they are
handed out: MindSpore's tensors do not travel well between processes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import mindspore as ms
import numpy as np

from onward.errors import DataError


def collate(items: list[Any]) -> Any:
    """Items stacked column by column: arrays of shape [rows, …] in the structure of one item.

    Python's whole numbers become int32 and its floats float32, as MindSpore's loss functions expect
    them; arrays and NumPy's own numbers keep their dtype. Text stays a list.

    Raises `DataError` for rows that do not fit one upon the other.
    """
    first = items[0]
    match first:
        case Mapping():
            return {key: collate([item[key] for item in items]) for key in first}
        case tuple() if hasattr(first, "_fields"):
            return type(first)(*(collate(list(column)) for column in zip(*items, strict=True)))
        case tuple() | list():
            return tuple(collate(list(column)) for column in zip(*items, strict=True))
        case str() | bytes():
            return list(items)
        case bool():
            return np.array(items, np.bool_)
        case int():
            return np.array(items, np.int32)
        case float():
            return np.array(items, np.float32)
    arrays = [as_numpy(item) for item in items]
    try:
        return np.stack(arrays)
    except ValueError as error:
        shapes = sorted({str(array.shape) for array in arrays})
        raise DataError(
            "the items of a batch have different shapes",
            why=", ".join(shapes[:4]),
            do="give them one shape, or a collate_fn that pads them",
        ) from error


def as_numpy(value: Any) -> Any:
    """Tensors, within containers too, as arrays; everything else as it is."""
    match value:
        case ms.Tensor():
            return value.asnumpy()
        case Mapping():
            return {key: as_numpy(child) for key, child in value.items()}
        case tuple() if hasattr(value, "_fields"):
            return type(value)(*(as_numpy(child) for child in value))
        case tuple() | list():
            return type(value)(as_numpy(child) for child in value)
    return value


def as_tensors(value: Any) -> Any:
    """Arrays, within containers too, as MindSpore's tensors; everything else as it is."""
    match value:
        case np.ndarray() if value.dtype.kind in "biufcV":
            return ms.Tensor(value)
        case np.generic():
            return ms.Tensor(value)
        case Mapping():
            return {key: as_tensors(child) for key, child in value.items()}
        case tuple() if hasattr(value, "_fields"):
            return type(value)(*(as_tensors(child) for child in value))
        case tuple():
            return tuple(as_tensors(child) for child in value)
        case list() if value and not isinstance(value[0], str | bytes):
            return [as_tensors(child) for child in value]
    return value


def joined(one: Any, other: Any) -> Any:
    """Two batches in NumPy as one, row after row."""
    match one:
        case np.ndarray():
            return np.concatenate([one, np.asarray(other, one.dtype)])
        case Mapping():
            return {key: joined(value, other[key]) for key, value in one.items()}
        case tuple() if hasattr(one, "_fields"):
            return type(one)(*(joined(a, b) for a, b in zip(one, other, strict=True)))
        case tuple():
            return tuple(joined(a, b) for a, b in zip(one, other, strict=True))
    return [*one, *other]


def columns_of(batch: Any) -> tuple[Any, ...]:
    """A batch as `Model.train` takes it: its columns in order."""
    if isinstance(batch, Mapping):
        return tuple(batch.values())
    return tuple(batch) if isinstance(batch, tuple | list) else (batch,)


Collate = Callable[[list[Any]], Any]
