"""Content has one canonical form: equal content is one item, other content another."""

from __future__ import annotations

import enum
import math
import struct
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onward.data.content import canonical, digest_of_content, identify, with_occurrences
from onward.data.items import digest_of_id
from onward.errors import DataError

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=[]))
    | st.binary()
    | st.decimals(allow_nan=False)
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner)
)


class Colour(enum.IntEnum):
    RED = 1


class Point(NamedTuple):
    x: int
    y: int


def read_back(form: bytes) -> tuple[Any, bytes]:
    """The value that a form begins with, and what is behind it: a form says all there is to it."""
    kind, form = form[:1], form[1:]
    if kind in b"ntf":
        return {b"n": None, b"t": True, b"f": False}[kind], form
    if kind == b"i":
        digits, _, form = form.partition(b";")
        return int(digits, 16), form
    if kind == b"d":
        return struct.unpack("<d", form[:8])[0], form[8:]
    if kind == b"x":
        text, form = read_back(form)
        return Decimal(text), form
    size, _, form = form.partition(b":")
    count = int(size)
    if kind == b"s":
        return form[:count].decode("utf-8", "surrogatepass"), form[count:]
    if kind == b"b":
        return form[:count], form[count:]
    values = []
    for _ in range(count * (2 if kind == b"m" else 1)):
        value, form = read_back(form)
        values.append(value)
    if kind == b"m":
        return dict(zip(values[::2], values[1::2], strict=True)), form
    return values, form


def written(value: Any) -> str:
    """`value` as Python writes it, but for the order of entries."""
    if isinstance(value, dict):
        return str(sorted((repr(key), written(item)) for key, item in value.items()))
    return str([*map(written, value)]) if isinstance(value, list) else repr(value)


@settings(deadline=None, max_examples=50)
@given(VALUES)
def test_a_form_tells_the_value_and_nothing_is_behind_it(value: Any) -> None:
    """No two values have one form, because the value can be read back; type and sign included."""
    back, rest = read_back(canonical(value))
    assert rest == b""
    assert written(back) == written(value)
    assert canonical(back) == canonical(value)


def test_forms_are_what_the_table_says() -> None:
    """Ledgers outlive releases: a form may never change."""
    value = {"b": [1, -2.5, None], "a": (True, False, b"\x00", "é"), 3: Decimal("1.50")}
    assert canonical(value) == (
        b"m3:i3;xs4:1.50s1:al4:tfb1:\x00s2:\xc3\xa9s1:bl3:i1;d\x00\x00\x00\x00\x00\x00\x04\xc0n"
    )
    assert canonical(np.array([[1, 2]], ">i2")) == b"as9:<i2[1, 2]\x01\x00\x02\x00"
    assert canonical(np.float32(1.5)) == b"as5:<f4[]\x00\x00\xc0\x3f"
    assert digest_of_content(b"n").hex() == "a74e0b1433b54b7a33bfe58e60093239"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ((1, 2), [1, 2]),
        (Point(1, 2), [1, 2]),
        (float("nan"), -float("nan")),
        (np.array([math.nan, 1.0]), np.array([-math.nan, 1.0])),
        (np.arange(6).reshape(2, 3).T.copy(), np.arange(6).reshape(2, 3).T),
        (np.arange(3, dtype="<i4"), np.arange(3, dtype=">i4")),
        (np.str_("x"), "x"),
        (Colour.RED, 1),
        (np.array(["x", "y"]), np.array(["x", "y"], object)),
    ],
)
def test_equal_content_has_one_form(one: Any, other: Any) -> None:
    """Layout, order of keys and kinds of NaN do not matter."""
    assert canonical(one) == canonical(other)


def test_other_content_has_another_form() -> None:
    """Types, shapes, dtypes and borders matter."""
    values: list[Any] = [
        1, 1.0, "1", b"1", True, -1, 0.0, -0.0, None, 10**5000, math.inf, [], {}, "", b"",
        [[], []], [[[]]], ["ab"], ["a", "b"], {"a": {"b": 1}}, {"a": 1, "b": 1}, {1: 1}, {"1": 1},
        np.int64(1), np.int32(1), np.float32(1), np.array([1]), np.array([[1]]), np.array([]),
        np.zeros((0, 2)), np.zeros((2, 0)), np.array([1], bool), np.datetime64(1, "s"),
        np.datetime64(1, "ms"), Decimal(1), Decimal("1.0"), np.array(["1"]), np.array([1j]),
    ]  # fmt: skip
    assert len({canonical(value) for value in values}) == len(values)


def test_tensors_are_arrays() -> None:
    """Of any framework: those of torch stand for them here."""
    torch = pytest.importorskip("torch")
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    tensor = torch.from_numpy(array.copy()).requires_grad_()
    assert canonical(tensor) == canonical(array)
    half = torch.ones(2, dtype=torch.bfloat16)
    assert canonical(half) == canonical(half.clone()) != canonical(half.float())
    with pytest.raises(DataError, match=r"the value\['x'\] is a torch.Tensor that cannot be an"):
        canonical({"x": torch.ones(2).to_sparse()})


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"a": [1, object()]}, r"the value\['a'\]\[1\] is a builtins.object"),
        ([{1, 2}], r"the value\[0\] is a builtins.set"),
        ((1, lambda: 0), r"the value\[1\] is a builtins.function"),
        (np.array([object()]), r"the value\[0\] is a builtins.object"),
        (np.zeros(1, [("x", int)]), "NumPy array of "),
        (np.ma.masked_array([1], [True]), "masked array"),
        (np.zeros(1, np.longdouble), "NumPy array of "),
        ({("a", object): 1}, r"key \('a', <class 'object'>\)\[1\]"),
    ],
)
def test_what_has_no_form_is_named_by_its_path(value: Any, path: str) -> None:
    """Never its address in memory, which would make every item new each time."""
    with pytest.raises(DataError, match=path):
        canonical(value)


def test_a_structure_that_contains_itself_is_an_error() -> None:
    """Rather than the end of the process."""
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(DataError, match="contains itself"):
        canonical(circle)


def test_datasets_are_identified_in_four_ways() -> None:
    """By content, by given ids, by a function, or by counting."""
    dataset = [("a", 1), ("b", 2)]
    assert identify(dataset, None).kind == "counted"
    assert identify(dataset, None).count == 2
    by_content, given_ids = identify(dataset, "content"), identify(dataset, ["x", "y"])
    assert by_content.kind == given_ids.kind == "identified"
    assert by_content.digests is not None
    assert given_ids.digests is not None
    assert by_content.digests[1].tobytes() == digest_of_content(canonical(("b", 2)))
    assert given_ids.digests[1].tobytes() == digest_of_id("y", 1)
    called = identify(dataset, lambda index: "xy"[index])
    assert called.digests is not None
    assert called.digests.tobytes() == given_ids.digests.tobytes()
    assert identify(dataset, np.array([7, 8])).count == 2


def test_equal_items_are_items_of_their_own() -> None:
    """The n-th of equal ones is the n-th again, wherever it lies and whatever is between."""
    once, more = identify(["x", "y"], "content"), identify(["y", "x", "z", "x", "x"], "content")
    assert once.digests is not None
    assert more.digests is not None
    known = {row.tobytes() for row in once.digests}
    assert [row.tobytes() in known for row in more.digests] == [True, True, False, False, False]
    assert len({row.tobytes() for row in more.digests}) == 5


@given(st.lists(st.integers(0, 5)))
def test_occurrences_depend_on_what_is_equal_only(values: list[int]) -> None:
    """Each (value, n-th) has one digest, the first that of the value itself."""
    plain = [digest_of_content(bytes([value])) for value in values]
    digests = np.frombuffer(b"".join(plain), np.uint8).reshape(-1, 16)
    seen: dict[tuple[int, int], bytes] = {}
    own = [row.tobytes() for row in with_occurrences(digests)]
    for index, value in enumerate(values):
        nth = values[:index].count(value)
        seen[value, nth] = own[index]
        assert (own[index] == plain[index]) == (nth == 0)
    assert len(set(own)) == len(values) == len(seen)
    again = with_occurrences(digests[::-1])
    assert {row.tobytes() for row in again} == set(own)


def test_a_dataset_that_augments_cannot_be_known_by_content() -> None:
    """All of it would be new every time."""

    class Noisy:
        count = 0

        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> int:
            self.count += 1
            return self.count

    with pytest.raises(DataError, match="another content each time"):
        identify(Noisy(), "content")


@pytest.mark.parametrize(
    ("dataset", "ids", "message"),
    [
        ([], None, "the data is empty"),
        (iter([1]), None, "has no length"),
        ([1, 2], ["a"], "has 2 items, but 1 ids are given"),
        ([1, 2], ["a", "a"], "have an id that another item has: 'a'"),
        ([1, 2], "path", "ids is 'path'"),
        ([1, object()], "content", "item 1 is a builtins.object"),
    ],
)
def test_bad_datasets_and_ids_are_errors(dataset: Any, ids: Any, message: str) -> None:
    """Each says what is wrong with which."""
    with pytest.raises(DataError, match=message):
        identify(dataset, ids)
