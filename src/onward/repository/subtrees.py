"""A part of a checkpoint's state, read without a framework: NumPy arrays stand for tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from onward.errors import Damaged
from onward.frameworks.base import TensorLeaf
from onward.repository.manifest import Manifest
from onward.repository.reading import description, read_tensors
from onward.stores.base import Store

_NUMPY = {
    "BOOL": "|b1", "U8": "|u1", "I8": "|i1", "U16": "<u2", "I16": "<i2", "F16": "<f2",
    "U32": "<u4", "I32": "<i4", "F32": "<f4", "U64": "<u8", "I64": "<i8", "F64": "<f8",
}  # fmt: skip


def described_subtree(manifest: Manifest, *path: str) -> Any:
    """What is under these keys, of tensors only what they are; None where nothing is."""
    found: Any = description(manifest)
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def read_subtree(store: Store, manifest: Manifest, *path: str) -> Any:
    """What is under these keys, its bytes verified, and nothing else; None where nothing is.

    Raises `Damaged` if the bytes are not what was written, or an array has a dtype that NumPy does
    not know.
    """
    tree = described_subtree(manifest, *path)
    indices = sorted({index for _, index in leaves(tree)})
    data = read_tensors(store, {index: manifest.tensor(index) for index in indices})
    return filled(tree, data.__getitem__)


def leaves(tree: Any) -> Iterator[tuple[TensorLeaf, int]]:
    """Every tensor of a described tree, with its number in the manifest."""
    match tree:
        case TensorLeaf(identity=int(index)):
            yield tree, index
        case Mapping():
            for child in tree.values():
                yield from leaves(child)
        case list() | tuple():
            for child in tree:
                yield from leaves(child)


def filled(tree: Any, data: Callable[[int], npt.NDArray[np.uint8]]) -> Any:
    """A described tree with the arrays that `data` gives by number."""
    match tree:
        case TensorLeaf(identity=int(index)):
            if tree.dtype not in _NUMPY:
                raise Damaged(f"an array of {tree.dtype[:20]} stands where numbers are expected")
            return data(index).view(_NUMPY[tree.dtype]).reshape(tree.shape)
        case Mapping():
            return {key: filled(child, data) for key, child in tree.items()}
        case list():
            return [filled(child, data) for child in tree]
        case tuple():
            return tuple(filled(child, data) for child in tree)
    return tree
