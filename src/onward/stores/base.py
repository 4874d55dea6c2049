"""The promise that every store keeps: whole objects under keys."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from onward.errors import BadURL

Chunk: TypeAlias = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Entry:
    """One stored object: its key, its length, and a token that changes when its bytes do."""

    key: str
    size_bytes: int
    version: str


class Store(Protocol):
    """Bytes under keys. Keys are relative and `/`-separated, as `checked_key` demands.

    All methods raise subclasses of `StoreError`: `Unreachable` where trying again may help,
    `ReadOnly` and `NoSpace` where something must be mended first.
    """

    @property
    def url(self) -> str:
        """Where this store is, for messages: never with credentials in it."""

    def create(self, key: str, data: bytes) -> None:
        """Store `data` under `key` if nothing is there, else raise `AlreadyExists`.

        When it returns, the object is whole and durable. When it raises `Unreachable`, the object
        is absent or whole: read it back to know which. Of several at once, exactly one succeeds
        (on an object store: if `honours_create` says so).
        """

    def put(self, key: str, chunks: Iterable[Chunk], size_bytes: int) -> None:
        """Store the concatenated `chunks` under `key`, replacing whatever is there as one change.

        Durable, and its length and checksum believed only as the store reports them, when it
        returns. Read-only views of memory must not change before that; others may be used again for
        the next chunk. If it raises, the key holds what it held before or the whole new object.
        """

    def read(self, key: str, start: int = 0, size_bytes: int | None = None) -> bytes:
        """The object's bytes from `start`, `size_bytes` of them or up to the end.

        A range reaching past the end returns what there is. Raises `Missing`.
        """

    def size(self, key: str) -> int:
        """The object's length in bytes. Raises `Missing`."""

    def list(self, prefix: str) -> Iterator[Entry]:
        """All objects whose key starts with `prefix`, in no promised order.

        Unfinished writes never appear. What appeared or went away meanwhile may be missed.
        """

    def delete(self, key: str) -> None:
        """Remove the object. Removing what is absent is not an error."""


def checked_key(key: str) -> str:
    """`key` itself if it is a plain relative path, else `BadURL`.

    Refuses empty parts, `.` and `..`, backslashes, control characters and a leading slash, so
    that no key read from a document can leave its store.
    """
    parts = key.split("/")
    if (
        any(part in ("", ".", "..") for part in parts)
        or "\\" in key
        or any(ord(char) < 32 or ord(char) == 127 for char in key)
    ):
        raise BadURL(f"{key!r} is not a valid key", why="keys are plain relative paths")
    return key
