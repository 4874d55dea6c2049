"""Packs: plain safetensors files, written as a stream and read by range (docs/format.md §4)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from onward.frameworks.base import TensorLeaf
from onward.repository.documents import digest_of
from onward.repository.manifest import PackRef, Range
from onward.stores.base import Chunk

_ALIGNMENT = 64
_CHUNK_BYTES = 8 << 20
# What safetensors knows by its name; anything else is written as bytes.
_PLAIN_DTYPES = frozenset(
    ["BOOL", "U8", "I8", "U16", "I16", "F16", "BF16", "U32", "I32", "F32", "U64", "I64", "F64",
     "F8_E4M3", "F8_E5M2"]
)  # fmt: skip


def pack_key(name: str) -> str:
    return f"onward/packs/{name}.safetensors"


@dataclass(slots=True)
class PackPlan:
    """The layout of a pack before it is written: a header, and where each tensor will lie."""

    name: str
    header: bytes = b""
    arrays: list[npt.NDArray[np.uint8]] = field(default_factory=list)
    ranges: list[Range] = field(default_factory=list)

    @property
    def size_bytes(self) -> int:
        return len(self.header) + sum(array.size for array in self.arrays)

    def __iter__(self) -> Iterator[Chunk]:
        """The whole file, piece by piece, without a second copy in memory. May be repeated."""
        yield self.header
        for array in self.arrays:
            for start in range(0, array.size, _CHUNK_BYTES):
                yield array[start : start + _CHUNK_BYTES].data


def plan_pack(name: str, tensors: Sequence[tuple[str, TensorLeaf, str]]) -> PackPlan:
    """Lays out `(path, leaf, digest)` in this order. Leaves must carry data."""
    header: dict[str, object] = {"__metadata__": {"format": "onward pack 1"}}
    arrays: list[npt.NDArray[np.uint8]] = []
    offset = 0
    for path, leaf, _ in tensors:
        assert leaf.data is not None
        plain = leaf.dtype in _PLAIN_DTYPES
        unique = path
        while unique in header:
            unique += "~"
        header[unique] = {
            "dtype": leaf.dtype if plain else "U8",
            "shape": list(leaf.shape) if plain else [leaf.size_bytes],
            "data_offsets": [offset, offset + leaf.size_bytes],
        }
        arrays.append(leaf.data)
        offset += leaf.size_bytes
    encoded = pack_header(header)
    ranges: list[Range] = []
    position = len(encoded)
    for (_, leaf, digest), array in zip(tensors, arrays, strict=True):
        ranges.append(Range(name, position, leaf.size_bytes, digest))
        position += array.size
    return PackPlan(name, encoded, arrays, ranges)


def pack_header(header: dict[str, object]) -> bytes:
    """The first bytes of a safetensors file, padded so that data is aligned."""
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    padded = text + b" " * (-(len(text) + 8) % _ALIGNMENT)
    return len(padded).to_bytes(8, "little") + padded


class Hashing:
    """Passes chunks through and knows the digest and length of what passed."""

    def __init__(self, chunks: Iterable[Chunk]) -> None:
        self._chunks = chunks
        self._hasher = blake3()
        self.size_bytes = 0

    def __iter__(self) -> Iterator[Chunk]:
        self._hasher, self.size_bytes = blake3(), 0  # an upload that is tried again starts over
        for chunk in self._chunks:
            self._hasher.update(chunk)
            self.size_bytes += len(chunk)
            yield chunk

    def ref(self) -> PackRef:
        return PackRef(self.size_bytes, self._hasher.hexdigest())


def digest_of_array(array: npt.NDArray[np.uint8]) -> str:
    return digest_of(array.data)
