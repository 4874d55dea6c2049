"""Batches of a dataset and a memory: remembered rows look as if the dataset had given them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from onward.data.torch_loader import Loader
from onward.learning.samples import Samples
from onward.learning.torch import maths


class Pair(NamedTuple):
    image: Any
    label: Any


class Slots:
    """Samples kept as a replay memory keeps them."""

    def __init__(self, samples: list[Any]) -> None:
        self._samples = Samples(len(samples))
        self._samples.write(np.arange(len(samples)), samples)

    def sample(self, slot: int) -> Any:
        return self._samples.read(slot, tensor=maths.host_tensor)

    def batch(self, slots: list[int]) -> Any | None:
        return self._samples.read_batch(np.array(slots), tensor=maths.host_tensor)


FORMS = {
    "pair": lambda i: (torch.full((2,), float(i)), i),
    "float": lambda i: (torch.full((2,), float(i)), i / 2),
    "half": lambda i: (torch.full((2,), i, dtype=torch.float16), i % 2 == 0),
    "bytes of an image": lambda i: {"x": torch.full((2, 2), i, dtype=torch.uint8), "labels": i},
    "array": lambda i: (np.full(3, i, np.float32), np.int64(i)),
    "double array": lambda i: (np.full(3, i, np.float64), np.float32(i)),
    "zero-dimensional": lambda i: (torch.tensor(float(i)), torch.tensor(i, dtype=torch.int32)),
    "text": lambda i: (f"text {i}", i),
    "bytes": lambda i: (b"bytes %d" % i, i),
    "list": lambda i: [[torch.tensor([i])], [float(i), i]],
    "nested": lambda i: {"a": {"b": (torch.tensor([i]), f"{i}")}, "labels": i},
    "tensor alone": lambda i: torch.tensor([i, i + 1]),
    "number alone": lambda i: i,
    "text alone": lambda i: f"{i}",
}  # fmt: skip


def same(one: Any, other: Any) -> None:
    """Equal in type, form, dtype and value."""
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            same(a, b)
    else:
        assert type(one) is type(other)
        assert one == other


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("new", "old"), [(4, 0), (3, 1), (2, 3), (0, 4)])
def test_a_batch_is_what_collating_all_of_it_gives(form: str, new: int, old: int) -> None:
    """However many rows are remembered: types, dtypes and values are the same."""
    make = FORMS[form]
    fresh, kept = [make(i) for i in range(5)], [make(i) for i in range(10, 15)]
    loader = Loader(fresh, seed=1, increment=1)
    loader.attach(Slots(kept))
    batch = loader.load(np.array([*range(new), *range(5, 5 + old)]), seed=1)
    expected = default_collate([*fresh[:new], *kept[:old]])
    same(batch, expected)


def test_a_dataset_of_whole_batches_is_joined_row_after_row() -> None:
    """`__getitems__` that has collated already: remembered rows come behind its own."""

    class Whole:
        def __len__(self) -> int:
            return 5

        def __getitem__(self, index: int) -> Any:
            return torch.full((2,), float(index)), index

        def __getitems__(self, indices: list[int]) -> Any:
            return torch.tensor([[float(i)] * 2 for i in indices]), torch.tensor(indices)

    loader = Loader(Whole(), seed=1, increment=1)
    loader.attach(Slots([(torch.full((2,), float(i)), i) for i in range(10, 15)]))
    for indices in ([0, 1, 5, 6], [5, 6], [3]):
        values, labels = loader.load(np.array(indices), seed=1)
        numbers = [i if i < 5 else i + 5 for i in indices]
        assert labels.tolist() == numbers
        assert values.tolist() == [[float(n)] * 2 for n in numbers]


@pytest.mark.parametrize("workers", [0, 2])
def test_rows_say_where_each_row_is_from(workers: int) -> None:
    """In the order of the batch, with workers that fetch ahead too; a break forgets nothing."""
    fresh = [(torch.tensor([float(i)]), i) for i in range(12)]
    kept = [(torch.tensor([float(i)]), i) for i in range(100, 106)]
    loader = Loader(
        fresh, seed=1, increment=2, batch_size=4, num_workers=workers
    )  # fmt: skip
    loader.attach(Slots(kept))
    loader.mix(np.arange(12, 18), 0.5)
    for stop in (2, 99):
        for number, (_, labels) in enumerate(loader):
            expected = [row if row < 12 else row + 88 for row in loader.rows]
            assert labels.tolist() == expected
            if number == stop:
                break
