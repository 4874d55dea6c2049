"""The four hooks that a strategy is made of, and what they are told.

A hook never owns the loop or the optimizer. A strategy is a list of hooks; one class may be several
of them. Each is `Stateful`, and what it holds is in every checkpoint.

    sampler    what is in the batch
    penalty    a scalar added to the loss
    observer   after a step; before and after an increment
    transform  once at the start of an increment
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from onward.data.items import Digests
from onward.data.order import Indices

if TYPE_CHECKING:
    from onward.learning.maths import Maths
    from onward.learning.memory import Memory


def _first(batch: Any) -> Any:
    if isinstance(batch, Mapping):
        return {key: value for key, value in batch.items() if key != "labels"}
    return batch[0]


def _second(batch: Any) -> Any:
    return batch["labels"] if isinstance(batch, Mapping) else batch[1]


@dataclass(frozen=True)
class Reading:
    """How to find in one of the loop's batches what the model is given, and the right answers.

    By default a batch is a pair (inputs, labels), or a mapping with an entry `labels`.
    """

    inputs: Callable[[Any], Any] = _first
    labels: Callable[[Any], Any] = _second


@dataclass(frozen=True, eq=False)
class Batch:
    """A batch as hooks see it; tensors are the framework's.

    `slots`: int64 of shape [size], for each row the slot of the replay memory that it came from,
    or -1 where it is an item of the data. `inputs` is what the model is given, `labels` the right
    answers (shape [size] for classes), both as `Reading` finds them.
    """

    size: int
    slots: Indices
    inputs: Any
    labels: Any


@dataclass(frozen=True, eq=False)
class Setting:
    """Where hooks find themselves, the same for all of a process's life."""

    maths: Maths
    model: Any
    """The model whose outputs the loop gives to `run.penalty`."""
    reading: Reading
    increment: int
    """From 1."""
    seed: int


@dataclass(frozen=True)
class Counts:
    """How many items there are to mix: of this increment, old ones at hand (in the data, or in the
    memory), and all that were ever learned before it; and how many rows the budget has."""

    new: int
    old: int
    known: int
    draws: int | None = None
    """Steps times rows of a batch; None where nobody knows."""


class Lessons(Protocol):
    """What an increment is about, for hooks that look at it as a whole.

    Indices below `first_slot` are items of the dataset; `first_slot + s` is slot s of the memory.
    """

    @property
    def new(self) -> Indices:
        """The items that the increment learns, in the order of the dataset."""

    @property
    def labels(self) -> npt.NDArray[np.int64] | None:
        """The class of each item of the dataset, by index; None where the loader was not told."""

    @property
    def digests(self) -> Digests:
        """The 16 bytes by which each item of the dataset is known, by index."""

    @property
    def first_slot(self) -> int:
        """The number of slot 0."""

    def raw(self, index: int) -> Any:
        """An item as it is to be remembered: what the dataset gives, or the loader's `raw=`."""

    def batches(self, indices: Indices, *, batch_size: int) -> Iterator[Batch]:
        """These items, or slots, collated in this order, with the same randomness every time."""


class Hook(ABC):
    """What all four have in common."""

    name: str
    """What its state is called in a checkpoint; no two hooks of a run share it."""

    def begin(self, setting: Setting) -> None:  # noqa: B027 - most need not do anything
        """In every process: the state is loaded, the model restored, no step made yet."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything that the hook must know to go on exactly."""

    @abstractmethod
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Becomes what `state_dict` once returned. Called before `begin`."""

    def describe(self) -> str:
        """Such as `reservoir memory of 1,000`: for the plan and the record."""
        return self.name


class Sampler(Hook):
    """Decides what is in the batch. A run has one."""

    memory: Memory | None = None
    """Where old samples come from when the data has them no more."""

    @abstractmethod
    def share(self, counts: Counts) -> float:
        """The share of new items in a batch, in 0 … 1."""


class Penalty(Hook):
    """A scalar added to the loss of each batch."""

    @abstractmethod
    def penalty(self, outputs: Any, batch: Batch) -> Any:
        """The scalar, with gradients; `outputs` is what the model gave for `batch.inputs`."""


class Observer(Hook):
    """Looks on. Each of these is called at most once for what it is about, whatever is killed."""

    def before_increment(self, lessons: Lessons) -> None:
        """An increment begins (not: is resumed). No step is made yet."""

    def after_step(self) -> None:
        """An optimizer step is done; the gradients it used are still there."""

    def after_increment(self, lessons: Lessons) -> None:
        """All steps are made; what changes here is saved with the finished checkpoint."""


class Transform(Hook):
    """Changes the model once, where an increment after the first begins (not: is resumed)."""

    @abstractmethod
    def at_start(self, fresh: Mapping[str, Any]) -> None:
        """The model is the parent's. `fresh`: the weights that the script initialised, by name."""
