"""The order of Onward's own loaders: what is new, with old items mixed in, at any position.

Items are numbered as the dataset numbers them; where a replay memory is attached, the numbers from
`first_slot` on are its slots.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from onward.data.mixing import MixedOrder
from onward.data.order import (
    EpochOrder,
    Indices,
    batch_seeds,
    derive_seed,
    epoch_batches,
    replayed_items,
)
from onward.data.position import PositionedLoader
from onward.errors import UsageError


class Slots(Protocol):
    """What a replay memory offers to a loader."""

    def sample(self, slot: int) -> Any:
        """What is remembered there, as the dataset once gave it."""

    def batch(self, slots: list[int]) -> Any | None:
        """These slots collated as frameworks do by default, or None where only they can do that."""


class OrderedLoader(PositionedLoader):
    """Batches whose order follows from `seed` and position; how they are loaded is a subclass's.

    `new` and `old` are indices of the items to learn and to replay (`Ledger.pinned_items`); by
    default every item is new. With a number for `replay`, an epoch holds each new item once and
    that many old ones for each of them. With `"uniform"`, whoever plans the increment says by `mix`
    what share of a batch is new; an epoch then has room for each new item and one old beside it,
    and goes on in a stream of all of them where the epoch before it ended.
    """

    def __init__(
        self,
        dataset: Any,
        *,
        seed: int,
        increment: int,
        new: Indices | None = None,
        old: Indices | None = None,
        batch_size: int = 1,
        shuffle: bool = True,
        drop_last: bool = False,
        replay: float | Literal["uniform"] = 1.0,
    ) -> None:
        super().__init__()
        _check(batch_size, replay)
        self.dataset = dataset
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.replay = replay
        self._seed, self._increment = seed, increment
        self._new = np.arange(len(dataset), dtype=np.int64) if new is None else new
        self._old = np.empty(0, np.int64) if old is None else old
        self.first_slot = len(dataset)
        self.rows: list[int] = []
        """The items of the batch that was handed out last, row by row."""
        self.batch: Any = None
        """That batch."""
        self.samples = 0
        """Rows handed out, in this process."""
        self._mixed: MixedOrder | None = None
        self._cut_short: dict[int, int] = {}

    @abstractmethod
    def attach(self, slots: Slots) -> None:
        """Lets the numbers from `first_slot` on be these slots of a replay memory."""

    @abstractmethod
    def load(self, indices: Indices, *, seed: int) -> Any:
        """These items as a batch, here and now, with the randomness of `seed`."""

    @abstractmethod
    def raw(self, index: int, *, seed: int) -> Any:
        """One item, not collated, with the randomness of `seed`."""

    @abstractmethod
    def _fetch(self, jobs: Iterator[tuple[int, list[int]]], *, seed: int) -> Iterator[Any]:
        """The batches of `jobs`, each a seed and the items; `seed` is for all outside of them."""

    @property
    def new(self) -> Indices:
        """The items that the increment learns."""
        return self._new

    @property
    def old(self) -> Indices:
        """The items that are mixed in."""
        return self._old

    def mix(self, old: Indices, share: float) -> None:
        """From here on, this share of a batch is new, and the rest comes from `old`."""
        self._old = old
        self._mixed = MixedOrder(
            self._new,
            old,
            share=share,
            batch_size=self.batch_size,
            seed=self._seed,
            increment=self._increment,
            shuffle=self.shuffle,
        )

    def met(self) -> Indices | None:
        """Which of the new items were handed out in this increment, by their place among them.

        None where all of them were.
        """
        if self._mixed is not None and not self._mixed.share:
            return None  # whoever mixes nothing new in has other ways to learn it
        met = np.zeros(len(self._new), np.bool_)
        for epoch in range(self.epoch + 1):
            stop = self._cut_short.get(epoch, len(self))
            if epoch == self.epoch:
                stop = self.batches_taken
            if stop:
                met |= self._met_in(epoch, stop)
            if met.all():
                return None
        return np.flatnonzero(met)

    def _met_in(self, epoch: int, stop: int) -> npt.NDArray[np.bool_]:
        if self._mixed is None:
            return np.isin(self._new, self.order(epoch).indices[: stop * self.batch_size])
        start = epoch * len(self)
        return self._mixed.met(start + stop, since=start)

    def start_at(self, epoch: int, batch: int = 0) -> None:
        """Lets the next iteration begin at this batch, without loading the ones before it."""
        if epoch > self.epoch:  # what a budget or a `break` left out of an epoch is not met in it
            if self.batches_taken < len(self):
                self._cut_short[self.epoch] = self.batches_taken
            self._cut_short.update(dict.fromkeys(range(self.epoch + 1, epoch), 0))
        super().start_at(epoch, batch)

    def __len__(self) -> int:
        new, old = len(self._new), len(self._old)
        replayed = min(new, old) if self.replay == "uniform" else self._replayed()
        return epoch_batches(new + replayed, self.batch_size, drop_last=self.drop_last)

    def _replayed(self) -> int:
        assert self.replay != "uniform"
        return replayed_items(len(self._new), len(self._old), self.replay)

    def order(self, epoch: int) -> EpochOrder:
        """The order in which `epoch` meets the items."""
        return EpochOrder(
            new=self._new,
            old=self._old,
            seed=self._seed,
            increment=self._increment,
            epoch=epoch,
            batch_size=self.batch_size,
            replay=1.0 if self.replay == "uniform" else self.replay,
            shuffle=self.shuffle,
            drop_last=self.drop_last,
        )

    def _batches(self, epoch: int, first: int) -> Iterator[Any]:
        seed = derive_seed(self._seed, self._increment, epoch)
        waiting: deque[list[int]] = deque()  # workers are ahead of what is handed out

        def jobs() -> Iterator[tuple[int, list[int]]]:
            for job in zip(batch_seeds(seed, first), self._indices(epoch, first), strict=False):
                waiting.append(job[1])
                yield job

        for batch in self._fetch(jobs(), seed=seed):
            self.rows, self.batch = waiting.popleft(), batch
            yield batch

    def _handed_out(self) -> None:
        self.samples += len(self.rows)

    def _indices(self, epoch: int, first: int) -> Iterator[list[int]]:
        if self._mixed is None:
            return self.order(epoch).batches(first)
        start = epoch * len(self)
        batches = self._mixed.batches(start + first, start + len(self))
        if not len(self._old) or self._old[-1] < self.first_slot:
            return batches
        return map(self._slots_last, batches)

    def _slots_last(self, batch: list[int]) -> list[int]:
        # There they are put beside the rest. Two passes take half the time of sorting.
        first = self.first_slot
        new = [index for index in batch if index < first]
        return new + [index for index in batch if index >= first]

    def _extra_state(self) -> dict[str, Any]:
        return {"cut_short": dict(self._cut_short)}

    def _load_extra_state(self, state_dict: Mapping[str, Any]) -> None:
        self._cut_short = dict(state_dict.get("cut_short", {}))

    def _settings(self) -> dict[str, Any]:
        return {
            "seed": self._seed,
            "increment": self._increment,
            "new": len(self._new),
            "old": len(self._old),
            "batch_size": self.batch_size,
            "shuffle": self.shuffle,
            "drop_last": self.drop_last,
            "replay": self.replay,
        }


def _check(batch_size: int, replay: float | str) -> None:
    if batch_size < 1:
        raise UsageError(f"batch_size is {batch_size}", do="give a number of items, 1 or more")
    if replay != "uniform" and not (isinstance(replay, int | float) and 0 <= replay < math.inf):
        raise UsageError(
            f"replay is {replay!r}",
            do="give how many old items come with each new one: 0 for none, 1.0 for as many",
        )
