"""The ledger knows what was learned, and pins what an unfinished increment is about."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onward.data.items import Items
from onward.data.ledger import Ledger
from onward.errors import DataChanged, DataError, NewerFormat


def learned(*rounds: Items) -> Ledger:
    """A ledger after increments over each of `rounds`."""
    ledger = Ledger()
    for items in rounds:
        ledger.pin(items)
        ledger.learn_pinned()
    return ledger


def reloaded(ledger: Ledger) -> Ledger:
    """What another process makes of the stored ledger."""
    other = Ledger()
    other.load_state_dict(copy.deepcopy(ledger.state_dict()))
    return other


def located(ledger: Ledger, present: Items) -> tuple[list[int], list[int]]:
    pinned = ledger.pinned_items(present)
    return pinned.new.tolist(), pinned.old.tolist()


def test_counted_items_are_new_behind_the_known_ones() -> None:
    """Append-only data: what is behind the count is new."""
    ledger = learned(Items.counted(3))
    assert ledger.known == 3
    assert ledger.new_items(Items.counted(5)).tolist() == [3, 4]
    assert ledger.has_new(Items.counted(5))
    assert not ledger.has_new(Items.counted(3))


def test_identified_items_are_new_wherever_they_are() -> None:
    """Items with ids may come in any order, and known ones may be gone."""
    ledger = learned(Items.identified(["a", "b", "c"]))
    assert ledger.new_items(Items.identified(["x", "c", "y", "a"])).tolist() == [0, 2]
    assert not ledger.has_new(Items.identified(["c", "b"]))
    assert not ledger.has_new(Items.identified([]))


@pytest.mark.parametrize("store", [lambda ledger: ledger, reloaded])
def test_data_that_grows_under_a_resume_changes_nothing(store: Any) -> None:
    """An unfinished increment goes on with the items it began with, counted or identified."""
    ledger = learned(Items.counted(3))
    ledger.pin(Items.counted(5))
    assert ledger.pinned == 2
    assert located(store(ledger), Items.counted(9)) == ([3, 4], [0, 1, 2])

    ledger = learned(Items.identified("abc"))
    ledger.pin(Items.identified("xcyb"))  # "a" is gone when the increment begins
    assert ledger.pinned == 2
    before = Items.identified("xcyb")
    assert located(store(ledger), before) == ([0, 2], [3, 1])
    grown = Items.identified("zyxbaqc")  # moved, grown, and "a" is back
    assert located(store(ledger), grown) == ([2, 1], [3, 6])
    ledger = store(ledger)
    ledger.learn_pinned()
    assert ledger.known == 5
    assert ledger.new_items(grown).tolist() == [0, 5]


def test_missing_items_of_an_unfinished_increment_are_an_error_with_counts() -> None:
    """What was begun cannot go on without its items, and the message says how many are gone."""
    ledger = learned(Items.counted(3))
    ledger.pin(Items.counted(5))
    with pytest.raises(DataChanged, match="has 4 items, but 5 are part of the unfinished"):
        ledger.pinned_items(Items.counted(4))
    with pytest.raises(DataChanged, match="has 2 items, but 3 are already learned"):
        learned(Items.counted(3)).has_new(Items.counted(2))

    ledger = learned(Items.identified("abc"))
    ledger.pin(Items.identified("abcde"))
    with pytest.raises(DataChanged, match="1 of the 2 new items"):
        ledger.pinned_items(Items.identified("abcd"))
    with pytest.raises(DataChanged, match="2 of the 3 known items"):
        ledger.pinned_items(Items.identified("ade"))


def test_ids_may_be_text_numbers_or_bytes_and_differ_by_kind() -> None:
    """1, "1" and b"1" are three items; NumPy arrays of ids are accepted."""
    assert Items.identified([1, "1", b"1", -1, 2**80, "", "\ud800"]).count == 7
    ledger = learned(Items.identified(np.array([1, 2])))
    assert ledger.new_items(Items.identified([2, 3, 1])).tolist() == [1]


def test_duplicate_ids_are_named() -> None:
    """Two items with one id cannot be told apart later."""
    with pytest.raises(DataError, match=r"2 of 5 items .*: 'b', 'a'") as caught:
        Items.identified(["a", "b", "b", "c", "a"])
    assert "its own id" in str(caught.value)


@pytest.mark.parametrize("bad", [None, 1.5, True, ["a"]])
def test_ids_of_other_kinds_are_refused(bad: Any) -> None:
    """An id that does not read the same next time is no id."""
    with pytest.raises(DataError, match="the id of item 1"):
        Items.identified(["a", bad])


def test_counted_and_identified_items_do_not_mix() -> None:
    """Changing from a count to ids, or back, is refused with what to do."""
    with pytest.raises(DataError, match="without ids") as caught:
        learned(Items.identified("ab")).has_new(Items.counted(3))
    assert "with ids=" in str(caught.value)
    with pytest.raises(DataError, match="with ids") as caught:
        learned(Items.counted(2)).has_new(Items.identified("abc"))
    assert "without ids=" in str(caught.value)


def test_a_ledger_of_a_newer_version_is_refused() -> None:
    """Readers refuse what they do not know."""
    with pytest.raises(NewerFormat):
        Ledger().load_state_dict({**Ledger().state_dict(), "version": 2})


@given(st.lists(st.sets(st.integers(0, 40)), max_size=4), st.randoms(use_true_random=False))
def test_after_any_increments_exactly_the_unseen_ids_are_new(
    rounds: list[set[int]], random: Any
) -> None:
    """The ledger behaves like the set of all ids that it has learned."""
    ledger, seen = Ledger(), set[int]()
    for round_ in rounds:
        ids = list(round_)
        random.shuffle(ids)
        items = Items.identified(ids)
        assert {ids[i] for i in ledger.new_items(items)} == round_ - seen
        ledger.pin(items)
        ledger = reloaded(ledger)
        pinned = ledger.pinned_items(items)
        assert {ids[i] for i in pinned.new} == round_ - seen
        assert {ids[i] for i in pinned.old} == round_ & seen
        ledger.learn_pinned()
        seen |= round_
        assert ledger.known == len(seen)


def test_ids_whose_digests_begin_alike_are_told_apart() -> None:
    """Halves of digests are compared one after the other; both count."""
    digests = np.zeros((6, 16), np.uint8)
    digests[:, 8] = [5, 3, 1, 4, 0, 2]
    digests[5, 0] = 1
    present = Items(5, digests[:5])
    ledger = Ledger()
    ledger.pin(present)
    assert located(ledger, Items(6, digests[::-1])) == ([5, 4, 3, 2, 1], [])
    ledger.learn_pinned()
    assert ledger.new_items(Items(6, digests)).tolist() == [5]
