"""`.ckpt` files of MindSpore, read with suspicion and without MindSpore.

Such a file is one protobuf message (`Checkpoint` of MindSpore's checkpoint.proto): for each tensor
a name, dims, the name of its dtype and its bytes, which follow each other in several entries where
they are more than 512 MiB; 17 bytes with a CRC-32 may end it. MindSpore's own reader holds the file
several times over, and takes a tensor that claims more elements than it has bytes.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from onward.errors import StateError
from onward.frameworks.base import ITEM_BYTES, TensorLeaf

DTYPES: dict[str, str] = {
    "Bool": "BOOL", "UInt8": "U8", "Int8": "I8", "UInt16": "U16", "Int16": "I16",
    "Float16": "F16", "BFloat16": "BF16", "UInt32": "U32", "Int32": "I32", "Float32": "F32",
    "UInt64": "U64", "Int64": "I64", "Float64": "F64",
}  # fmt: skip
"""The dtypes that such a file can hold, by MindSpore's names."""

_TEXT = "str"
_CRC_MARK, _CRC_BYTES = b"crc_num", 17
_MOST_FIELDS = 4_000_000
_MOST_DIMS = 64
_LONGEST_NAME = 4096
_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5
_CHUNK_BYTES = 8 << 20

Bytes: TypeAlias = npt.NDArray[np.uint8]
Span: TypeAlias = tuple[int, int]


@dataclass(slots=True)
class Ckpt:
    """What a file holds, in its order. Leaves share memory with the file, which must stay."""

    tensors: dict[str, TensorLeaf]
    left_out: list[str] = field(default_factory=list)
    """Names of texts and of hash tables (`MapParameter`)."""


def read_ckpt(path: Path) -> Ckpt:
    """Reads a file that nobody vouches for. Raises `StateError` saying why for any other file."""
    size_bytes = path.stat().st_size
    if size_bytes == 0:
        raise _unreadable(path, "it is empty")
    data: Bytes = np.memmap(path, dtype=np.uint8, mode="r")
    return _Reader(path, data).read()


@dataclass(slots=True)
class _Entry:
    dtype: str
    dims: tuple[int, ...]
    pieces: list[Span]


class _Reader:
    def __init__(self, path: Path, data: Bytes) -> None:
        self._path, self._data = path, data
        self._seen = 0

    def read(self) -> Ckpt:
        stop = self._without_crc()
        found = Ckpt({})
        entries: dict[str, _Entry] = {}
        before = ""
        for number, at, end in self._fields(0, stop):
            if number != 1:
                raise self._no_ckpt()
            name, entry = self._value(at, end)
            if entry is None or entry.dtype == _TEXT:
                if name not in found.left_out[-1:]:
                    found.left_out.append(name)
            elif name == before:
                self._append(name, entries[name], entry)
            elif name in entries:
                raise self._refuse(f"it holds {name[:80]} twice")
            else:
                entries[name] = entry
            before = name
        for name, entry in entries.items():
            found.tensors[name] = self._leaf(name, entry)
        if not found.tensors:
            raise self._refuse("it has no tensors")
        return found

    def _value(self, at: int, end: int) -> tuple[str, _Entry | None]:
        name, entry = "", None
        for number, start, stop in self._fields(at, end):
            if number == 1:
                name = self._text(start, stop)
            elif number == 2:
                entry = self._tensor(start, stop)
        if not name:
            raise self._refuse("a tensor in it has no name")
        return name, entry

    def _tensor(self, at: int, end: int) -> _Entry:
        dtype, dims, piece = "", list[int](), (at, at)
        for number, start, stop in self._fields(at, end):
            if number == 1:
                position = start
                while position < stop:
                    dim, position = self._varint(position, stop)
                    dims.append(dim)
                    if len(dims) > _MOST_DIMS:
                        raise self._refuse("a tensor in it has too many dimensions")
            elif number == 2:
                dtype = self._text(start, stop)
            elif number == 3:
                piece = (start, stop)
        return _Entry(dtype, tuple(dims), [piece])

    def _append(self, name: str, first: _Entry, more: _Entry) -> None:
        if (first.dtype, first.dims) != (more.dtype, more.dims):
            raise self._refuse(f"the parts of {name[:80]} do not belong together")
        first.pieces += more.pieces

    def _leaf(self, name: str, entry: _Entry) -> TensorLeaf:
        dtype = DTYPES.get(entry.dtype)
        if dtype is None:
            raise self._refuse(f"{name[:80]} has the dtype {entry.dtype[:40]!r}")
        held = sum(stop - start for start, stop in entry.pieces)
        # Older versions write a scalar as a dimension of none.
        dims = () if entry.dims == (0,) and held == ITEM_BYTES[dtype] else entry.dims
        if math.prod(dims) * ITEM_BYTES[dtype] != held or any(dim >= 1 << 53 for dim in dims):
            shape = "×".join(map(str, dims))[:80]
            raise self._refuse(f"{name[:80]} claims {shape} of {entry.dtype} in {held:,} bytes")
        parts = [self._data[start:stop] for start, stop in entry.pieces]
        data = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return TensorLeaf(dtype, dims, "mindspore", data)

    # The wire format of protobuf.

    def _fields(self, at: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Number, start and stop of each field in a message."""
        while at < end:
            key, start = self._varint(at, end)
            number, wire = key >> 3, key & 7
            if wire == _LENGTH:
                length, start = self._varint(start, end)
                at = start + length
            elif wire == _VARINT:
                _, at = self._varint(start, end)
            elif wire in (_EIGHT_BYTES, _FOUR_BYTES):
                at = start + (8 if wire == _EIGHT_BYTES else 4)
            else:
                raise self._no_ckpt()
            self._seen += 1
            if at > end or number == 0 or self._seen > _MOST_FIELDS:
                raise self._no_ckpt()
            yield number, start, at

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 70, 7):
            if at >= end:
                raise self._no_ckpt()
            byte = int(self._data[at])
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
        raise self._no_ckpt()

    def _text(self, start: int, stop: int) -> str:
        if stop - start > _LONGEST_NAME:
            raise self._refuse("a name in it is too long")
        try:
            return self._data[start:stop].tobytes().decode()
        except UnicodeDecodeError as error:
            raise self._no_ckpt() from error

    def _without_crc(self) -> int:
        """Where the message ends. Raises `StateError` if the checksum is not that of the file."""
        end = len(self._data)
        tail = self._data[-_CRC_BYTES:].tobytes()
        if len(tail) < _CRC_BYTES or not tail.startswith(_CRC_MARK):
            return end
        end -= _CRC_BYTES
        crc = 0
        for start in range(0, end, _CHUNK_BYTES):
            crc = zlib.crc32(self._data[start : min(start + _CHUNK_BYTES, end)].data, crc)
        if crc != int.from_bytes(tail[len(_CRC_MARK) :], "big"):
            raise self._refuse("its checksum is not that of its bytes: it is damaged")
        return end

    def _no_ckpt(self) -> StateError:
        return self._refuse(
            "it is no file of save_checkpoint, not a whole one, or an encrypted one"
        )

    def _refuse(self, why: str) -> StateError:
        return _unreadable(self._path, why)


def _unreadable(path: Path, why: str) -> StateError:
    return StateError(
        f"{path} cannot be imported",
        why=why,
        do="save it anew where it comes from: mindspore.save_checkpoint(net, path)",
    )
