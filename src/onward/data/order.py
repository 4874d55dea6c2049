"""The order in which an epoch meets its items: a pure function of a few numbers.

Nothing here may ever change what it returns for the same arguments: a run that is resumed by a
newer Onward, on another NumPy, must meet the same items in the same order. Therefore only two
promised things are used: BLAKE3, and the raw stream of the Philox bit generator (NEP 19 keeps
streams of bit generators stable; `Generator.permutation` is not promised).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import blake3
import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]

_SEEDS_IN_BLOCK = 1024


def derive_seed(*parts: int | str) -> int:
    """A 64-bit seed that depends on every part, and on nothing else.

    >>> derive_seed(1, 2, "mix") == derive_seed(1, 2, "mix") != derive_seed(1, 2, "replay")
    True
    """
    # As Python writes a tuple, such as (1, 2, 'mix'); NumPy's numbers are written in other ways.
    text = ascii(tuple(part if isinstance(part, str) else int(part) for part in parts))
    return int.from_bytes(blake3.blake3(text.encode()).digest(length=8), "little")


def batch_seeds(epoch_seed: int, first: int = 0) -> Iterator[int]:
    """A seed for each batch of an epoch, from batch `first` on, without end.

    Drawn in blocks, because a seed of its own for every batch costs what the loader cannot spare.
    """
    for block in itertools.count(first // _SEEDS_IN_BLOCK):
        seeds = np.random.Philox(key=epoch_seed + (block << 64)).random_raw(_SEEDS_IN_BLOCK)
        yield from seeds[first % _SEEDS_IN_BLOCK :].tolist()
        first = 0


def permutation(n: int, seed: int) -> Indices:
    """The numbers 0 … n - 1 in an order that `seed` decides."""
    keys = np.random.Philox(key=seed).random_raw(n)
    return np.argsort(keys, kind="stable").astype(np.int64, copy=False)


@dataclass(frozen=True, eq=False)
class EpochOrder:
    """The items of one epoch, batch by batch.

    An epoch holds each item of `new` exactly once, and `replay` items of `old` per new item, so
    that learning what is new does not unlearn what is known (experience replay). Replayed items
    are drawn uniformly without replacement, afresh in every epoch; where more are asked for than
    there are, every old item comes equally often, up to one. With `shuffle=False` the epoch goes
    through its items in ascending order.
    """

    new: Indices
    old: Indices = field(default_factory=lambda: np.empty(0, np.int64))
    seed: int = 0
    increment: int = 1
    epoch: int = 0
    batch_size: int = 1
    replay: float = 1.0
    shuffle: bool = True
    drop_last: bool = False
    indices: Indices = field(init=False)

    def __post_init__(self) -> None:
        items = np.concatenate([self.new, self._replayed()])
        if self.shuffle:
            items = items[permutation(len(items), self._seed("mix"))]
        else:
            items = np.sort(items, kind="stable")
        object.__setattr__(self, "indices", items)

    def __len__(self) -> int:
        return epoch_batches(len(self.indices), self.batch_size, drop_last=self.drop_last)

    def batch(self, k: int) -> list[int]:
        """The indices of batch `k`, as Python numbers, which every dataset accepts."""
        if not 0 <= k < len(self):
            raise IndexError(f"batch {k} of an epoch of {len(self)} batches")
        wanted: list[int] = self.indices[k * self.batch_size : (k + 1) * self.batch_size].tolist()
        return wanted

    def batches(self, first: int = 0) -> Iterator[list[int]]:
        """Every batch from `first` on."""
        size, indices = self.batch_size, self.indices
        for start in range(first * size, len(self) * size, size):
            yield indices[start : start + size].tolist()

    def _replayed(self) -> Indices:
        count = replayed_items(len(self.new), len(self.old), self.replay)
        if count == 0:
            return np.empty(0, np.int64)
        rounds, rest = divmod(count, len(self.old))
        drawn = permutation(len(self.old), self._seed("replay"))[:rest]
        return np.concatenate([np.tile(self.old, rounds), self.old[drawn]])

    def _seed(self, purpose: str) -> int:
        return derive_seed(self.seed, self.increment, self.epoch, purpose)


def replayed_items(new: int, old: int, replay: float) -> int:
    """How many old items an epoch of `new` items replays."""
    return int(new * replay + 0.5) if old else 0


def epoch_batches(items: int, batch_size: int, *, drop_last: bool) -> int:
    """How many batches an epoch of `items` items has."""
    return items // batch_size if drop_last else -(-items // batch_size)
