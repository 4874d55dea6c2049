"""The replay memory: samples of earlier increments, for when their data cannot be reached."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from onward.data.items import DIGEST_BYTES, Digests, locate
from onward.data.order import Indices, derive_seed
from onward.errors import NewerFormat, UsageError
from onward.learning.beside import Beside
from onward.learning.hooks import Lessons
from onward.learning.samples import Samples

Policy = Literal["reservoir", "class-balanced"]
Tags = npt.NDArray[np.uint64]

_VERSION = 1


class Memory:
    """A bounded number of remembered samples.

    Every item that is ever offered draws a random tag, and the memory holds those with the smallest
    tags: of all items (`reservoir`), or of each class, with room divided evenly over the classes
    met so far (`class-balanced`; what a class has too few items for goes to the others). So the
    memory is at any moment a uniform sample of everything offered, or of each class, and which
    items these are does not depend on the order in which they came.

    SOURCE: Vitter 1985, "Random sampling with a reservoir", for the sample that `reservoir` is (its
    Algorithm R keeps the same distribution with a draw for each place; tags bear withdrawals, and a
    million items at once); Chaudhry et al. 2019, "On tiny episodic memories in continual learning";
    Prabhu et al. 2020, "GDumb", for greedy balancing: who is taken out is of the largest class.

    Raises `UsageError` for a capacity below 1 or an unknown policy.
    """

    def __init__(self, capacity: int, *, policy: Policy = "reservoir", seed: int = 0) -> None:
        if isinstance(capacity, bool) or not isinstance(capacity, int | np.integer):
            raise UsageError(f"a memory of {capacity!r} samples", do="give a whole number")
        if capacity < 1:
            raise UsageError(
                "a memory of zero samples remembers nothing"
                if not capacity
                else f"a memory of {capacity} samples",
                do="give a size of 1 or more, or train without a memory: with UniformReplay while "
                "the old data can be reached, else with NoReplay",
            )
        if policy not in get_args(Policy):
            raise UsageError(
                f"no memory is known by the policy {policy!r}",
                do="choose " + " or ".join(get_args(Policy)),
            )
        self.capacity = int(capacity)
        self.policy: Policy = policy
        self.seed = seed
        self.seen = 0
        """How many items were offered so far."""
        self._offers = 0
        self._samples = Samples(self.capacity)
        self._beside: dict[str, Beside] = {}
        self._forbidden: Digests = np.empty((0, DIGEST_BYTES), np.uint8)
        self._tags: Tags = np.zeros(self.capacity, np.uint64)
        self.labels = np.full(self.capacity, -1, np.int64)
        """int64 by slot: the class, or -1 where none is known."""
        self.increments = np.zeros(self.capacity, np.int64)
        """int64 by slot: the increment that it was learned in, from 1; 0 for an empty slot."""
        self.digests: Digests = np.zeros((self.capacity, DIGEST_BYTES), np.uint8)
        """uint8 by slot, 16 bytes each: what the item is known by."""

    def __len__(self) -> int:
        return int(np.count_nonzero(self.increments))

    @property
    def slots(self) -> Indices:
        """The filled slots, ascending."""
        return np.flatnonzero(self.increments)

    @property
    def size_bytes(self) -> int:
        """What the filled slots hold, with all that is kept beside them."""
        tables = (self._tags, self.labels, self.increments, self.digests)
        each = sum(table[:1].nbytes for table in tables)
        beside = sum(beside.size_bytes for beside in self._beside.values())
        return len(self) * each + self._samples.size_bytes + beside

    def offer(self, lessons: Lessons, *, increment: int) -> Indices:
        """Looks at the new items of an increment and keeps some; returns the slots they are in.

        Only items that are kept are read (`lessons.raw`). Items that are forbidden, or in the
        memory already, are passed over. Raises `Unstorable` for a sample that cannot be kept, and
        `UsageError` where classes are to be balanced but not known; then nothing has changed.
        """
        if self.policy == "class-balanced" and lessons.labels is None:
            raise UsageError(
                "a class-balanced memory must be told the class of each item",
                why="the loader was not given labels",
                do='give the loader labels=, or choose policy="reservoir"',
            )
        offered = self._admitted(lessons.new, lessons.digests[lessons.new])
        tags = _draw_tags(len(offered), derive_seed(self.seed, "memory", self._offers))
        labels = (
            np.full(len(offered), -1, np.int64)
            if lessons.labels is None
            else np.asarray(lessons.labels, np.int64)[offered]
        )
        held = self.slots
        chosen = self._choose(
            np.concatenate([self._tags[held], tags]), np.concatenate([self.labels[held], labels])
        )
        stays = np.isin(np.arange(len(held)), chosen)
        coming = chosen[chosen >= len(held)] - len(held)
        leaving = held[~stays]
        room = np.sort(np.concatenate([np.flatnonzero(self.increments == 0), leaving]))
        slots = room[: len(coming)]
        # First what may fail, an item that cannot be read or kept: it leaves all as it was.
        samples = [lessons.raw(index) for index in offered[coming].tolist()]
        self._samples.write(slots, samples)
        self._clear(np.concatenate([leaving, slots]), but_samples_in=slots)
        self._tags[slots] = tags[coming]
        self.labels[slots] = labels[coming]
        self.digests[slots] = lessons.digests[offered[coming]]
        self.increments[slots] = increment
        self.seen += len(offered)
        self._offers += 1
        return self._fit_to_capacity(slots)

    def sample(self, slot: int, *, tensor: Callable[[npt.NDArray[Any]], Any]) -> Any:
        """A copy of the sample in a slot, as it was given; `tensor` makes an array a tensor again.

        Raises `IndexError` for an empty slot.
        """
        return self._samples.read(slot, tensor=tensor)

    def batch(self, slots: list[int], *, tensor: Callable[[npt.NDArray[Any]], Any]) -> Any | None:
        """Samples collated as frameworks do by default; None where only they can do that."""
        return self._samples.read_batch(np.asarray(slots, np.int64), tensor=tensor)

    def beside(self, name: str) -> Beside:
        """Rows of outputs kept beside the slots under this name; always the same object."""
        if name not in self._beside:
            self._beside[name] = Beside(len(self.increments))
        return self._beside[name]

    def remove(self, digests: Digests) -> int:
        """Withdrawn items leave, with all that is kept beside them; returns how many were here.

        The room is filled by what is offered next. Until about as many items have come as were
        withdrawn, those are therefore somewhat more likely to be remembered than older ones.
        """
        places = locate(self.digests, _checked(digests))
        slots = np.flatnonzero((places >= 0) & (self.increments > 0))
        if len(slots):
            self._samples.clear(slots)
            self._clear(slots, but_samples_in=slots)
        return len(slots)

    def forbid(self, digests: Digests) -> int:
        """Items of a holdout leave, and are never let in again; returns how many were here."""
        digests = _checked(digests)
        strange = digests[locate(digests, self._forbidden) < 0]
        if len(strange):
            self._forbidden = np.unique(np.concatenate([self._forbidden, strange]), axis=0)
        return self.remove(digests)

    def state_dict(self) -> dict[str, Any]:
        """Arrays by slot, of which an increment changes only the rows of replaced slots."""
        return {
            "version": _VERSION,
            "seen": self.seen,
            "offers": self._offers,
            "tags": self._tags,
            "labels": self.labels,
            "increments": self.increments,
            "digests": self.digests,
            "forbidden": self._forbidden,
            "samples": self._samples.state_dict(),
            "beside": {name: beside.state_dict() for name, beside in self._beside.items()},
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Becomes what `state_dict` once returned.

        A memory that was larger stays so until the next offer, because an unfinished increment
        may be learning from any of its slots.
        """
        if state_dict["version"] > _VERSION:
            raise NewerFormat(
                f"the memory has version {state_dict['version']}, this Onward knows {_VERSION}",
                do="update Onward",
            )
        self.seen = int(state_dict["seen"])
        self._offers = int(state_dict["offers"])
        self._tags = np.array(state_dict["tags"], np.uint64)
        self.labels = np.array(state_dict["labels"], np.int64)
        self.increments = np.array(state_dict["increments"], np.int64)
        self.digests = np.array(state_dict["digests"], np.uint8)
        self._forbidden = np.array(state_dict["forbidden"], np.uint8)
        self._samples.load_state_dict(state_dict["samples"])
        for name in {*self._beside, *state_dict["beside"]}:
            empty = Beside(len(self.increments)).state_dict()
            self.beside(name).load_state_dict(state_dict["beside"].get(name, empty))
        if len(self.increments) < self.capacity:
            self._rearrange(np.arange(len(self.increments)), self.capacity)

    def _admitted(self, indices: Indices, digests: Digests) -> Indices:
        inside = locate(digests, self.digests[self.slots]) >= 0
        return indices[~inside & (locate(digests, self._forbidden) < 0)]

    def _choose(self, tags: Tags, labels: Indices) -> Indices:
        """The candidates that are to be in the memory, ascending."""
        if self.policy == "reservoir":
            order = np.argsort(tags, kind="stable")
        else:
            # First the best of every class, then the second best of every class, and so on.
            by_class = np.lexsort((tags, labels))
            _, first, sizes = np.unique(labels[by_class], return_index=True, return_counts=True)
            ranks = np.empty(len(tags), np.int64)
            ranks[by_class] = np.arange(len(tags)) - np.repeat(first, sizes)
            order = np.lexsort((tags, ranks))
        return np.sort(order[: self.capacity])

    def _clear(self, slots: Indices, *, but_samples_in: Indices) -> None:
        """Empties slots, in copies of the tables, because a state may hold the old ones."""
        self._samples.clear(np.setdiff1d(slots, but_samples_in))
        self._tags, self.labels = self._tags.copy(), self.labels.copy()
        self.increments, self.digests = self.increments.copy(), self.digests.copy()
        self._tags[slots], self.labels[slots], self.increments[slots] = 0, -1, 0
        self.digests[slots] = 0
        for beside in self._beside.values():
            beside.clear(slots)

    def _fit_to_capacity(self, slots: Indices) -> Indices:
        """Gives room back that a larger memory had; returns where `slots` are now."""
        if len(self.increments) <= self.capacity:
            return slots
        held = self.slots
        self._rearrange(held, self.capacity)
        return np.searchsorted(held, slots)

    def _rearrange(self, kept: Indices, size: int) -> None:
        """`kept` become the first of `size` slots."""
        origins = np.full(size, -1, np.int64)
        origins[: len(kept)] = kept
        empty = origins < 0
        for name in ("_tags", "labels", "increments", "digests"):
            setattr(self, name, getattr(self, name)[origins])
        self._samples.rearrange(origins)
        for beside in self._beside.values():
            beside.rearrange(origins)
        self._clear(np.flatnonzero(empty), but_samples_in=np.flatnonzero(empty))


def _draw_tags(count: int, seed: int) -> Tags:
    return np.random.Philox(key=seed).random_raw(count)


def _checked(digests: Digests) -> Digests:
    if digests.ndim != 2 or digests.shape[1] != DIGEST_BYTES or digests.dtype != np.uint8:
        raise UsageError(
            f"digests of shape {list(digests.shape)} and dtype {digests.dtype}",
            do=f"give uint8 of shape [n, {DIGEST_BYTES}], a row for each item",
        )
    return digests
