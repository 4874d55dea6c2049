"""Names of rows: their order is for good, whatever they are called."""

from __future__ import annotations

import copy
import time
from typing import Any

import numpy as np
import pytest
import torch

from onward.errors import DataError, NewerFormat, StateError, UnknownLabel, UsageError
from onward.frameworks.torch_tensors import freeze, thaw
from onward.learning.names import Names
from tests.frameworks.torch_training import through_an_output

HOSTILE = [
    "", " ", "a\x00b", "\x00", "é", "e\u0301", "\ud800", "\udcff", "🦊" * 3, "\n", "7", 7, -7, "-7",
    "x" * 5000, "ff", 255, 1 << 63, -(1 << 70), 1 << 20_000, "$tensor", "a/b.c", "None", "\u202e",
]  # fmt: skip


def through_a_checkpoint(names: Names) -> Names:
    tree = through_an_output({"names": freeze(names.state_dict(), "names")}, {})
    read = Names(["something", "else"])
    read.load_state_dict(thaw(tree["names"]))
    return read


def test_rows_are_those_of_first_appearance() -> None:
    """A name given twice counts once; 7, "7" and NumPy's 7 are two names, not three."""
    names = Names(["b", "a", "b", 7, np.int32(7), "7", np.str_("a")])
    assert list(names) == ["b", "a", 7, "7"]
    assert [type(name) for name in names] == [str, str, int, str]
    assert (names[0], names[-1], len(names)) == ("b", "7", 4)
    assert names.row(np.int64(7)) == 2
    assert ("7" in names, 7 in names, np.uint8(7) in names, 8 in names) == (True, True, True, False)
    assert (True in Names([1]), 1.0 in Names([1]), None in names) == (False, False, False)
    with pytest.raises(IndexError):
        names[4]


@pytest.mark.parametrize(
    "wanted", [[30, 10], (30, 10), np.array([30, 10], np.uint8), torch.tensor([30, 10]),
               iter([30, 10]), [np.int16(30), torch.tensor(10)]],
)  # fmt: skip
def test_rows_of_lists_arrays_and_tensors(wanted: Any) -> None:
    """int64, in the order that was asked for."""
    rows = Names([10, 20, 30]).rows(wanted)
    assert rows.dtype == np.int64
    assert rows.tolist() == [2, 0]


def test_rows_keep_the_shape_of_what_is_asked() -> None:
    """Histories of items are rows of rows; nothing asked is nothing."""
    names = Names(range(100, 110))
    for asked in (np.arange(100, 106).reshape(2, 3), torch.arange(100, 106).reshape(2, 3)):
        assert names.rows(asked).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert names.rows([]).tolist() == []
    assert names.row(np.array(103)) == 3


def test_unknown_names_are_a_typed_error() -> None:
    """It names up to five, says what to do, and tells 7 from "7"."""
    names = Names(["a", 7])
    with pytest.raises(UnknownLabel) as caught:
        names.rows([*"abcdefgh", "b"])
    assert isinstance(caught.value, DataError)
    text = str(caught.value)
    assert "'b', 'c', 'd', 'e', 'f' … and 2 more have no row among 2 names" in text
    assert "onward.names" in text
    with pytest.raises(UnknownLabel, match="as a number, not as text"):
        names.row("7")
    with pytest.raises(UnknownLabel, match="as text, not as a number"):
        Names(["7"]).row(7)
    for name in HOSTILE:
        with pytest.raises(UnknownLabel) as caught:
            Names().row(name)
        assert str(caught.value).isprintable() or "\n" in str(caught.value)
        assert "\x00" not in str(caught.value)
        assert "\u202e" not in str(caught.value)
        assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "bad", [1.0, float("nan"), None, True, np.True_, b"a", (1,), [1], object()]
)
def test_what_is_no_name_is_refused(bad: Any) -> None:
    """1.0 and True equal 1 in Python, and would take its row."""
    names = Names([1])
    for call in (names.row, lambda name: names.rows(["a", name]), lambda name: Names([name])):
        with pytest.raises((UsageError, UnknownLabel)) as caught:
            call(bad)
        assert type(caught.value) is UsageError
    assert len(names) == 1


def test_one_text_is_not_a_list_of_letters() -> None:
    """`rows("cat")` is a mistake, not three names."""
    with pytest.raises(UsageError, match="one name"):
        Names("cat")
    with pytest.raises(UsageError, match="one name"):
        Names(["c"]).rows("cat")


@pytest.mark.parametrize(
    "names",
    [[], [3, 1, 2], ["b", "a"], [0], HOSTILE, [1, "1"], [-(1 << 63), (1 << 63) - 1], [1 << 63]],
)  # fmt: skip
def test_names_come_back_from_a_checkpoint_as_they_were(names: list[Any]) -> None:
    """Every text that Python can hold, and every number, in order and of its kind."""
    before = Names(names)
    after = through_a_checkpoint(before)
    assert list(after) == names
    assert [type(name) for name in after] == [type(name) for name in names]
    assert after.rows(names).tolist() == list(range(len(names)))
    after.add([*names, "new"])
    assert list(after) == [*names, "new"]
    assert list(through_a_checkpoint(after)) == [*names, "new"]
    assert list(copy.deepcopy(before)) == names  # as the workers of a loader get it


def test_its_state_stays_the_same_array_until_it_grows() -> None:
    """So that saving unchanged names costs nothing."""
    names = Names(["a", "b"])
    first = names.state_dict()
    assert names.state_dict()["text"] is first["text"]
    with pytest.raises(ValueError, match="read-only"):
        first["text"][0] = 0
    names.add(["c"])
    assert names.state_dict()["ends"].tolist() == [1, 2, 3]
    assert first["ends"].tolist() == [1, 2]


def test_states_that_are_none_are_refused() -> None:
    """Newer versions politely, nonsense with a reason; the names stay what they were."""
    good = Names(["a", "b"]).state_dict()
    names = Names([5])
    with pytest.raises(NewerFormat):
        names.load_state_dict({**good, "version": 2})
    bad: list[Any] = [
        {}, None, {"version": 1}, {**good, "count": 3}, {**good, "ends": np.array([2, 1])},
        {**good, "ends": np.array([1, 9])}, {**good, "text": "ab"}, {**good, "ends": good["text"]},
        {**good, "text": np.array([0xFF, 0xFF], np.uint8)}, {**good, "ends": np.array([-1, 2])},
        {"version": 1, "count": 2, "numbers": np.array([1, 1])},
        {"version": 1, "count": 1, "numbers": np.array([1.5])},
        {**good, "whole": np.array([1, 1], np.uint8), "text": np.frombuffer(b"zz", np.uint8)},
        {**good, "whole": np.array([0, 0, 1], np.uint8)},
    ]  # fmt: skip
    for state in bad:
        with pytest.raises(StateError):
            names.load_state_dict(state)
    assert list(names) == [5]


@pytest.mark.parametrize("kind", ["numbers", "text", "mixed"])
def test_a_million_names_take_no_time(kind: str) -> None:
    """Made, looked up, stored and read back in less than 2 s, and stored compactly."""
    ids: Any = np.arange(1_000_000, dtype=np.int64) * 7919
    if kind == "text":
        ids = [f"user-{number:x}" for number in ids.tolist()]
    elif kind == "mixed":
        ids = [n if n % 2 else f"user-{n:x}" for n in ids.tolist()]
    took = []
    for _try in range(3):  # the machine may be doing something else
        began = time.process_time()
        names = Names(ids)
        rows = names.rows(ids)
        state = names.state_dict()
        after = Names()
        after.load_state_dict(state)
        took.append(time.process_time() - began)
        if took[-1] < 2.0:
            break
    assert np.array_equal(rows, np.arange(1_000_000))
    assert after.row(ids[-1]) == 999_999
    stored = sum(value.nbytes for value in state.values() if isinstance(value, np.ndarray))
    assert stored < 25_000_000
    assert min(took) < 2.0
