"""What is new and what is old, mixed batch by batch without end: a pure function of a few numbers.

Like all of `order.py`, nothing here may ever return another order for the same arguments.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import numpy as np
import numpy.typing as npt

from onward.data.order import Indices, derive_seed
from onward.errors import UsageError

_ITEMS_IN_CHAPTER = 2048
_ITEMS_IN_BLOCK = 8192
_SIMPLEST = 1 << 26


class Counted(Protocol):
    """How many items there are: new ones, old ones at hand, and all learned before."""

    @property
    def new(self) -> int: ...
    @property
    def old(self) -> int: ...
    @property
    def known(self) -> int: ...


def planned_share(
    counts: Counted, *, draws: int, least_old: float = 0.5, wanted: float | None = None
) -> float:
    """The share of new items that learns all of them without unlearning the old.

    It is the uniform share, new / (new + known): what training on all data at once would meet, and
    nothing published beats it per step. Where a budget of `draws` items (steps × batch size) is so
    small that some new items would never be met, the share is raised to new / draws, so that each
    is met once: the ledger says of an item that it is learned only if it was, and what a budget
    leaves out stays new for the next increment. It is not raised above 1 - `least_old` while there
    are old items at hand, because a batch of new items alone unlearns the old; then some new items
    do stay new.

    `wanted` is a sampler's share, in the place of the uniform one; 0, no new items on purpose,
    stays 0.
    """
    if draws < 1:
        raise UsageError(f"{draws} items cannot be shared out", do="give the increment a budget")
    if not counts.new:
        return 0.0
    if not counts.old:
        return 1.0
    if wanted == 0.0:
        return 0.0
    uniform = counts.new / (counts.new + counts.known) if wanted is None else wanted
    return max(uniform, min(_share_that_meets(counts.new, draws), 1.0 - least_old))


def _share_that_meets(new: int, draws: int) -> float:
    if new >= draws:
        return 1.0
    share = new / draws
    # The float may lie a hair below the quotient, and the last new item would not be met.
    return share if exact_share(share) * draws >= new else math.nextafter(share, 1.0)


def exact_share(share: float) -> Fraction:
    """The simplest fraction that a float stands for: 3/10 for 0.3; else the float's exact value."""
    exact = Fraction(share)
    simple = exact.limit_denominator(_SIMPLEST)
    return simple if float(simple) == share else exact


class MixedOrder:
    """An endless sequence of batches in which `share` of the items are new, the others old.

    Any batch can be asked for at any time, and asking changes nothing. Batch k holds
    ⌊(k + 1)·b·share⌋ - ⌊k·b·share⌋ new items, in exact arithmetic, so that after any number of
    batches the share is right to less than one item. The new items come in passes: each pass holds
    every new item exactly once, in an order of its own; so do the old. With share =
    new / (new + old) that is uniform replay over all data, without replacement.

    Without old items the share counts as 1, without new ones as 0. With `shuffle=False` every pass
    ascends, and the new items come first in each batch.

    Raises `UsageError` for no items at all, a batch size below 1, a share outside 0 … 1.
    """

    def __init__(
        self,
        new: Indices,
        old: Indices,
        *,
        share: float,
        batch_size: int,
        seed: int,
        increment: int,
        shuffle: bool = True,
    ) -> None:
        if not 0.0 <= share <= 1.0:  # not a number is refused, too
            raise UsageError(f"a share of {share} new items", do="give one in 0 … 1")
        if batch_size < 1:
            raise UsageError(f"batches of {batch_size} items", do="give a batch size of 1 or more")
        if not len(new) and not len(old):
            raise UsageError("there is nothing to make batches of", do="give data with items")
        self.share = 1.0 if not len(old) else 0.0 if not len(new) else float(share)
        self.batch_size = int(batch_size)
        self.shuffle = shuffle
        self._per_batch = exact_share(self.share) * self.batch_size
        self._new = _Passes(new, (seed, increment, "new"), shuffle)
        self._old = _Passes(old, (seed, increment, "old"), shuffle)
        self._mix = (seed, increment, "mix")
        self._batches_in_block = max(1, _ITEMS_IN_BLOCK // self.batch_size)
        self._block: tuple[int, Indices] | None = None

    def batch(self, k: int) -> list[int]:
        """The indices of batch `k`, as Python numbers, which every dataset accepts."""
        if k < 0:
            raise IndexError(f"batch {k} of a sequence that begins with batch 0")
        number, row = divmod(int(k), self._batches_in_block)
        wanted: list[int] = self._rows(number)[row].tolist()
        return wanted

    def batches(self, first: int = 0, stop: int | None = None) -> Iterator[list[int]]:
        """Batch `first` and those after it, up to but without `stop`, or without end."""
        if first < 0:
            raise IndexError(f"batch {first} of a sequence that begins with batch 0")
        k, size = int(first), self._batches_in_block
        while stop is None or k < stop:
            number, row = divmod(k, size)
            end = size if stop is None else min(size, stop - number * size)
            yield from self._rows(number)[row:end].tolist()
            k = (number + 1) * size

    def met(self, batches: int, *, since: int = 0) -> npt.NDArray[np.bool_]:
        """Which of the new items, in the order in which they were given, the first batches hold.

        Of these, only those from batch `since` on.
        """
        start, stop = (self._new_before(max(0, int(batch))) for batch in (since, batches))
        if not start:
            return self._new.among_first(stop)
        return np.isin(self._new.items, self._new.between(start, max(start, stop)))

    def _new_before(self, k: int) -> int:
        return k * self._per_batch.numerator // self._per_batch.denominator

    def _rows(self, number: int) -> Indices:
        """The batches of a block, of shape [batches in a block, batch size]."""
        kept = self._block  # one read: another thread may put another block here
        if kept is not None and kept[0] == number:
            return kept[1]
        size, width = self._batches_in_block, self.batch_size
        first = number * size
        bounds = [self._new_before(k) for k in range(first, first + size + 1)]
        start, stop = bounds[0], bounds[-1]
        new = self._new.between(start, stop)
        old = self._old.between(first * width - start, (first + size) * width - stop)
        counts = np.diff(np.array([bound - start for bound in bounds], np.int64))
        is_new = np.arange(width) < counts[:, None]
        rows = np.empty((size, width), np.int64)
        rows[is_new], rows[~is_new] = new, old
        if self.shuffle:
            seed = derive_seed(*self._mix, number)
            places = _permutations(size, width, seed)
            places += np.arange(0, size * width, width, dtype=np.int64)[:, None]
            rows = rows.reshape(-1).take(places)  # a third of the time of `take_along_axis`
        self._block = (number, rows)
        return rows


@dataclass(eq=False)
class _Passes:
    """An endless chain of permutations of some items.

    Passes over few items are made several at a time, as a chapter, because each seed costs 10 µs.
    """

    items: Indices
    seed: tuple[int | str, ...]
    shuffle: bool
    _kept: tuple[int, Indices] | None = None

    def __post_init__(self) -> None:
        self.items = np.asarray(self.items, np.int64)

    def between(self, start: int, stop: int) -> Indices:
        """What stands at places `start` to `stop` of the chain."""
        if start == stop:
            return np.empty(0, np.int64)
        length = self._passes_in_chapter * len(self.items)
        pieces = []
        for number in range(start // length, -(-stop // length)):
            begins = number * length
            places = self._chapter(number)[max(0, start - begins) : stop - begins]
            pieces.append(self.items[places])
        return np.concatenate(pieces)

    def among_first(self, count: int) -> npt.NDArray[np.bool_]:
        """For each item, whether it stands among the first `count` of the chain."""
        if count >= len(self.items):
            return np.ones(len(self.items), np.bool_)
        among = np.zeros(len(self.items), np.bool_)
        if count:
            among[self._chapter(0)[:count]] = True
        return among

    @property
    def _passes_in_chapter(self) -> int:
        return max(1, _ITEMS_IN_CHAPTER // len(self.items))

    def _chapter(self, number: int) -> Indices:
        """Places in `items`, a number of whole passes."""
        kept = self._kept
        if kept is not None and kept[0] == (number if self.shuffle else 0):
            return kept[1]
        count, length = self._passes_in_chapter, len(self.items)
        if self.shuffle:
            places = _permutations(count, length, derive_seed(*self.seed, number)).reshape(-1)
        else:
            number = 0
            places = np.tile(np.argsort(self.items, kind="stable"), count).astype(np.int64)
        self._kept = (number, places)
        return places


def _permutations(count: int, n: int, seed: int) -> Indices:
    """So many permutations of 0 … n - 1, as rows.

    The places are the low bits of random keys, so that all keys differ: any way of sorting gives
    the same, and NumPy's quickest does, at a third of the time of a stable `argsort`.
    """
    places = np.uint64((1 << (n - 1).bit_length()) - 1)
    keys = np.random.Philox(key=seed).random_raw(count * n).reshape(count, n)
    keys &= ~places
    keys |= np.arange(n, dtype=np.uint64)
    keys.sort(axis=1)
    keys &= places
    return keys.view(np.int64)
