"""What a store may offer beyond its promise: bytes into the caller's memory, files held open."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, runtime_checkable

from onward.stores.base import Store


@runtime_checkable
class ReadsInto(Protocol):
    """A store that can read without making an object of the bytes first."""

    def read_into(self, key: str, start: int, target: memoryview) -> int:
        """Fill `target`, writable bytes, from `start` on, and say how many bytes that were.

        They are fewer than `target` has only where the object ends before. Raises `Missing`; what
        `target` holds after an error is unknown.
        """


@runtime_checkable
class Holds(Protocol):
    """A store that can keep objects readable although others delete them."""

    def holding(self, keys: Iterable[str]) -> AbstractContextManager[Store]:
        """This store, in which those of `keys` that exist now stay as they are now."""


def read_into(store: Store, key: str, start: int, target: memoryview) -> int:
    """`ReadsInto.read_into` of any store, by way of `read` where it has none of its own."""
    if isinstance(store, ReadsInto):
        return store.read_into(key, start, target)
    data = store.read(key, start, target.nbytes)
    target[: len(data)] = data
    return len(data)


@contextmanager
def holding(store: Store, keys: Iterable[str]) -> Iterator[Store]:
    """`Holds.holding` of any store; one that cannot hold anything is given as it is."""
    if isinstance(store, Holds):
        with store.holding(keys) as held:
            yield held
    else:
        yield store
