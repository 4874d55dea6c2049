"""The ledger knows what was learned, and pins what an unfinished increment is about."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onward.data.items import Items
from onward.data.ledger import Ledger
from onward.errors import DataChanged, DataError, NewerFormat, NothingNew, StateError
from tests.data.ledgers import keyed, learned, reloaded


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
    with pytest.raises(DataError, match="given without ids=") as caught:
        learned(Items.identified("ab")).has_new(Items.counted(3))
    assert "dataset with ids=" in str(caught.value)
    with pytest.raises(DataError, match="given with ids=") as caught:
        learned(Items.counted(2)).has_new(Items.identified("abc"))
    assert "dataset without ids=" in str(caught.value)
    with pytest.raises(DataError, match="given with a key for each") as caught:
        learned(Items.identified("ab")).seen(keyed({"a": 1}))
    assert "dataset with ids=" in str(caught.value)


def test_a_ledger_of_a_newer_version_is_refused() -> None:
    """Readers refuse what they do not know."""
    with pytest.raises(NewerFormat):
        Ledger().load_state_dict({**Ledger().state_dict(), "version": 3})


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
        if round_ <= seen:
            continue
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
    present = Items(5, digests[:5], "identified")
    ledger = Ledger()
    ledger.pin(present)
    assert located(ledger, Items(6, digests[::-1], "identified")) == ([5, 4, 3, 2, 1], [])
    ledger.learn_pinned()
    assert ledger.new_items(Items(6, digests, "identified")).tolist() == [5]


def test_an_empty_delta_is_no_increment() -> None:
    """Nothing to learn is an error of its own, whatever the reason; `again` learns all."""
    abc = Items.identified("abc")
    ledger = learned(abc)
    with pytest.raises(NothingNew, match="all 2 items of the data are learned"):
        ledger.pin(Items.identified("ab"))
    with pytest.raises(NothingNew, match="all 1 new items of the data are held out"):
        ledger.pin(Items.identified("abcd"), eligible=np.array([True, True, True, False]))
    with pytest.raises(DataError, match="the data is empty"):
        ledger.pin(Items.identified(""))
    ledger.pin(abc, again=True)
    assert ledger.pinned == 3
    assert located(reloaded(ledger), Items.identified("xcba")) == ([3, 2, 1], [])
    ledger.learn_pinned()
    assert (ledger.known, ledger.has_new(abc)) == (3, False)
    counted = learned(Items.counted(2))
    counted.pin(Items.counted(2), again=True)
    assert located(counted, Items.counted(5)) == ([0, 1], [])


@pytest.mark.parametrize("make", [lambda n: Items.counted(n), lambda n: Items.identified(range(n))])
def test_held_out_items_are_neither_new_nor_old_and_stay_unlearned(make: Any) -> None:
    """What is not eligible is not learned, not replayed, and new once it is eligible."""
    even = np.arange(6) % 2 == 0
    ledger = Ledger()
    ledger.pin(make(6), eligible=even)
    assert located(reloaded(ledger), make(9)) == ([0, 2, 4], [])
    assert (ledger.pinned, ledger.known) == (3, 0)
    ledger.learn_pinned()
    assert ledger.known == 3
    assert ledger.seen(make(8)).tolist() == [*even.tolist(), False, False]
    assert ledger.new_items(make(8)).tolist() == [1, 3, 5, 6, 7]
    ledger = reloaded(ledger)
    ledger.pin(make(8), eligible=np.array([True, True, False, False, True, False, True, False]))
    assert located(reloaded(ledger), make(8)) == ([1, 6], [0, 4])
    ledger.learn_pinned()
    assert (ledger.known, ledger.new_items(make(8)).tolist()) == (5, [3, 5, 7])
    assert reloaded(ledger).new_items(make(8)).tolist() == [3, 5, 7]


@pytest.mark.parametrize(
    "bad", [np.ones(2, np.bool_), np.ones(3, np.int64), np.ones((3, 1), np.bool_)]
)
def test_eligible_must_fit_the_data(bad: Any) -> None:
    with pytest.raises(DataError, match="one bool for each item"):
        Ledger().pin(Items.counted(3), eligible=bad)


@pytest.mark.parametrize(
    "make",
    [
        lambda n: Items.counted(n),
        lambda n: Items.identified(range(n)),
        lambda n: keyed({str(i): i for i in range(n)}),
    ],
)
def test_only_items_that_were_met_are_learned(make: Any) -> None:
    """A budget may end before all new items had their turn: the others stay new."""
    ledger = learned(make(2))
    ledger.pin(make(7))
    assert ledger.seen(make(8)).tolist() == [True] * 7 + [False]
    assert ledger.learned(make(8)).tolist() == [True] * 2 + [False] * 6
    assert ledger.learning(make(8)).tolist() == [False] * 2 + [True] * 5 + [False]
    ledger.learn_pinned(met=np.array([4, 0, 4]))
    assert ledger.known == 4
    assert ledger.seen(make(8)).tolist() == [True] * 3 + [False] * 3 + [True, False]
    assert reloaded(ledger).new_items(make(8)).tolist() == [3, 4, 5, 7]
    ledger.pin(make(8))
    ledger.learn_pinned(met=np.array([], np.int64))
    assert ledger.new_items(make(8)).tolist() == [3, 4, 5, 7]
    ledger.pin(make(8))
    ledger.learn_pinned()
    assert (ledger.known, ledger.has_new(make(8))) == (8, False)


def test_seen_asks_for_contents_and_keys_of_keyed_items() -> None:
    """A copy under another name was seen; a key is seen once any content of it was."""
    ledger = learned(keyed({"a": 1, "b": 2}))
    assert ledger.seen(keyed({"z": 1, "a": 3})).tolist() == [True, False]
    ledger.pin(keyed({"a": 1, "b": 2, "c": 3}))
    keys = keyed({"a": 0, "c": 0, "z": 0}).digests
    assert keys is not None
    known, pinned = ledger.seen_keys(keys)
    assert (known.tolist(), pinned.tolist()) == ([True, False, False], [False, True, False])
    assert Ledger().seen(keyed({"a": 1})).tolist() == [False]


def test_changed_data_under_a_resume_is_refused_with_both_digests() -> None:
    """The increment goes on with the contents it began with; the change belongs to the next one."""
    ledger = learned(keyed({"a": 1, "b": 2}))
    ledger.pin(keyed({"a": 1, "b": 2, "c": 3, "d": 4}))
    moved = keyed({"d": 4, "e": 9, "c2": 3, "b": 2, "a2": 1})
    assert located(reloaded(ledger), moved) == ([2, 0], [4, 3])
    with pytest.raises(DataChanged, match=r"1 of the 2 new items .* have changed") as caught:
        ledger.pinned_items(keyed({"c": 10, "d": 4, "a": 1, "b": 2}), names=["c", "d", "a", "b"])
    assert "item 0 ('c') was 0300000000000000 and is 0a00000000000000" in str(caught.value)
    assert "belongs to a continue" in str(caught.value)
    with pytest.raises(DataChanged, match=r"1 of the 2 new .* and 1 of the 2 known") as caught:
        ledger.pinned_items(keyed({"c": 10, "a": 11, "b": 2}))
    assert "and 1 of the 2 new items are gone" in str(caught.value)
    with pytest.raises(DataChanged, match=r"2 of the 2 new items and 2 of the 2 known .* are gone"):
        ledger.pinned_items(keyed({}))


def test_what_went_is_reported_once_and_known_when_it_comes_back() -> None:
    """A withdrawal belongs to the increment that found it; the model has learned it still."""
    ledger = learned(Items.identified("abc"))
    delta = ledger.pin(Items.identified("cd"))
    assert (len(delta.removed), delta.added.tolist(), delta.known.tolist()) == (2, [1], [0])
    assert ledger.changes is not None
    assert (ledger.changes.added, ledger.changes.removed) == (1, 2)
    assert reloaded(ledger).changes == ledger.changes
    ledger.learn_pinned()
    assert (ledger.withdrawn, ledger.known) == (2, 4)
    assert reloaded(ledger).withdrawn_items().count == 2
    delta = reloaded(ledger).delta(Items.identified("cde"))
    assert (len(delta.removed), delta.added.tolist()) == (0, [2])
    delta = ledger.pin(Items.identified("acde"))
    assert (delta.known.tolist(), len(delta.removed)) == ([0, 1, 2], 0)
    assert located(ledger, Items.identified("acde")) == ([3], [0, 1, 2])
    ledger.learn_pinned()
    assert ledger.withdrawn == 1
    assert ledger.seen(Items.identified("abcde")).all()
    assert len(ledger.delta(Items.identified("cde")).removed) == 1


def test_a_copy_is_not_replayed_twice() -> None:
    """Two known items with one content of which one went: it comes once among the old ones."""
    ledger = learned(keyed({"a": 1, "b": 1}))
    ledger.pin(keyed({"a": 1, "c": 3}))
    assert located(ledger, keyed({"a": 1, "c": 3})) == ([1], [0])
    assert located(reloaded(ledger), keyed({"b": 1, "c": 3, "a": 1})) == ([1], [2])


@pytest.mark.parametrize("ids", [None, "abcdef"])
def test_ledgers_of_the_first_version_are_read(ids: str | None) -> None:
    """What an older Onward stored means the same: known, pinned, and what of it is replayed."""

    def items(count: int) -> Items:
        return Items.counted(count) if ids is None else Items.identified(ids[:count])

    def stored(count: int, start: int = 0) -> Any:
        made = items(count)
        return count if made.digests is None else made.digests[start:]

    ledger = Ledger()
    ledger.load_state_dict(
        {"version": 1, "known": stored(2), "pinned": stored(4, 2), "replayable": None}
    )
    assert (ledger.known, ledger.pinned) == (2, 2)
    assert located(ledger, items(6)) == ([2, 3], [0, 1])
    ledger.learn_pinned()
    assert (ledger.known, reloaded(ledger).new_items(items(6)).tolist()) == (4, [4, 5])
    # Before the end of the first increment, no id was known: that was a count of 0.
    ledger.load_state_dict({"version": 1, "known": 0, "pinned": stored(3), "replayable": None})
    assert located(ledger, items(6)) == ([0, 1, 2], [])
    if ids is not None:
        replayable = np.array([False, True])
        ledger.load_state_dict(
            {"version": 1, "known": stored(2), "pinned": stored(4, 2), "replayable": replayable}
        )
        assert located(ledger, Items.identified("bcdf")) == ([1, 2], [0])
        assert located(ledger, Items.identified("abcdf")) == ([2, 3], [1])


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "nonsense"}, {"entries": -1}, {"entries": 3}, {"entries": "2"}, {"segments": 5},
        {"segments": [np.zeros((2, 8), np.uint8)]}, {"segments": [np.zeros(32, np.uint8)]},
        {"marks": [np.array([9], np.uint32)]}, {"marks": [np.array([1.0])]}, {"pinned": {}},
        {"pinned": 3}, {"segments": None}, {"version": None}, {"segments": ["text"]},
    ],
)  # fmt: skip
def test_what_is_no_ledger_is_refused(wrong: dict[str, Any]) -> None:
    """A stored ledger may come from anywhere: what it names must be there."""
    state = learned(Items.identified("ab")).state_dict()
    with pytest.raises(StateError, match="the ledger cannot be read"):
        Ledger().load_state_dict({**state, **wrong})
