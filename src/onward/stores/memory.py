"""A store in this process's memory, for tests and for trying things out."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from itertools import count

from onward.errors import AlreadyExists, Missing
from onward.stores.base import Chunk, Entry, checked_key
from onward.stores.keys import checked_prefix, counted


class MemoryStore:
    """Bytes in a dictionary; safe to use from many threads. Nothing outlives the process."""

    def __init__(self, name: str = "store") -> None:
        self._name = name
        self._objects: dict[str, tuple[bytes, str]] = {}
        self._versions = count()
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"memory://{self._name}"

    def create(self, key: str, data: bytes) -> None:
        checked_key(key)
        with self._lock:
            if key in self._objects:
                raise AlreadyExists(f"{key!r} exists already in {self.url}")
            self._objects[key] = (bytes(data), str(next(self._versions)))

    def put(self, key: str, chunks: Iterable[Chunk], size_bytes: int) -> None:
        checked_key(key)
        data = bytearray()
        for view in counted(chunks, size_bytes, key):
            data += view
        with self._lock:
            self._objects[key] = (bytes(data), str(next(self._versions)))

    def read(self, key: str, start: int = 0, size_bytes: int | None = None) -> bytes:
        data = self._object(key)
        return data[start : None if size_bytes is None else start + size_bytes]

    def read_into(self, key: str, start: int, target: memoryview) -> int:
        found = memoryview(self._object(key))[start : start + target.nbytes]
        target[: found.nbytes] = found
        return found.nbytes

    def size(self, key: str) -> int:
        return len(self._object(key))

    def list(self, prefix: str) -> Iterator[Entry]:
        checked_prefix(prefix)
        with self._lock:
            objects = [*self._objects.items()]
        for key, (data, version) in objects:
            if key.startswith(prefix):
                yield Entry(key, len(data), version)

    def delete(self, key: str) -> None:
        checked_key(key)
        with self._lock:
            self._objects.pop(key, None)

    def _object(self, key: str) -> bytes:
        checked_key(key)
        with self._lock:
            found = self._objects.get(key)
        if found is None:
            raise Missing(f"nothing is stored under {key!r} in {self.url}")
        return found[0]
