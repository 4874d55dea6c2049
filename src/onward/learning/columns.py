"""Samples in columns: nested values of many slots, as arrays with one row for each slot.

A sample is what a dataset gives: numbers, text, bytes, arrays and tensors of any framework, in
tuples, lists and dicts. Where all samples have the same structure and shapes, each of its leaves is
a column, so that a checkpoint stores only the rows of slots that changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from onward.errors import Unstorable

Array = npt.NDArray[Any]
ToTensor = Callable[[Array], Any]
"""Makes a tensor of the framework in use from an array."""

_NUMBERS: dict[type, str] = {bool: "bool", int: "int", float: "float"}


def taken_apart(sample: Any, path: str = "the sample") -> tuple[Any, list[Array]]:
    """The structure of a sample, plain, and its leaves as arrays.

    Raises `Unstorable`, with the path, for what is none of the values above.
    """
    leaves: list[Array] = []
    return _structure(sample, path, leaves), leaves


def put_together(structure: Any, leaves: Sequence[Any], tensor: ToTensor) -> Any:
    """The sample again; a leaf that was a tensor is one."""
    return _value(structure, iter(leaves), tensor)


def _structure(value: Any, path: str, leaves: list[Array]) -> Any:
    if type(value) in _NUMBERS:
        kind = _NUMBERS[type(value)]
        leaves.append(np.asarray(value, {"bool": np.bool_, "int": np.int64}.get(kind, np.float64)))
        return kind
    match value:
        case None:
            return "none"
        case str():
            leaves.append(np.frombuffer(value.encode("utf-8", "surrogatepass"), np.uint8))
            return "text"
        case bytes():
            leaves.append(np.frombuffer(value, np.uint8))
            return "bytes"
        case np.ndarray() | np.generic():
            leaves.append(_plain(np.asarray(value), path))
            return "array" if isinstance(value, np.ndarray) else "scalar"
        case Mapping():
            parts = [_structure(child, f"{path}[{key!r}]", leaves) for key, child in value.items()]
            return {"dict": list(value), "of": parts}
        case tuple() | list():
            parts = [_structure(child, f"{path}[{i}]", leaves) for i, child in enumerate(value)]
            return {"list" if isinstance(value, list) else "tuple": parts}
    array = _array_of(value)
    if array is None:
        raise Unstorable(
            f"{path} is a {type(value).__module__}.{type(value).__qualname__}",
            why="a memory keeps numbers, text, bytes, arrays, tensors, and containers of them",
            do="let raw= give such values of an item, and make the rest of them in collate_fn",
        )
    leaves.append(_plain(array, path))
    return "tensor"


def _array_of(tensor: Any) -> Array | None:
    """The values of a tensor of any framework."""
    for way in (("detach", "cpu", "numpy"), ("asnumpy",)):
        found = tensor
        for name in way:
            method = getattr(found, name, None)
            if not callable(method):
                break
            found = method()
        else:
            return np.asarray(found)
    return None


def _plain(array: Array, path: str) -> Array:
    if array.dtype.kind not in "biufc":
        raise Unstorable(
            f"{path} is an array of {array.dtype}",
            why="a replay memory keeps numbers",
            do="let raw= give numbers, text or bytes",
        )
    return np.array(array)  # what is remembered must not change with the dataset's own memory


def _value(structure: Any, leaves: Any, tensor: ToTensor) -> Any:
    match structure:
        case "none":
            return None
        case "text":
            return next(leaves).tobytes().decode("utf-8", "surrogatepass")
        case "bytes":
            return next(leaves).tobytes()
        case "bool" | "int" | "float":
            return next(leaves)[()].item()
        case "array":
            return np.array(next(leaves))
        case "scalar":
            return next(leaves)[()]
        case "tensor":
            return tensor(np.array(next(leaves)))
        case {"dict": keys, "of": parts}:
            return {
                key: _value(part, leaves, tensor) for key, part in zip(keys, parts, strict=True)
            }
        case {"tuple": parts}:
            return tuple(_value(part, leaves, tensor) for part in parts)
        case {"list": parts}:
            return [_value(part, leaves, tensor) for part in parts]
    raise AssertionError(structure)


def batched(structure: Any, columns: Sequence[Array], tensor: ToTensor) -> Any | None:
    """Rows of columns, collated as frameworks do by default: numbers and arrays become tensors.

    None where only the framework's own collating can tell what comes out.
    """
    return _batched(structure, iter(columns), tensor)


def _batched(structure: Any, columns: Any, tensor: ToTensor) -> Any | None:
    match structure:
        case "bool" | "int" | "float" | "array" | "scalar" | "tensor":
            return tensor(next(columns))
        case {"dict": keys, "of": parts}:
            found = [_batched(part, columns, tensor) for part in parts]
            whole = dict(zip(keys, found, strict=True))
            return None if any(value is None for value in found) else whole
        case {"tuple": parts} | {"list": parts}:
            found = [_batched(part, columns, tensor) for part in parts]
            return None if any(value is None for value in found) else found
    return None
