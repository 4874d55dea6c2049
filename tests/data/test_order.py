"""The order of an epoch is a pure function of a few numbers, and may never change."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onward.data.order import EpochOrder, batch_seeds, derive_seed, permutation

PINNED = """
import numpy as np
from onward.data.order import EpochOrder, batch_seeds, derive_seed, permutation
order = EpochOrder(
    new=np.arange(6, 12), old=np.arange(6), seed=7, increment=2, epoch=3, batch_size=4, replay=0.5
)
print(derive_seed(7, 2, "mix"), derive_seed(), derive_seed("é"))
print(permutation(12, 42).tolist())
print(list(order.batches()))
seeds = batch_seeds(2**64 - 1, 1023)
print(next(seeds), next(seeds))
"""
EXPECTED = """\
2638115016551368867 7830723116256144226 12829996464507348415
[11, 7, 1, 6, 10, 4, 3, 5, 9, 0, 2, 8]
[[9, 7, 5, 0], [11, 10, 2, 8], [6]]
4652716832885237740 12079472389394220099
"""


def test_pinned_values_are_the_same_in_another_process() -> None:
    """Whoever changes these numbers breaks the resume of every unfinished run in the world."""
    command = [sys.executable, "-c", PINNED]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed == EXPECTED


def test_numpy_numbers_derive_the_same_seed_as_pythons() -> None:
    """The kind of a number does not matter, only its value; text is no number."""
    assert derive_seed(np.int64(3), 1) == derive_seed(3, True) == derive_seed(3, 1)  # type: ignore[arg-type]
    assert len({derive_seed("3"), derive_seed(3), derive_seed(3, 3), derive_seed("3", 3)}) == 4


@given(st.integers(0, 300), st.integers(0, 2**64 - 1))
def test_a_permutation_has_every_number_once(n: int, seed: int) -> None:
    """It is a permutation, and the same one for the same seed."""
    assert sorted(permutation(n, seed)) == list(range(n))
    assert np.array_equal(permutation(n, seed), permutation(n, seed))


def test_every_place_is_equally_likely() -> None:
    """First places over many seeds are spread evenly (chi-squared, 9 degrees of freedom)."""
    counts = np.bincount([permutation(10, derive_seed(s))[0] for s in range(5000)], minlength=10)
    assert ((counts - 500) ** 2 / 500).sum() < 30


orders = st.builds(
    lambda new, old, **more: EpochOrder(new=np.arange(old, old + new), old=np.arange(old), **more),
    new=st.integers(1, 60),
    old=st.integers(0, 60),
    seed=st.integers(0, 2**63),
    increment=st.integers(1, 5),
    epoch=st.integers(0, 5),
    batch_size=st.integers(1, 20),
    replay=st.floats(0, 3),
    shuffle=st.booleans(),
    drop_last=st.just(False),
)


@given(orders)
def test_an_epoch_holds_each_new_item_once_and_old_ones_evenly(order: EpochOrder) -> None:
    """Every new item exactly once; the asked number of old ones, none twice more than another."""
    items = list(itertools.chain(*order.batches()))
    counts = Counter(items)
    assert all(counts[item] == 1 for item in order.new)
    replayed = {item: counts[item] for item in order.old.tolist()}
    expected = int(len(order.new) * order.replay + 0.5) if replayed else 0
    assert sum(replayed.values()) == expected == len(items) - len(order.new)
    if replayed:
        assert max(replayed.values()) - min(replayed.values()) <= 1
    if not order.shuffle:
        assert items == sorted(items)


@given(orders, st.integers(0, 30))
def test_batches_cut_the_epoch_without_gap(order: EpochOrder, first: int) -> None:
    """All batches but the last are full, and beginning later changes none of them."""
    batches = list(order.batches())
    assert len(batches) == len(order)
    assert all(len(batch) == order.batch_size for batch in batches[:-1])
    assert list(order.batches(first)) == batches[first:]
    assert [order.batch(k) for k in range(len(order))] == batches
    with pytest.raises(IndexError):
        order.batch(len(order))


def test_the_last_batch_is_dropped_if_it_is_not_full() -> None:
    """`drop_last` leaves only full batches."""
    order = EpochOrder(new=np.arange(10), batch_size=4, drop_last=True)
    assert [len(batch) for batch in order.batches()] == [4, 4]


def test_every_number_changes_the_order() -> None:
    """Seed, increment and epoch each give another order, and replay draws afresh each epoch."""

    def items(**numbers: int) -> tuple[int, ...]:
        order = EpochOrder(new=np.arange(50, 60), old=np.arange(50), **numbers)  # type: ignore[arg-type]
        return tuple(order.indices.tolist())

    all_orders = [items(), items(seed=1), items(increment=2), items(epoch=1)]
    assert len(set(all_orders)) == 4
    replayed = {frozenset(i for i in order if i < 50) for order in all_orders}
    assert len(replayed) == 4


def test_new_and_old_items_are_mixed() -> None:
    """Replay works against forgetting only if it is spread over the epoch."""
    order = EpochOrder(new=np.arange(1000, 2000), old=np.arange(1000), batch_size=200)
    for batch in order.batches():
        assert 60 < sum(item < 1000 for item in batch) < 140


@given(st.integers(0, 2**64 - 1), st.integers(0, 3000))
def test_seeds_of_batches_do_not_depend_on_where_one_begins(seed: int, first: int) -> None:
    """The seed of batch k is the same however k is reached."""
    whole = itertools.islice(batch_seeds(seed), first, first + 3)
    assert list(whole) == list(itertools.islice(batch_seeds(seed, first), 3))
