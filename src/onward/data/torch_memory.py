"""A dataset with the slots of a replay memory behind its own items."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils.data import default_collate

from onward.data.ordered import Slots


class WithMemory:
    """The items of `dataset`, and from its length on the slots of a memory.

    Rows from slots come last in a batch. With torch's own collating (or a dataset that gives whole
    batches) they are put together from the memory's columns at once, which costs a small part of
    collating them one by one.
    """

    def __init__(self, dataset: Any, slots: Slots) -> None:
        self._dataset = dataset
        self._slots = slots
        self._items = len(dataset)
        self._gives_whole_batches: bool | None = None

    def __getattr__(self, name: str) -> Any:
        # Workers' set-up functions look for what the dataset has.
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._dataset, name)

    def __len__(self) -> int:
        return self._items

    def __getitem__(self, index: int) -> Any:
        if index < self._items:
            return self._dataset[index]
        return self._slots.sample(index - self._items)

    def load(self, indices: list[int], collate_fn: Callable[[list[Any]], Any]) -> Any:
        """The batch of these numbers, those of slots last."""
        # Slots come last: found by halving, not by looking at each.
        count = bisect_left(indices, True, key=self._is_slot)
        slots = [index - self._items for index in indices[count:]]
        fresh = self._fresh(indices[:count])
        collated = not isinstance(fresh, list)
        if not collated and collate_fn is not default_collate:
            return collate_fn([*fresh, *map(self._slots.sample, slots)])
        if count:
            fresh = fresh if collated else default_collate(fresh)
            if not slots:
                return fresh
        remembered = self._slots.batch(slots)
        if remembered is None:
            remembered = default_collate([self._slots.sample(slot) for slot in slots])
        return _joined(fresh, remembered) if count else remembered

    def _is_slot(self, index: int) -> bool:
        return index >= self._items

    def _fresh(self, indices: list[int]) -> Any:
        """Items of the dataset: a list of them, or a whole batch if it gives such."""
        getitems = getattr(self._dataset, "__getitems__", None)
        if getitems is None:
            return [self._dataset[index] for index in indices]
        if indices:
            return getitems(indices)
        if self._gives_whole_batches is None:
            self._gives_whole_batches = not isinstance(getitems([0]), list)
        return None if self._gives_whole_batches else []


def _joined(one: Any, other: Any) -> Any:
    """Two collated batches as one, row after row."""
    match one:
        case torch.Tensor():
            return torch.cat([one, other.to(one.dtype)])
        case Mapping():
            return {key: _joined(value, other[key]) for key, value in one.items()}
        case tuple() if hasattr(one, "_fields"):
            return type(one)(*(_joined(a, b) for a, b in zip(one, other, strict=True)))
        case tuple() | list() if one and isinstance(one[0], str | bytes):
            return [*one, *other]
        case tuple() | list():
            return [_joined(a, b) for a, b in zip(one, other, strict=True)]
    return [*one, *other]
