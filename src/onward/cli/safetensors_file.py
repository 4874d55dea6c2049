"""One ordinary safetensors file: written as a stream, and read with suspicion."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from onward.errors import StateError
from onward.frameworks.base import ITEM_BYTES, TensorLeaf
from onward.repository import Tensor
from onward.repository.packs import pack_header
from onward.repository.reading import read_tensors
from onward.stores import Chunk, Store

_BATCH_BYTES = 32 << 20
_MOST_HEADER_BYTES = 100 << 20  # the limit of the format's own reader
_UNKNOWN_THERE = frozenset(["C128"])


class SafetensorsStream:
    """The bytes of a file with these tensors, read from an output as they are asked for.

    May be gone through again. Never holds more than one large tensor.
    """

    def __init__(
        self, store: Store, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
    ) -> None:
        self._store = store
        self._tensors = list(tensors.values())
        header: dict[str, object] = {"__metadata__": dict(metadata)}
        offset = 0
        for name, tensor in tensors.items():
            if tensor.dtype in _UNKNOWN_THERE:
                raise StateError(
                    f"tensor {name} is {tensor.dtype}",
                    why="safetensors files have no such dtype",
                    do="export with --format pth",
                )
            end = offset + tensor.size_bytes
            header[name] = {
                "dtype": tensor.dtype,
                "shape": list(tensor.shape),
                "data_offsets": [offset, end],
            }
            offset = end
        self._header = pack_header(header)
        self.size_bytes = len(self._header) + offset

    def __iter__(self) -> Iterator[Chunk]:
        yield self._header
        batch: dict[int, Tensor] = {}
        held = 0
        for index, tensor in enumerate(self._tensors):
            if batch and held + tensor.size_bytes > _BATCH_BYTES:
                yield from self._read(batch)
                batch, held = {}, 0
            batch[index] = tensor
            held += tensor.size_bytes
        yield from self._read(batch)

    def _read(self, batch: dict[int, Tensor]) -> Iterator[Chunk]:
        arrays = read_tensors(self._store, batch)
        for index in batch:
            data = arrays.pop(index)
            if data.size:
                yield data.data


def read_safetensors(path: Path) -> tuple[dict[str, TensorLeaf], dict[str, str]]:
    """The tensors of a file as leaves that share its memory, and its metadata.

    Raises `StateError` for anything that is not exactly a safetensors file.
    """
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little") if size_bytes >= 8 else size_bytes
        if size_bytes < 10 or length > min(size_bytes - 8, _MOST_HEADER_BYTES):
            raise _unreadable(path, "its first bytes are not those of a safetensors file")
        header = _header(path, file.read(length))
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict):
        raise _unreadable(path, "its metadata is no table")
    data = np.memmap(path, dtype=np.uint8, mode="r", offset=0)[8 + length :]
    leaves: dict[str, TensorLeaf] = {}
    end = 0
    ordered = sorted(header.items(), key=lambda item: _offsets(path, *item))
    for name, entry in ordered:
        start, stop = _offsets(path, name, entry)
        dtype, shape = entry.get("dtype"), entry.get("shape")
        if dtype not in ITEM_BYTES or not _is_shape(shape):
            raise _unreadable(path, f"tensor {name[:80]} has no dtype or shape that is known")
        if stop - start != math.prod(shape) * ITEM_BYTES[dtype] or start != end or stop > data.size:
            raise _unreadable(path, f"tensor {name[:80]} does not fit the file")
        leaves[name] = TensorLeaf(dtype, tuple(shape), "torch", data[start:stop])
        end = stop
    if end != data.size:
        raise _unreadable(path, f"it has {data.size - end:,} bytes that belong to no tensor")
    in_order = {name: leaves[name] for name in header}
    return in_order, {str(key): str(value) for key, value in metadata.items()}


def _header(path: Path, text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, "its header is not readable") from error
    if not isinstance(header, dict):
        raise _unreadable(path, "its header is no table")
    return header


def _offsets(path: Path, name: str, entry: Any) -> tuple[int, int]:
    found = entry.get("data_offsets") if isinstance(entry, dict) else None
    if not isinstance(found, list) or len(found) != 2 or not _is_shape(found):
        raise _unreadable(path, f"tensor {name[:80]} has no place in the file")
    return found[0], found[1]


def _is_shape(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= 64
        and all(type(extent) is int and 0 <= extent < 1 << 53 for extent in value)
    )


def _unreadable(path: Path, why: str) -> StateError:
    return StateError(f"{path} cannot be imported", why=why, do="give a whole safetensors file")
