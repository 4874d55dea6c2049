"""Stores that keep their callers waiting, and stores that are away, until a test says otherwise."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from onward.errors import Indeterminate, Unreachable
from onward.stores import Chunk, Faulty, Store


class Slow(Faulty):
    """Takes no pack before `go_on` is set; `waited_for` is set once somebody waits."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.go_on = threading.Event()
        self.waited_for = threading.Event()

    def put(self, key: str, chunks: Iterable[Chunk], size_bytes: int) -> None:
        if "/packs/" in key:
            self.waited_for.set()
            assert self.go_on.wait(60)
        super().put(key, chunks, size_bytes)


class Away(Faulty):
    """Refuses packs while `away`; `asked` is set at the second try, when one failure is known."""

    def __init__(self, store: Store, error: type[Exception] = Unreachable) -> None:
        super().__init__(store)
        self.away = True
        self.asked = threading.Event()
        self._error = error
        self._tries = 0

    def put(self, key: str, chunks: Iterable[Chunk], size_bytes: int) -> None:
        if self.away and "/packs/" in key:
            self._tries += 1
            if self._tries == 2:
                self.asked.set()
            assert issubclass(self._error, Unreachable | Indeterminate)
            raise self._error("away, on purpose")
        super().put(key, chunks, size_bytes)
