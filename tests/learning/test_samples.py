"""A sample is given back as what it was, whatever it was, or refused by its path."""

from __future__ import annotations

import datetime
from collections import namedtuple
from typing import Any

import numpy as np
import pytest

from onward.errors import Unstorable
from onward.learning.samples import Samples

Pair = namedtuple("Pair", "image label")


def alike(one: Any, other: Any) -> bool:
    """The same types all the way down, and the same bits."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, np.ndarray | np.generic):
        return (
            one.dtype == other.dtype
            and one.shape == other.shape
            and (one.tobytes() == other.tobytes())
        )
    return repr(one) == repr(other)


EVERYTHING: list[Any] = [
    (np.arange(6, dtype=np.uint8).reshape(2, 3), 4),
    {"image": np.float32([1.5, float("nan")]), "label": np.int64(3), 7: [True, None, (0.1, "é")]},
    np.float64("nan"),
    -(2**63),
    "lone \ud800 surrogate",
    "",
    b"\x00bytes",
    (),
    [[], {}],
    np.array(3, np.int16),
    np.zeros((0, 5), np.float16),
    np.arange(12).reshape(3, 4).T,
    np.array([1 + 2j], np.complex64),
    np.array([True, False]),
    float("-inf"),
    {1: "a", "1": "b"},
    {"a[0]": 1, "b": (2,)},
]


def store(samples: list[Any]) -> Samples:
    """All of them, in slots 0, 1, …, after a round through the state."""
    written = Samples(len(samples) + 2)
    written.write(np.arange(len(samples)), samples)
    read = Samples(1)
    read.load_state_dict(written.state_dict())
    return read


@pytest.mark.parametrize("sample", EVERYTHING, ids=[str(i) for i in range(len(EVERYTHING))])
def test_a_sample_comes_back_as_it_was(sample: Any) -> None:
    """Types, dtypes, shapes, bits."""
    kept = store([sample, sample])
    for slot in (0, 1):
        assert alike(kept.read(slot, tensor=np.asarray), sample)


def test_samples_of_all_forms_live_side_by_side() -> None:
    """Whatever form the others have, and when some of them have gone."""
    kept = store(EVERYTHING)
    for slot, sample in enumerate(EVERYTHING):
        assert alike(kept.read(slot, tensor=np.asarray), sample)
    kept.clear(np.arange(0, len(EVERYTHING), 2))
    for slot, sample in enumerate(EVERYTHING):
        if slot % 2:
            assert alike(kept.read(slot, tensor=np.asarray), sample)
        else:
            with pytest.raises(IndexError):
                kept.read(slot, tensor=np.asarray)


def test_one_odd_shape_leaves_the_others_as_they_were() -> None:
    """A column that was one array becomes an array for each slot."""
    kept = Samples(4)
    kept.write(np.array([0, 1]), [np.ones((2, 2)), np.zeros((2, 2))])
    dense = kept.state_dict()
    kept.write(np.array([3]), [np.ones((3, 1))])
    assert kept.read(0, tensor=np.asarray).tolist() == [[1, 1], [1, 1]]
    assert kept.read(1, tensor=np.asarray).tolist() == [[0, 0], [0, 0]]
    assert kept.read(3, tensor=np.asarray).tolist() == [[1], [1], [1]]
    assert dense["columns"][":numpy"]["array"][0].tolist() == [[1, 1], [1, 1]]
    kept.write(np.array([0]), [np.array([9], np.int8)])
    assert alike(store([1]).read(0, tensor=np.asarray), 1)
    assert alike(kept.read(0, tensor=np.asarray), np.array([9], np.int8))


def test_what_is_given_back_is_a_copy() -> None:
    """An augmentation in place must not change what is remembered."""
    original = np.zeros(3)
    kept = Samples(1)
    kept.write(np.array([0]), [original])
    original += 1
    kept.read(0, tensor=np.asarray)[:] = 7
    assert kept.read(0, tensor=np.asarray).tolist() == [0, 0, 0]


class Tensor:
    """As MindSpore's is, as far as the memory must know it."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def asnumpy(self) -> Any:
        return self.array

    def detach(self) -> Any:
        raise NotImplementedError


def test_tensors_of_another_framework_become_tensors_again() -> None:
    """By whoever knows how to make them; arrays beside them stay arrays."""
    kept = Samples(1)
    kept.write(np.array([0]), [(Tensor(np.float32([1, 2])), np.float32([3]))])
    tensor, array = kept.read(0, tensor=Tensor)
    assert isinstance(tensor, Tensor)
    assert alike(tensor.array, np.float32([1, 2]))
    assert alike(array, np.float32([3]))


recursive: list[Any] = []
recursive.append(recursive)


@pytest.mark.parametrize(
    ("sample", "path"),
    [
        ({"image": (1, object())}, r"sample\['image'\]\[1\]"),
        (datetime.date(2020, 1, 1), "sample is a date"),
        ([np.array(["text"])], r"sample\[0\]"),
        ([np.array([None])], r"sample\[0\]"),
        (np.zeros(2, "M8[s]"), "datetime64"),
        (np.longdouble(1), "sample"),
        (np.ma.masked_array([1], [True]), "MaskedArray"),
        ((1, 2**63), r"sample\[1\]"),
        ({(1, 2): 3}, r"the key \(1, 2\)"),
        (Pair(1, 2), "Pair"),
        (1 + 2j, "complex"),
        (recursive, "deep"),
        ({1, 2}, "set"),
    ],
)
def test_what_cannot_be_kept_is_named_by_its_path(sample: Any, path: str) -> None:
    """With what to do; and nothing has changed."""
    kept = Samples(2)
    kept.write(np.array([0]), [5])
    with pytest.raises(Unstorable, match=path) as caught:
        kept.write(np.array([0, 1]), [6, sample])
    assert "raw=" in str(caught.value)
    assert kept.read(0, tensor=np.asarray) == 5
