"""The delta is exactly what happened to the data, and what the ledger keeps of it stays small."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onward.data.delta import Delta
from onward.data.items import Items
from onward.data.ledger import Ledger
from onward.data.order import derive_seed, permutation
from onward.data.segments import appended, marks_of, merge_marks, statuses_of
from onward.errors import DataError, NothingNew
from tests.data.ledgers import digests, keyed, learned, reloaded

Data = Mapping[str, int]


def lists(delta: Delta) -> tuple[list[int], list[int], list[int], set[bytes]]:
    removed = {bytes(digest) for digest in delta.removed}
    return delta.added.tolist(), delta.changed.tolist(), delta.known.tolist(), removed


def whole(data: Data) -> set[bytes]:
    found = keyed(data).digests
    assert found is not None
    return {bytes(digest) for digest in found}


def test_add_30_change_5_remove_2_is_exactly_that() -> None:
    """Renames, swaps, copies and moved items beside them are nothing."""
    before = {f"item {i}": i for i in range(100)}
    after = dict(before)
    for i in (10, 60):
        del after[f"item {i}"]
    for i in range(20, 25):
        after[f"item {i}"] = 1000 + i
    after["item 0"], after["item 1"] = 1, 0
    after["renamed"] = after.pop("item 50")
    after["item 51"], after["moved on"] = after.pop("item 52"), after.pop("item 51")
    after["a copy"] = 70
    after |= {f"new {i}": 2000 + i for i in range(30)}
    order = permutation(len(after), derive_seed(1, "order"))
    names = [list(after)[i] for i in order]
    delta = learned(keyed(before)).delta(keyed({name: after[name] for name in names}))
    assert {names[i] for i in delta.added} == {f"new {i}" for i in range(30)}
    assert {names[i] for i in delta.changed} == {f"item {i}" for i in range(20, 25)}
    assert {bytes(d) for d in delta.removed} == whole({"item 10": 10, "item 60": 60})
    assert len(delta.superseded) == 5
    assert len(delta.known) == len(after) - 35
    assert np.array_equal(delta.new, np.sort(delta.new))


def test_equal_data_is_an_empty_delta() -> None:
    """In any order, and under any names."""
    ledger = learned(keyed({"a": 1, "b": 2, "c": 3}))
    for data in ({"c": 3, "a": 1, "b": 2}, {"x": 1, "y": 2, "z": 3}, {"b": 1, "c": 2, "a": 3}):
        assert ledger.delta(keyed(data)).empty
    assert not ledger.delta(keyed({"a": 1, "b": 2})).empty


@dataclass
class Model:
    """A ledger of keyed items as anyone would write it who had all the time there is."""

    entries: list[tuple[str, int]] = field(default_factory=list)
    gone: set[int] = field(default_factory=set)

    def delta(self, data: Data) -> tuple[list[int], list[int], list[int], set[bytes]]:
        contents = {content for _, content in self.entries}
        keys = {key for key, _ in self.entries}
        added, changed, known = [], [], []
        for index, (key, content) in enumerate(data.items()):
            if content in contents:
                known.append(index)
            elif key in keys:
                changed.append(index)
            else:
                added.append(index)
        removed: set[bytes] = set()
        for number, (key, content) in enumerate(self.entries):
            if number in self.gone or key in data or content in data.values():
                continue
            removed |= whole({key: content})
        return added, changed, known, removed

    def learn(self, data: Data, met: set[int]) -> None:
        added, changed, _, _ = self.delta(data)
        present = set(data.values())
        for number, (_, content) in enumerate(self.entries):
            if content in present:
                self.gone.discard(number)
            else:
                self.gone.add(number)
        new = sorted(added + changed)
        self.entries += [list(data.items())[new[at]] for at in sorted(met) if at < len(new)]


datasets = st.dictionaries(
    st.sampled_from([f"key {i}" for i in range(8)]), st.integers(0, 11), min_size=1, max_size=8
)


@given(st.lists(st.tuples(datasets, st.none() | st.sets(st.integers(0, 8))), max_size=6))
def test_any_history_of_keyed_data_has_the_deltas_of_the_model(
    rounds: list[tuple[Data, set[int] | None]],
) -> None:
    """Adding, changing, renaming, swapping, copying, removing, bringing back, learning in part."""
    ledger, model = Ledger(), Model()
    for data, met in rounds:
        items = keyed(data)
        delta = ledger.delta(items)
        assert lists(delta) == model.delta(data)
        if not len(delta.new):
            continue
        ledger.pin(items)
        ledger = reloaded(ledger)
        pinned = ledger.pinned_items(items)
        assert pinned.new.tolist() == delta.new.tolist()
        replayed = [list(data.values())[i] for i in pinned.old]
        assert len(set(pinned.old.tolist())) == len(replayed)
        assert set(replayed) == {list(data.values())[i] for i in delta.known}
        met = set(range(len(delta.new))) if met is None else {m for m in met if m < len(delta.new)}
        ledger.learn_pinned(np.array(sorted(met), np.int64))
        model.learn(data, met)
        assert ledger.known == len(model.entries)
        learned_contents = {content for _, content in model.entries}
        probe = keyed({f"other {i}": i for i in range(12)})
        assert ledger.seen(probe).tolist() == [i in learned_contents for i in range(12)]


@given(datasets, datasets, datasets, st.integers(0, 255), st.booleans())
def test_an_unfinished_increment_meets_the_same_contents_in_the_same_order(
    before: Data, data: Data, more: Data, mask: int, again: bool
) -> None:
    """The resume law: whatever is added, copied or moved meanwhile, and whatever is held out."""
    ledger = learned(keyed(before))
    eligible = np.array([bool(mask >> i & 1) for i in range(len(data))])
    try:
        ledger.pin(keyed(data), eligible=eligible, again=again)
    except (NothingNew, DataError):
        return
    pinned = ledger.pinned_items(keyed(data))
    for index in np.concatenate([pinned.new, pinned.old]):
        content = list(data.values())[index]
        assert any(c == content and e for c, e in zip(data.values(), eligible, strict=True))
    assert ledger.pinned == len(pinned.new)
    assert again or not len(pinned.old) or set(pinned.old) <= set(ledger.delta(keyed(data)).known)
    grown = {f"copied {key}": content for key, content in (*more.items(), *data.items())}
    grown |= dict(reversed(data.items()))
    other = reloaded(ledger).pinned_items(keyed(grown))
    for now, then in ((other.new, pinned.new), (other.old, pinned.old)):
        contents = [list(data.values())[i] for i in then]
        assert [list(grown.values())[i] for i in now] == contents
    if not again:
        assert [list(grown)[i] for i in other.new] == [list(data)[i] for i in pinned.new]


@given(st.lists(st.sets(st.integers(0, 20), min_size=1), max_size=6))
def test_any_history_of_identified_data_has_the_deltas_of_sets(rounds: list[set[int]]) -> None:
    """What was in the data and is not any more is removed, once."""
    ledger, known, current = Ledger(), set[int](), set[int]()
    for round_ in rounds:
        ids = sorted(round_)
        items = Items.identified(ids)
        delta = ledger.delta(items)
        assert {ids[i] for i in delta.added} == round_ - known
        assert {ids[i] for i in delta.known} == round_ & known
        gone = Items.identified(sorted(current - round_)).digests
        assert gone is not None
        assert {bytes(d) for d in delta.removed} == {bytes(d) for d in gone}
        if not round_ <= known:
            ledger.pin(items)
            ledger.learn_pinned()
            ledger = reloaded(ledger)
            known, current = known | round_, round_
            assert ledger.withdrawn == len(known - round_)


@given(st.lists(st.integers(1, 50), max_size=60))
def test_segments_stay_few_and_keep_what_they_hold(sizes: list[int]) -> None:
    """Each is more than twice as long as the next; concatenated they are all there was."""
    segments: list[Any] = []
    total = 0
    for size in sizes:
        before = list(segments)
        segments = appended(segments, np.arange(total, total + size))
        total += size
        assert np.concatenate(segments).tolist() == list(range(total))
        lengths = [len(segment) for segment in segments]
        assert all(2 * later < earlier for earlier, later in pairwise(lengths))
        assert all(old is new for old, new in zip(before, segments[:-1], strict=False))
    assert len(segments) <= max(1, total.bit_length())


@given(st.lists(st.dictionaries(st.integers(0, 9), st.integers(0, 3)), max_size=12))
def test_the_last_mark_of_an_entry_counts(rounds: list[dict[int, int]]) -> None:
    segments: list[Any] = []
    model = [0] * 10
    for marks in rounds:
        numbers = np.array(sorted(marks), np.int64)
        statuses = np.array([marks[n] for n in sorted(marks)], np.uint8)
        segments = appended(segments, marks_of(numbers, statuses), merge=merge_marks)
        for number, status in marks.items():
            model[number] = status
        assert statuses_of(segments, 10).tolist() == model


def test_marks_beyond_a_billion_entries_take_eight_bytes() -> None:
    """The numbers of entries are not cut off."""
    assert marks_of(np.array([1 << 30]), np.array([2], np.uint8)).dtype == np.uint64
    assert marks_of(np.array([(1 << 30) - 1]), np.array([3], np.uint8)).dtype == np.uint32


@pytest.mark.parametrize("kind", ["identified", "keyed"])
def test_a_million_items_take_well_below_a_second(kind: Any) -> None:
    """Moved, with one in a hundred changed or new: the delta, and pinning it."""
    entries = digests("entries", 1_000_000)
    ledger = learned(Items(len(entries), entries, kind))
    present = entries[permutation(len(entries), 1)]
    fresh = digests("fresh", 20_000)
    present[:10_000] = fresh[:10_000]
    present[10_000:20_000, 8:] = fresh[10_000:, 8:]
    items = Items(len(present), present, kind)
    spent = []
    for _ in range(3):
        began = time.process_time()
        delta = ledger.delta(items)
        spent.append(time.process_time() - began)
    assert (len(delta.added), len(delta.changed), len(delta.removed)) == (
        (10_000, 10_000, 10_000) if kind == "keyed" else (20_000, 0, 20_000)
    )
    print(f"{kind}: delta {min(spent):.3f} s")
    assert min(spent) < 1.0
    ledger.pin(items)
    assert len(ledger.pinned_items(items).new) == 20_000
