"""Batches that mix new items with old ones: endless, and the same from wherever one begins."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from onward.data.order import Indices, derive_seed, permutation

_BLOCK = 64  # batches whose places are drawn at once


class MixedOrder:
    """Batch k is a function of these arguments and of k alone.

    New and old items come from a stream each, an endless chain of permutations: within a pass
    every item comes exactly once. Of the first k batches' rows, ⌊k · batch_size · share⌋ are new,
    for every k. Without old items all rows are new, and the other way round.

    >>> order = MixedOrder(np.arange(4), np.arange(4, 8), share=0.5, batch_size=4, seed=1)
    >>> sorted(order.batch(0) + order.batch(1))
    [0, 1, 2, 3, 4, 5, 6, 7]
    """

    def __init__(
        self,
        new: Indices,
        old: Indices,
        *,
        share: float,
        batch_size: int,
        seed: int,
        increment: int = 1,
        shuffle: bool = True,
    ) -> None:
        if not len(new) and not len(old):
            raise AssertionError("nothing to mix")
        # As a fraction, so that the count of new rows is exact however far the stream goes.
        exact = Fraction(share).limit_denominator(1 << 20)
        self._share = Fraction(1) if not len(old) else Fraction(0) if not len(new) else exact
        self._size = batch_size
        self._seed = seed
        self._increment = increment
        self._shuffle = shuffle
        self._new = _Stream(new, seed, increment, "new", shuffle)
        self._old = _Stream(old, seed, increment, "old", shuffle)

    @property
    def has_new(self) -> bool:
        """Whether batches hold new items at all."""
        return self._share > 0

    def batch(self, k: int) -> list[int]:
        """The items of batch k."""
        return next(self.batches(k, k + 1))

    def batches(self, first: int, stop: int) -> Iterator[list[int]]:
        """The batches from `first` up to `stop`."""
        while first < stop:
            block = first // _BLOCK
            last = min(stop, (block + 1) * _BLOCK)
            rows = self._block(block)
            start = first - block * _BLOCK
            yield from rows[start : start + last - first].tolist()
            first = last

    def met(self, batches: int) -> npt.NDArray[np.bool_]:
        """Which of the new items, by their place among them, the first `batches` batches hold."""
        return self._new.met(self._new_before(batches))

    def _new_before(self, k: int) -> int:
        """How many rows of the first k batches are new."""
        return k * self._size * self._share.numerator // self._share.denominator

    def _block(self, block: int) -> Indices:
        """All batches of a block, one in each row."""
        first, stop = block * _BLOCK, (block + 1) * _BLOCK
        counts = np.diff([self._new_before(k) for k in range(first, stop + 1)])
        new_first = self._new_before(first)
        new = self._new.take(new_first, int(counts.sum()))
        old_first = first * self._size - new_first
        old = self._old.take(old_first, _BLOCK * self._size - len(new))
        # Within a row, the places before `counts` are new; then each row is shuffled.
        is_new = np.arange(self._size) < counts[:, None]
        rows = np.empty((_BLOCK, self._size), np.int64)
        rows[is_new], rows[~is_new] = new, old
        if self._shuffle:
            key = derive_seed(self._seed, self._increment, "rows", block)
            chance = np.random.Philox(key=key).random_raw(rows.size).reshape(rows.shape)
            rows = np.take_along_axis(rows, np.argsort(chance, axis=1, kind="stable"), axis=1)
        return rows


class _Stream:
    """An endless chain of permutations of `items`."""

    def __init__(
        self, items: Indices, seed: int, increment: int, purpose: str, shuffle: bool
    ) -> None:
        self._items = items
        self._parts = (seed, increment, purpose)
        self._shuffle = shuffle
        self._pass: tuple[int, Indices] = (-1, items)

    def take(self, start: int, count: int) -> Indices:
        """`count` items from place `start` of the stream on."""
        if not count:
            return np.empty(0, np.int64)
        found = []
        while count:
            number, place = divmod(start, len(self._items))
            some = self._items_of(number)[place : place + count]
            found.append(some)
            start, count = start + len(some), count - len(some)
        return np.concatenate(found)

    def met(self, count: int) -> npt.NDArray[np.bool_]:
        """Which items, by their place, are among the first `count` of the stream."""
        if count >= len(self._items):
            return np.ones(len(self._items), bool)
        met = np.zeros(len(self._items), bool)
        met[self._order(0)[:count]] = True
        return met

    def _items_of(self, number: int) -> Indices:
        if self._pass[0] != number:
            self._pass = (number, self._items[self._order(number)])
        return self._pass[1]

    def _order(self, number: int) -> Indices:
        if not self._shuffle:
            return np.arange(len(self._items), dtype=np.int64)
        return permutation(len(self._items), derive_seed(*self._parts, number))
