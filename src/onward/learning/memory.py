"""The replay memory: samples of earlier increments, for when their data cannot be reached."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from onward.data.items import DIGEST_BYTES, Digests, locate
from onward.data.order import Indices, derive_seed, permutation
from onward.errors import NewerFormat, UsageError
from onward.learning.choosing import balanced, reservoir
from onward.learning.columns import ToTensor, batched, put_together, taken_apart
from onward.learning.hooks import Lessons

Policy = Literal["reservoir", "class-balanced"]

_VERSION = 1
_NO_LABEL = -(2**63)


class Memory:
    """At most `capacity` remembered samples, each in a slot of its own.

    `"reservoir"` keeps a uniform sample of all items that were ever offered (Vitter 1985, algorithm
    R); `"class-balanced"` as many of each class as possible, and needs the items' labels (Chaudhry
    et al. 2019; Prabhu et al. 2020). Which items stay depends on `seed` and on what was offered.

    Raises `UsageError` for a capacity below 1.
    """

    def __init__(self, capacity: int, *, policy: Policy = "reservoir", seed: int = 0) -> None:
        if capacity < 1:
            raise UsageError(
                f"a memory of {capacity} samples remembers nothing",
                do="give it room for some samples of each class, or use a strategy without samples",
            )
        if policy not in get_args(Policy):
            raise UsageError(
                f"there is no policy {policy!r}", do=f"use one of {', '.join(get_args(Policy))}"
            )
        self.capacity = capacity
        self.policy = policy
        self._seed = seed
        self._offered = 0
        self._digests = np.zeros((capacity, DIGEST_BYTES), np.uint8)
        self._filled = np.zeros(capacity, np.bool_)
        self._labels = np.full(capacity, _NO_LABEL, np.int64)
        self._increments = np.zeros(capacity, np.int64)
        self._structure: Any = None
        self._columns: list[npt.NDArray[Any]] | None = None
        self._loose: dict[int, Any] = {}  # samples that do not fit the columns
        self._beside: dict[str, dict[str, npt.NDArray[Any]]] = {}

    # What it holds.

    def __len__(self) -> int:
        return int(self._filled.sum())

    @property
    def slots(self) -> Indices:
        """The slots that hold a sample, ascending."""
        return np.flatnonzero(self._filled)

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """The class of each slot's sample, shape [capacity]; where it has none, -2^63."""
        return self._labels

    @property
    def increments(self) -> npt.NDArray[np.int64]:
        """The increment in which each slot's sample was learned, shape [capacity]."""
        return self._increments

    @property
    def size_bytes(self) -> int:
        """What the samples take, with what is kept beside them."""
        columns = [*(self._columns or []), *self._columns_beside()]
        loose = sum(leaf.nbytes for _, leaves in self._loose.values() for leaf in leaves)
        return int(sum(column.nbytes for column in columns) + loose)

    def sample(self, slot: int, *, tensor: ToTensor) -> Any:
        """The sample in a slot, as the dataset once gave it."""
        if slot in self._loose:
            structure, leaves = self._loose[slot]
        else:
            assert self._columns is not None
            structure, leaves = self._structure, [column[slot] for column in self._columns]
        return put_together(structure, leaves, tensor)

    def batch(self, slots: list[int], *, tensor: ToTensor) -> Any | None:
        """Samples collated as frameworks do by default; None where only they can do that."""
        if self._columns is None or self._loose:
            return None
        return batched(self._structure, [column[slots] for column in self._columns], tensor)

    def beside(self, name: str) -> dict[str, npt.NDArray[Any]]:
        """Columns that a hook keeps with the samples, under its name: arrays [capacity, …], live.

        Row s belongs to slot s; it is set to zero when the slot is emptied or filled anew.
        """
        return self._beside.setdefault(name, {})

    # What changes it.

    def offer(self, lessons: Lessons, *, increment: int) -> Indices:
        """Looks at every new item of the lessons, keeps some; returns the slots that changed."""
        order = permutation(len(lessons.new), derive_seed(self._seed, increment, "offer"))
        stream = lessons.new[order]
        # What is remembered already, such as an item that came back, is not remembered twice.
        stream = stream[locate(lessons.digests[stream], self._digests[self._filled]) < 0]
        if self.policy == "class-balanced":
            places = self._balance(stream, lessons, increment)
        else:
            places = reservoir(
                self._filled, offered=self._offered, count=len(stream),
                seed=derive_seed(self._seed, increment, "reservoir"),
            )  # fmt: skip
        self._offered += len(stream)
        slots = np.array(sorted(places), np.int64)
        for slot in slots.tolist():
            self._keep(slot, int(stream[places[slot]]), lessons, increment)
        return slots

    def remove(self, digests: Digests) -> int:
        """Forgets these items, and what was kept beside them; returns how many it had."""
        gone = self._filled & (locate(self._digests, digests) >= 0)
        for slot in np.flatnonzero(gone).tolist():
            self._clear(slot)
        return int(gone.sum())

    # Its state.

    def state_dict(self) -> dict[str, Any]:
        """Arrays with a row for each slot, of which an increment changes few."""
        return {
            "version": _VERSION,
            "capacity": self.capacity,
            "policy": self.policy,
            "offered": self._offered,
            "digests": self._digests,
            "filled": self._filled.view(np.uint8),
            "labels": self._labels,
            "increments": self._increments,
            "structure": self._structure,
            "columns": self._columns,
            "loose": {slot: [structure, leaves] for slot, (structure, leaves)
                      in sorted(self._loose.items())},
            "beside": {name: dict(columns) for name, columns in self._beside.items()},
        }  # fmt: skip

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Becomes the memory that `state_dict` describes.

        Raises `UsageError` where it has another capacity or policy than this one.
        """
        if state_dict["version"] > _VERSION:
            raise NewerFormat("the replay memory is of a newer Onward", do="update Onward")
        stored = (state_dict["capacity"], state_dict["policy"])
        if stored != (self.capacity, self.policy):
            raise UsageError(
                f"the memory is one of {self.capacity} samples ({self.policy})",
                why=f"the checkpoint holds one of {stored[0]} ({stored[1]})",
                do="give the strategy the memory that it had, or begin a new output by --branch",
            )
        self._offered = state_dict["offered"]
        self._digests = np.array(state_dict["digests"])
        self._filled = np.array(state_dict["filled"]).view(np.bool_)
        self._labels = np.array(state_dict["labels"])
        self._increments = np.array(state_dict["increments"])
        self._structure = state_dict["structure"]
        columns = state_dict["columns"]
        self._columns = None if columns is None else [np.array(column) for column in columns]
        self._loose = {int(slot): (structure, [np.array(leaf) for leaf in leaves])
                       for slot, (structure, leaves) in state_dict["loose"].items()}  # fmt: skip
        self._beside = {
            name: {key: np.array(column) for key, column in columns.items()}
            for name, columns in state_dict["beside"].items()
        }

    # Details.

    def _balance(self, stream: Indices, lessons: Lessons, increment: int) -> dict[int, int]:
        if lessons.labels is None:
            raise UsageError(
                "a class-balanced memory needs the class of each item",
                why="the loader was not told, and the dataset has no labels or targets",
                do='give run.loader(…, labels=…), or use policy="reservoir"',
            )
        return balanced(
            self._filled, self._labels, lessons.labels[stream],
            seed=derive_seed(self._seed, increment, "balance"),
        )  # fmt: skip

    def _keep(self, slot: int, index: int, lessons: Lessons, increment: int) -> None:
        self._clear(slot)
        structure, leaves = taken_apart(lessons.raw(index))
        if self._columns is None and not self._filled.any():
            self._structure = structure
            self._columns = [np.zeros((self.capacity, *leaf.shape), leaf.dtype) for leaf in leaves]
        columns = self._columns or []
        if structure == self._structure and all(
            leaf.shape == column.shape[1:] and leaf.dtype == column.dtype
            for leaf, column in zip(leaves, columns, strict=True)
        ):
            for leaf, column in zip(leaves, columns, strict=True):
                column[slot] = leaf
        else:
            self._loose[slot] = (structure, leaves)
        self._filled[slot] = True
        self._digests[slot] = lessons.digests[index]
        self._labels[slot] = _NO_LABEL if lessons.labels is None else lessons.labels[index]
        self._increments[slot] = increment

    def _clear(self, slot: int) -> None:
        for array in [*(self._columns or []), *self._columns_beside(), self._digests]:
            array[slot] = 0
        self._loose.pop(slot, None)
        self._filled[slot] = False
        self._labels[slot] = _NO_LABEL
        self._increments[slot] = 0

    def _columns_beside(self) -> list[npt.NDArray[Any]]:
        return [column for columns in self._beside.values() for column in columns.values()]
