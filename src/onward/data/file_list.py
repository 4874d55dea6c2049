"""The files that data consisted of, in few bytes: kept with a checkpoint, so that later data can be
compared with it file by file."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from onward.data.delta import Delta, compare
from onward.data.items import Digests, Items
from onward.data.segments import CURRENT
from onward.data.snapshot import DataSnapshot

DATA_FILES = "data_files"
"""Where it is in what a checkpoint that ends an increment tells about itself."""

_HALF = 8
_LONGEST_TEXT = 96 << 10
_LONGEST = 64 << 20


@dataclass(frozen=True, eq=False)
class FileList:
    """Files by name, each with its size in bytes and 8 bytes of its content's digest."""

    names: Sequence[str]
    sizes: Sequence[int]
    contents: Digests
    """uint8 [n, 8]."""

    @classmethod
    def of(cls, snapshot: DataSnapshot) -> FileList:
        """Of a snapshot of files (`snapshot_folder`)."""
        assert snapshot.identified.digests is not None
        contents = snapshot.identified.digests[:, _HALF:]
        return cls(list(snapshot.names), list(snapshot.sizes), contents)

    @classmethod
    def read(cls, document: Any) -> FileList | None:
        """What `document` wrote; None for anything else."""
        match document:
            case {"names": [*names], "sizes": [*sizes], "contents": str(text)}:
                pass
            case _:
                return None
        try:
            contents = np.frombuffer(bytes.fromhex(text), np.uint8).reshape(-1, _HALF)
        except ValueError:
            return None
        if not len(names) == len(sizes) == len(contents) == len(set(names)):
            return None
        if not all(type(name) is str for name in names):
            return None
        if not all(type(size) is int and size >= 0 for size in sizes):
            return None
        return cls(names, sizes, contents)

    @classmethod
    def unpack(cls, text: str) -> FileList | None:
        """What `pack` wrote; None for anything else."""
        try:
            # A name that somebody set may unpack to anything.
            packed = base64.b85decode(text)
            unpacking = zlib.decompressobj()
            data = unpacking.decompress(packed, _LONGEST)
            return cls.read(msgspec.json.decode(data)) if unpacking.eof else None
        except (ValueError, binascii.Error, zlib.error, msgspec.MsgspecError):
            return None

    def document(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "names": list(self.names), "sizes": list(self.sizes),
            "contents": self.contents.tobytes().hex(),
        }  # fmt: skip

    def pack(self) -> str:
        """As text for a variable of the environment; '' where it is too long for one (some
        thousands of files), or a name is no text."""
        try:
            data = msgspec.json.encode(self.document())
        except (UnicodeEncodeError, msgspec.MsgspecError):
            return ""
        text = base64.b85encode(zlib.compress(data)).decode()
        return text if len(text) <= _LONGEST_TEXT else ""

    @property
    def size_bytes(self) -> int:
        return sum(self.sizes)

    @property
    def items(self) -> Items:
        """The files as items that are known by their names and contents."""
        return Items.keyed(self.names, self.contents)

    def delta(self, now: FileList) -> tuple[Delta, list[str]]:
        """How the files of `now` differ from these, and the names of those that are gone.

        A file under another name is no difference.
        """
        before = self.items
        assert before.digests is not None
        delta = compare(before.digests, np.full(before.count, CURRENT, np.uint8), now.items)
        places = {row.tobytes(): place for place, row in enumerate(before.digests)}
        return delta, [self.names[places[row.tobytes()]] for row in delta.removed]

    def by_name(self) -> Mapping[str, int]:
        """Sizes in bytes."""
        return dict(zip(self.names, self.sizes, strict=True))
