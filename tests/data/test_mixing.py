"""The endless mix of new and old: every batch a pure function of a few numbers."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onward.data.mixing import MixedOrder, exact_share, planned_share
from onward.errors import UsageError

PINNED = """
import numpy as np
from onward.data.mixing import MixedOrder
order = MixedOrder(
    np.arange(6, 9), np.arange(6), share=0.3, batch_size=4, seed=7, increment=2
)
print(list(order.batches(0, 4)))
print(order.batch(10**12))
order = MixedOrder(
    np.arange(5000), np.arange(5000, 9000), share=0.75, batch_size=3, seed=7, increment=2
)
print(order.batch(0), order.batch(2730), order.batch(2731), order.batch(10**12 + 1))
"""
EXPECTED = """\
[[4, 3, 6, 2], [8, 5, 0, 1], [7, 5, 0, 1], [7, 2, 4, 3]]
[1, 8, 0, 2]
[2129, 1612, 5294] [2090, 8649, 3900] [3870, 886, 1583] [8979, 4620, 3601]
"""


def order(new: int, old: int, **more: Any) -> MixedOrder:
    """`old` items from 0 on, then `new` ones."""
    arguments = {"share": 0.5, "batch_size": 8, "seed": 1, "increment": 1} | more
    return MixedOrder(np.arange(old, old + new), np.arange(old), **arguments)


@dataclass
class Numbers:
    """How many items there are."""

    new: int
    old: int
    known: int


orders = st.builds(
    order,
    st.integers(0, 60),
    st.integers(1, 60),
    share=st.one_of(
        st.floats(0, 1),
        st.fractions(0, 1, max_denominator=200).map(float),
        st.sampled_from([0.0, 1.0, 5e-324, 1 - 2**-53]),
    ),
    batch_size=st.integers(1, 40),
    seed=st.integers(0, 2**63),
    increment=st.integers(1, 5),
    shuffle=st.booleans(),
)


def test_pinned_values_are_the_same_in_another_process() -> None:
    """Whoever changes these numbers breaks the resume of every unfinished run in the world."""
    command = [sys.executable, "-c", PINNED]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed == EXPECTED


@given(orders, st.integers(0, 3000))
def test_asking_for_one_batch_is_the_same_as_going_there(mixed: MixedOrder, first: int) -> None:
    """`batch(k)` and `batches` agree, wherever one begins, and whatever was asked for before."""
    whole = list(mixed.batches(first, first + 5))
    assert whole == [mixed.batch(k) for k in range(first, first + 5)]
    assert whole == list(itertools.islice(mixed.batches(first), 5))
    assert list(mixed.batches(first + 2, first + 5)) == whole[2:]
    mixed.batch(10**9)
    assert mixed.batch(first) == whole[0]
    assert all(len(batch) == mixed.batch_size for batch in whole)
    assert list(mixed.batches(first, first)) == []


@given(orders)
def test_within_a_pass_every_item_comes_exactly_once(mixed: MixedOrder) -> None:
    """At any moment no item of a stream came more than once more often than another."""
    met: Counter[int] = Counter()
    for batch in mixed.batches(0, 40):
        met.update(batch)
    old, new = mixed._old.items.tolist(), mixed._new.items.tolist()
    assert set(met) <= {*old, *new}
    for items in filter(None, (old, new)):
        times = [met[item] for item in items]
        assert max(times) - min(times) <= 1


@given(orders, st.integers(0, 60))
def test_met_is_what_the_batches_held(mixed: MixedOrder, batches: int) -> None:
    """The new items that the first batches hold, by counting them."""
    seen = set(itertools.chain.from_iterable(mixed.batches(0, batches)))
    assert mixed.met(batches).tolist() == [item in seen for item in mixed._new.items.tolist()]


@pytest.mark.parametrize("share", [0.3, 1 / 3, 1e-3, 0.999, 2 / 7, 1e-12, 0.1234567890123])
def test_the_share_is_exact_however_long_the_run(share: float) -> None:
    """After any number of batches the new items met are right to less than one."""
    mixed = order(7, 11, share=share, batch_size=13)
    exact = exact_share(share)
    counted = 0
    for k, batch in enumerate(mixed.batches(0, 2000)):
        counted += sum(item >= 11 for item in batch)
        assert counted == int((k + 1) * 13 * exact)
    for far in (10**9, 10**15):
        held = sum(item >= 11 for batch in mixed.batches(far, far + 50) for item in batch)
        assert held == int((far + 50) * 13 * exact) - int(far * 13 * exact)


def test_a_share_is_the_fraction_that_was_meant() -> None:
    """0.3 is three tenths, not a hair less: ten items hold three new ones from the start."""
    assert exact_share(0.3) == Fraction(3, 10)
    assert exact_share(60_000 / 72_000) == Fraction(5, 6)
    assert float(exact_share(0.1234567890123)) == 0.1234567890123
    mixed = order(100, 100, share=0.3, batch_size=10)
    assert all(sum(item >= 100 for item in batch) == 3 for batch in mixed.batches(0, 50))


def test_the_uniform_share_meets_everything_equally_often() -> None:
    """share = new / (new + old): in one round of all data, each item comes once."""
    mixed = order(40, 160, share=0.2, batch_size=20)
    assert sorted(itertools.chain(*mixed.batches(0, 10))) == list(range(200))


def test_passes_differ_and_new_and_old_are_mixed_in_a_batch() -> None:
    """Each pass has an order of its own, and no place in a batch belongs to the new."""
    mixed = order(3000, 3000, batch_size=100)
    passes = [list(itertools.chain(*mixed.batches(p * 60, p * 60 + 60))) for p in range(3)]
    assert len({tuple(items) for items in passes}) == 3
    places = np.array(list(mixed.batches(0, 400))) >= 3000
    share_by_place = places.mean(axis=0)
    assert share_by_place.min() > 0.38
    assert share_by_place.max() < 0.62


def test_every_place_in_a_pass_is_equally_likely() -> None:
    """Which item comes first is spread evenly over seeds (chi-squared, 9 degrees of freedom)."""
    firsts = [order(10, 0, batch_size=1, seed=seed).batch(0)[0] for seed in range(3000)]
    counts = np.bincount(firsts, minlength=10)
    assert ((counts - 300) ** 2 / 300).sum() < 30


def test_every_number_changes_the_order() -> None:
    """Seed and increment each give other batches."""
    mixes = [order(50, 50, **more) for more in ({}, {"seed": 2}, {"increment": 2})]
    assert len({str(list(mixed.batches(0, 10))) for mixed in mixes}) == 3


def test_without_shuffling_both_streams_ascend() -> None:
    """New items first in each batch, each stream in ascending order, over and over."""
    mixed = MixedOrder(
        np.array([9, 7, 8]),
        np.array([2, 0]),
        share=0.5,
        batch_size=4,
        seed=1,
        increment=1,
        shuffle=False,
    )
    assert list(mixed.batches(0, 3)) == [[7, 8, 0, 2], [9, 7, 0, 2], [8, 9, 0, 2]]
    assert mixed.met(1).tolist() == [False, True, True]


def test_without_old_or_new_items_the_share_gives_way() -> None:
    """Nothing old: all is new, and the other way round."""
    assert sorted(itertools.chain(*order(8, 0, share=0.25).batches(0, 1))) == list(range(8))
    assert sorted(itertools.chain(*order(0, 8, share=0.25).batches(0, 1))) == list(range(8))
    assert order(0, 8).met(5).tolist() == []
    only_old = order(5, 8, share=0.0)
    assert not only_old.met(10**12).any()
    assert max(itertools.chain(*only_old.batches(0, 9))) < 8


@pytest.mark.parametrize(
    "wrong", [{"share": 1.5}, {"share": -0.1}, {"share": float("nan")}, {"batch_size": 0}]
)
def test_impossible_mixes_are_refused(wrong: dict[str, Any]) -> None:
    """Before any batch is made, and with what to do."""
    with pytest.raises(UsageError, match="what to do"):
        order(5, 5, **wrong)


def test_no_items_and_batches_before_the_first_are_refused() -> None:
    """There is no batch of nothing, and none before batch 0."""
    with pytest.raises(UsageError):
        order(0, 0)
    with pytest.raises(IndexError):
        order(1, 1).batch(-1)
    with pytest.raises(IndexError):
        next(order(1, 1).batches(-1))


def test_the_planned_share_is_uniform_while_the_budget_meets_everything() -> None:
    """As training on all data at once would mix them."""
    assert planned_share(Numbers(100, 300, 300), draws=1000) == 0.25
    assert planned_share(Numbers(100, 0, 0), draws=10) == 1.0
    assert planned_share(Numbers(0, 300, 300), draws=10) == 0.0


def test_the_planned_share_rises_where_new_items_would_not_be_met() -> None:
    """But leaves the old their least; a new item that the budget cannot meet stays new."""
    assert planned_share(Numbers(100, 900, 900), draws=250) == 0.4
    assert planned_share(Numbers(100, 900, 900), draws=120) == 0.5
    assert planned_share(Numbers(100, 900, 900), draws=120, least_old=0.1) == 100 / 120
    assert planned_share(Numbers(900, 100, 100), draws=10) == 0.9
    assert planned_share(Numbers(100, 900, 900), draws=250, wanted=0.3) == 0.4
    assert planned_share(Numbers(100, 900, 900), draws=250, wanted=0.7) == 0.7
    assert planned_share(Numbers(100, 900, 900), draws=250, wanted=0.0) == 0.0
    with pytest.raises(UsageError):
        planned_share(Numbers(1, 1, 1), draws=0)


@given(st.integers(1, 10**12), st.integers(1, 10**7), st.integers(1, 10**4))
def test_every_new_item_is_met_once_if_the_budget_allows(
    new: int, steps: int, batch_size: int
) -> None:
    """Not all but one, for a float that lies a hair below the quotient."""
    draws = steps * batch_size
    share = planned_share(Numbers(new, 1, 10**15), draws=draws, least_old=0.0)
    assert int(exact_share(share) * draws) >= min(new, draws)
