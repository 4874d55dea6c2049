"""Packs: plain safetensors files, written as a stream and read by range (docs/format.md §4)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from onward.frameworks.base import TensorLeaf
from onward.repository.documents import digest_of
from onward.repository.manifest import PackRef, Range
from onward.stores.base import Chunk

_ALIGNMENT = 64
# Large packs are laid out so that most tensors can be written from where they lie, past the page
# cache: the header fills whole blocks, and tensors that do so come first.
_BLOCK_BYTES = 4096
_LARGE_BYTES = 1 << 20
_LENGTH_BYTES = 8
_CHUNK_BYTES = 8 << 20
_MAX_HEADER_BYTES = 100 << 20  # what safetensors itself accepts
# What safetensors knows by its name; anything else is written as bytes.
_PLAIN_DTYPES = frozenset(
    ["BOOL", "U8", "I8", "U16", "I16", "F16", "BF16", "U32", "I32", "F32", "U64", "I64", "F64",
     "F8_E4M3", "F8_E5M2"]
)  # fmt: skip


def pack_key(name: str) -> str:
    return f"onward/packs/{name}.safetensors"


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of a pack. `pieces` gives its bytes in order, as often as it is called."""

    path: str
    dtype: str
    shape: tuple[int, ...]
    size_bytes: int
    pieces: Callable[[], Iterator[Chunk]]
    digest: str | None = None
    """Of the bytes, where it is known already; else it is found while they are written."""


def whole(path: str, leaf: TensorLeaf, digest: str | None = None) -> Entry:
    """All of a leaf that carries data."""
    data = leaf.data
    assert data is not None

    def pieces() -> Iterator[Chunk]:
        for start in range(0, data.size, _CHUNK_BYTES):
            yield data[start : start + _CHUNK_BYTES].data.toreadonly()

    return Entry(path, leaf.dtype, leaf.shape, leaf.size_bytes, pieces, digest)


def some_rows(path: str, leaf: TensorLeaf, index: npt.NDArray[np.int64]) -> Entry:
    """These rows of a leaf that carries data, gathered while they are written."""
    data = leaf.data
    assert data is not None
    rows = data.reshape(leaf.shape[0], -1)
    at_once = max(1, _CHUNK_BYTES // rows.shape[1])

    def pieces() -> Iterator[Chunk]:
        for start in range(0, index.size, at_once):
            yield rows[index[start : start + at_once]].data.cast("B").toreadonly()

    shape = (index.size, *leaf.shape[1:])
    return Entry(f"{path}#rows", leaf.dtype, shape, index.size * rows.shape[1], pieces)


def row_numbers(path: str, index: npt.NDArray[np.int64]) -> Entry:
    """Which rows `some_rows` stores."""
    array = np.ascontiguousarray(index, dtype="<i8")
    leaf = TensorLeaf("I64", array.shape, "numpy", array.view(np.uint8))
    return whole(f"{path}#index", leaf, digest_of(array.data.cast("B")))


@dataclass(slots=True)
class PackPlan:
    """The layout of a pack before it is written: a header, and the tensors behind it in order."""

    name: str
    header: bytes = b""
    entries: list[Entry] = field(default_factory=list)
    order: list[int] = field(default_factory=list)
    """The number under which each of `entries` was given."""

    @property
    def size_bytes(self) -> int:
        return len(self.header) + sum(entry.size_bytes for entry in self.entries)


def plan_pack(name: str, entries: Sequence[Entry]) -> PackPlan:
    """Lays out the entries, those of whole blocks first, else in this order.

    `Hashing.ranges` tells of them in the order in which they were given.
    """
    given = list(entries)
    order = sorted(range(len(given)), key=lambda i: given[i].size_bytes % _BLOCK_BYTES != 0)
    entries = [given[i] for i in order]
    header: dict[str, object] = {"__metadata__": {"format": "onward pack 1"}}
    offset = 0
    for entry in entries:
        plain = entry.dtype in _PLAIN_DTYPES
        unique = entry.path
        while unique in header:
            unique += "~"
        header[unique] = {
            "dtype": entry.dtype if plain else "U8",
            "shape": list(entry.shape) if plain else [entry.size_bytes],
            "data_offsets": [offset, offset + entry.size_bytes],
        }
        offset += entry.size_bytes
    alignment = _BLOCK_BYTES if offset >= _LARGE_BYTES else _ALIGNMENT
    return PackPlan(name, pack_header(header, alignment), entries, order)


def pack_header(header: dict[str, object], alignment: int = _ALIGNMENT) -> bytes:
    """The first bytes of a safetensors file, padded so that data is aligned."""
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    padded = text + b" " * (-(len(text) + _LENGTH_BYTES) % alignment)
    return len(padded).to_bytes(_LENGTH_BYTES, "little") + padded


class Hashing:
    """The bytes of a planned pack, each hashed once on its way; afterwards, their digests."""

    def __init__(self, plan: PackPlan) -> None:
        self._plan = plan
        self._digests: list[str] = []

    def __iter__(self) -> Iterator[Chunk]:
        """The whole file, piece by piece, without a second copy in memory."""
        self._digests = []  # an upload that is tried again starts over
        yield self._plan.header
        for entry in self._plan.entries:
            if entry.digest is not None:
                yield from entry.pieces()
                self._digests.append(entry.digest)
                continue
            hasher = blake3()
            for piece in entry.pieces():
                hasher.update(piece)
                yield piece
            self._digests.append(hasher.hexdigest())

    def ref(self) -> PackRef:
        """The pack as a manifest names it. Known once all has been iterated."""
        digest = digest_of_pack(self._plan.header, self._digests)
        return PackRef(self._plan.size_bytes, digest, of="tensors")

    def ranges(self) -> list[Range]:
        """Where each entry lies, with its digest. Known once all has been iterated."""
        position, found = len(self._plan.header), {}
        plan = self._plan
        for number, entry, digest in zip(plan.order, plan.entries, self._digests, strict=True):
            found[number] = Range(plan.name, position, entry.size_bytes, digest)
            position += entry.size_bytes
        return [found[number] for number in range(len(found))]


def digest_of_pack(header: bytes, digests: Iterable[str]) -> str:
    """Of a pack's header and the digests of its tensors in file order (docs/format.md §4)."""
    hasher = blake3(header)
    for digest in digests:
        hasher.update(bytes.fromhex(digest))
    return hasher.hexdigest()


class Hasher:
    """Says whether bytes, given in order, are the pack that a manifest names.

    What is not a pack at all gives the digest '', which nothing has.
    """

    def __init__(self, ref: PackRef) -> None:
        self._parts = _PartsHasher() if ref.of == "tensors" else None
        self._file = blake3()

    def update(self, piece: Chunk) -> None:
        if self._parts is None:
            self._file.update(piece)
        else:
            self._parts.update(memoryview(piece))

    def hexdigest(self) -> str:
        return self._file.hexdigest() if self._parts is None else self._parts.hexdigest()


_Spans: TypeAlias = list[tuple[int, int]]


class _PartsHasher:
    """The digest of a pack by its header and tensors, from bytes in order."""

    def __init__(self) -> None:
        self._header = bytearray()
        self._ends: list[int] | None = None  # of the tensors, in the data; None before the header
        self._position = 0
        self._hasher = blake3()
        self._digests: list[str] = []
        self._bad = False

    def update(self, piece: memoryview) -> None:
        if self._ends is None and not self._bad:
            piece = self._take_header(piece)
        while len(piece) and not self._bad:
            assert self._ends is not None
            if len(self._digests) == len(self._ends):
                self._bad = True  # more bytes than the header tells of
                return
            part = piece[: self._ends[len(self._digests)] - self._position]
            self._hasher.update(part)
            self._position += len(part)
            piece = piece[len(part) :]
            self._close_tensors()

    def hexdigest(self) -> str:
        if self._bad or self._ends is None or len(self._digests) < len(self._ends):
            return ""
        return digest_of_pack(bytes(self._header), self._digests)

    def _take_header(self, piece: memoryview) -> memoryview:
        """Keeps what belongs to the header; returns the rest."""
        for part in (0, 1):  # its length, then itself
            size = self._header_bytes() if part else _LENGTH_BYTES
            wanted = max(0, size - len(self._header))
            self._header += piece[:wanted]
            piece = piece[wanted:]
            if len(self._header) < size:
                return piece
        ends = _ends_of_tensors(bytes(self._header[_LENGTH_BYTES:]))
        if ends is None:
            self._bad = True
        else:
            self._ends = ends
            self._close_tensors()
        return piece

    def _header_bytes(self) -> int:
        size = int.from_bytes(self._header[:_LENGTH_BYTES], "little")
        if size > _MAX_HEADER_BYTES:
            self._bad = True
            return 0
        return _LENGTH_BYTES + size

    def _close_tensors(self) -> None:
        assert self._ends is not None
        while len(self._digests) < len(self._ends):
            if self._ends[len(self._digests)] != self._position:
                return
            self._digests.append(self._hasher.hexdigest())
            self._hasher = blake3()


def _ends_of_tensors(header: bytes) -> list[int] | None:
    """Where each tensor ends in the data, in file order; None if this is no header of a pack."""
    try:
        document = json.loads(header)
        spans: _Spans = sorted(
            (int(entry["data_offsets"][0]), int(entry["data_offsets"][1]))
            for name, entry in document.items()
            if name != "__metadata__"
        )
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return None
    position = 0
    for start, end in spans:
        if start != position or end < start:
            return None
        position = end
    return [end for _, end in spans]
