"""Trying again where that is safe: a wrapper around any store."""

from __future__ import annotations

import copy
import random as random_module
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from onward.errors import Unreachable
from onward.stores.base import Chunk, Entry, Store
from onward.stores.direct import holding, read_into

Answer = TypeVar("Answer")


class Retrying:
    """Repeats what ended as `Unreachable`, with growing, jittered pauses, up to a deadline.

    `create` is never repeated: its first try may have been stored, and only the caller can tell
    its own object from another's. `put` is repeated only if its chunks can be gone through again,
    which an iterator or generator cannot. The last error is raised as it came.
    """

    def __init__(
        self,
        store: Store,
        *,
        attempts: int = 5,
        first_pause_s: float = 0.2,
        longest_pause_s: float = 10.0,
        deadline_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        assert attempts >= 1
        self.store = store
        self._attempts = attempts
        self._first_pause_s = first_pause_s
        self._longest_pause_s = longest_pause_s
        self._deadline_s = deadline_s
        self._clock = clock
        self._sleep = sleep
        self._random = random

    @property
    def url(self) -> str:
        return self.store.url

    def create(self, key: str, data: bytes) -> None:
        self.store.create(key, data)

    def put(self, key: str, chunks: Iterable[Chunk], size_bytes: int) -> None:
        if iter(chunks) is chunks:
            self.store.put(key, chunks, size_bytes)
        else:
            self._repeat(lambda: self.store.put(key, chunks, size_bytes))

    def read(self, key: str, start: int = 0, size_bytes: int | None = None) -> bytes:
        return self._repeat(lambda: self.store.read(key, start, size_bytes))

    def read_into(self, key: str, start: int, target: memoryview) -> int:
        return self._repeat(lambda: read_into(self.store, key, start, target))

    @contextmanager
    def holding(self, keys: Iterable[str]) -> Iterator[Retrying]:
        with holding(self.store, keys) as held:
            retrying = copy.copy(self)
            retrying.store = held
            yield retrying

    def size(self, key: str) -> int:
        return self._repeat(lambda: self.store.size(key))

    def list(self, prefix: str) -> Iterator[Entry]:
        # Whole before its first entry is handed out, so that a repeat cannot give entries twice.
        yield from self._repeat(lambda: [*self.store.list(prefix)])

    def delete(self, key: str) -> None:
        self._repeat(lambda: self.store.delete(key))

    def _repeat(self, call: Callable[[], Answer]) -> Answer:
        end = self._clock() + self._deadline_s
        for attempt in range(1, self._attempts + 1):
            try:
                return call()
            except Unreachable:
                if attempt == self._attempts:
                    raise
                # "Full jitter": writers that failed together do not come back together.
                longest = min(self._longest_pause_s, self._first_pause_s * 2 ** (attempt - 1))
                pause_s = longest * self._random()
                if self._clock() + pause_s >= end:
                    raise
                self._sleep(pause_s)
        raise AssertionError("unreachable: the last attempt returns or raises")
