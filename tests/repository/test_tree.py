"""The state tree: what can be stored reads back the same, bit for bit and type for type."""

from __future__ import annotations

import enum
import json
import math
import re
import signal
import struct
from collections import OrderedDict, defaultdict, namedtuple
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onward.errors import Unstorable
from onward.frameworks.base import Tagged, TensorLeaf
from onward.repository import description, read_state
from onward.repository.documents import MAX_DEPTH, from_bytes, to_bytes
from onward.repository.tree import decode, encode
from onward.stores import MemoryStore
from tests.repository.outputs import facts, leaf, new_output, plain, scaled


class Phase(enum.Enum):
    WARM = "warm"
    COLD = ("cold", 2)
    ALSO_WARM = "warm"  # noqa: PIE796


class Level(enum.IntEnum):
    LOW = 1


class Word(enum.StrEnum):
    HELLO = "hello"


class Outer:
    class Inner(enum.Enum):
        DEEP = None


def _back(tree: Any) -> Any:
    """The tree after it was a document: every leaf comes back as it was."""
    leaves: list[TensorLeaf] = []

    def index(path: str, found: TensorLeaf) -> int:
        leaves.append(found)
        return len(leaves) - 1

    data = to_bytes({"format": 1, "state": encode(tree, index)})
    return decode(from_bytes(data, name="tree", max_bytes=1 << 26)["state"], leaves.__getitem__)


# --- what is stored

_texts = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(
    ["$", "$tensor", "$$", "", "\0", "\u2028", '"\\', "é\U0001f600", "a" * 3000]
)
_integers = (
    st.integers()
    | st.integers(-(2**70), 2**70)
    | st.sampled_from([2**53 - 1, 2**53, -(2**53), 2**63, 2**64, 10**4000, -(10**4299)])
)
_bits = st.integers(0, 2**64 - 1).map(lambda bits: struct.unpack(">d", struct.pack(">Q", bits))[0])
_floats = (
    st.floats() | _bits | st.sampled_from([-0.0, 5e-324, 1e308, 1e22, 0.1, math.inf, -math.inf])
)
_NUMPY = ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "c8", "c16",
          ">i4", ">f8"]  # fmt: skip


@st.composite
def _numpy_scalars(draw: st.DrawFn) -> Any:
    dtype = np.dtype(draw(st.sampled_from(_NUMPY)))
    data = draw(st.binary(min_size=dtype.itemsize, max_size=dtype.itemsize))
    if dtype.kind == "b":
        data = bytes([data[0] & 1])
    return np.frombuffer(data, dtype)[0]


_enums = st.sampled_from(
    [Phase.WARM, Phase.COLD, Phase.ALSO_WARM, Level.LOW, Word.HELLO, Outer.Inner.DEEP,
     signal.Signals.SIGTERM]
)  # fmt: skip
_scalars = (
    st.none() | st.booleans() | _integers | _floats | _texts | st.binary(max_size=20)
    | st.complex_numbers() | st.builds(complex, _bits, _bits) | _numpy_scalars() | _enums
)  # fmt: skip
_keys = st.recursive(
    st.none() | st.booleans() | _integers | _texts | st.binary(max_size=5) | _enums
    | st.floats(allow_nan=False) | st.builds(Tagged, _texts, _integers),
    lambda children: st.lists(children, max_size=3).map(tuple)
    | st.frozensets(children, max_size=3),
    max_leaves=4,
)  # fmt: skip
_tensors = st.sampled_from(["float32", "int64", "bool", "complex128"]).flatmap(
    lambda dtype: st.lists(st.integers(0, 3), max_size=3).map(lambda s: leaf(np.ones(s, dtype)))
)
_trees = st.recursive(
    _scalars | _tensors,
    lambda children: (
        st.lists(children, max_size=4)
        | st.lists(children, max_size=4).map(tuple)
        | st.sets(_keys, max_size=4)
        | st.frozensets(_keys, max_size=4)
        | st.dictionaries(_texts, children, max_size=4)
        | st.dictionaries(_keys, children, max_size=4)
        | st.builds(Tagged, _texts, children)
    ),
    max_leaves=12,
)


@settings(max_examples=scaled(300, 20_000), deadline=None, derandomize=True)
@given(_trees)
def test_round_trip(tree: Any) -> None:
    """Types, bits of floats, order of keys, tensors: all as they were."""
    assert plain(_back(tree)) == plain(tree)


@settings(max_examples=scaled(30, 1000), deadline=None, derandomize=True)
@given(_trees)
def test_round_trip_through_an_output(tree: Any) -> None:
    """The same by way of a checkpoint; a description says everything but the tensors' bytes."""
    store = MemoryStore()
    repository = new_output(store)
    manifest = repository.manifest(repository.claim("writer").commit(tree, facts(1)))
    assert plain(read_state(store, manifest)) == plain(tree)
    assert plain(description(manifest)) == _without_data(plain(tree))


def _without_data(value: Any) -> Any:
    if isinstance(value, tuple) and value[:1] == ("tensor",):
        return (*value[:-1], None)
    if isinstance(value, tuple | list):
        return type(value)(_without_data(child) for child in value)
    return value


@pytest.mark.parametrize(
    "bits",
    ["7ff8000000000001", "fff8000000000000", "7ff0000000000001", "ffffffffffffffff",
     "8000000000000000", "0000000000000001"],
)  # fmt: skip
def test_bits_of_floats(bits: str) -> None:
    """The payload and sign of a NaN, a signalling one, minus zero, the smallest of all."""
    value = struct.unpack(">d", bytes.fromhex(bits))[0]
    assert struct.pack(">d", _back(value)).hex() == bits
    both = _back([complex(value, 0.0), complex(0.0, value)])
    assert [struct.pack(">d", both[0].real).hex(), struct.pack(">d", both[1].imag).hex()] == [
        bits
    ] * 2
    assert struct.pack(">d", float(_back({"x": np.float64(value)})["x"])).hex() == bits


def test_relatives_of_containers() -> None:
    """They come back as the plain containers that they equal."""
    point = namedtuple("point", "x y")
    for tree, expected in [
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (defaultdict(list, {"a": [1]}), {"a": [1]}),
        (MappingProxyType({1: 2}), {1: 2}),
        (point(1, 2), (1, 2)),
        (bytearray(b"ab"), b"ab"),
    ]:
        found = _back(tree)
        assert found == expected
        assert type(found) is type(expected)
    assert list(_back(OrderedDict(b=1, a=2))) == ["b", "a"]


def test_relatives_of_scalars() -> None:
    """A subclass's own way to show itself does not change its value."""

    class Loud(str):
        __slots__ = ()

        def __str__(self) -> str:
            return "LOUD"

    class Half(int):
        def __repr__(self) -> str:
            return "half"

    assert _back([Loud("quiet"), Half(3), Half(2**60)]) == ["quiet", 3, 2**60]
    assert _back({Loud("key"): 1}) == {"key": 1}


def test_keys_that_look_like_entries() -> None:
    """A state whose own keys begin with `$` is not mistaken for the format's."""
    for tree in (
        {"$tensor": 0},
        {"$": 1, "a": 2},
        {"$dict": [[1, 2]]},
        {"a": {"$enum": ["os:x", "y"]}},
    ):
        assert _back(tree) == tree


def test_equal_sets_are_stored_alike() -> None:
    """The order in which a set was filled does not show: equal states have equal documents."""
    numbers = [5, "a", None, (1, 2), 1.5, b"x"]
    stored = {
        json.dumps(encode(set(numbers[n:] + numbers[:n]), lambda *_: 0))
        for n in range(len(numbers))
    }
    assert len(stored) == 1


# --- what cannot be stored

_local = enum.Enum("_local", "A")  # its name is right, and its module is this


def _made_here() -> Any:
    class Hidden(enum.Enum):
        A = 1

    return Hidden.A


_misnamed = enum.Enum("AnotherName", "A")
_cycle: list[Any] = []
_cycle.append(_cycle)
_dict_cycle: dict[Any, Any] = {}
_dict_cycle[1] = _dict_cycle


@pytest.mark.parametrize(
    ("tree", "says"),
    [
        ({"model": {"hook": print}}, "model/hook is a builtins.builtin_function_or_method"),
        ({"a": [1, object()]}, "a/[1] is a builtins.object"),
        ({"a": {3: {(1, 2): lambda: 0}}}, "a/[3]/[(1, 2)] is a builtins.function"),
        (re.compile("x"), "the state is a re.Pattern"),
        ({"a": np.zeros(3)}, "a is a numpy.ndarray"),
        ({"a": range(3)}, "a is a builtins.range"),
        ({"a": iter(())}, "a is a builtins.tuple_iterator"),
        ({"a": memoryview(b"")}, "a is a builtins.memoryview"),
        ({"a": np.longdouble(1)}, "a is a NumPy"),
        ({"a": np.str_("text")}, "a is a NumPy <U4 scalar"),
        ({"a": np.datetime64("2026-01-01")}, "a is a NumPy datetime64[D] scalar"),
        ({"a": "half \ud800"}, "a is text that UTF-8 cannot hold"),
        ({"model": {"\udfff": 1}}, "model is text that UTF-8 cannot hold"),
        ({"a": 10**4300}, "a is an integer of more than 4,300 digits"),
        ({"a": -(1 << 1_000_000)}, "a is an integer of more than 4,300 digits"),
        ({"a": _made_here()}, "a is <Hidden.A: 1>, which could not be found again"),
        ({"a": _misnamed.A}, "which could not be found again"),
        ({"a": re.IGNORECASE | re.DOTALL}, "which could not be found again"),
        ({"a": {leaf([1]): 1}}, "a has a tensor as a key"),
        ({"a": {leaf([1])}}, "a has a tensor as a key or in a set"),
        ({"a": {(1, leaf([1])): 1}}, "a has a tensor as a key"),
        (_cycle, "is nested too deeply"),
        (_dict_cycle, "is nested too deeply"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_stored(tree: Any, says: str) -> None:
    """It is named by its path, with what to do, and nothing is written."""
    with pytest.raises(Unstorable) as caught:
        encode(tree, lambda path, found: 0)
    assert says in str(caught.value)
    store = MemoryStore()
    writer = new_output(store).claim("writer")
    before = [entry.key for entry in store.list("")]
    with pytest.raises(Unstorable):
        writer.commit(tree, facts(1))
    assert [entry.key for entry in store.list("")] == before


def test_enum_in_a_module_is_stored() -> None:
    """The counterpart of those that are not: it is found again by its name."""
    assert _back([_local.A, re.IGNORECASE]) == [_local.A, re.IGNORECASE]


_WRAPPERS: dict[str, Any] = {
    "list": lambda tree: [tree],
    "dict": lambda tree: {"k": tree},
    "tuple": lambda tree: (tree,),
    "frozenset": lambda tree: frozenset([tree]),
    "int-keyed": lambda tree: {1: tree},
    "tagged": lambda tree: Tagged("t", tree),
}


@pytest.mark.parametrize("innermost", [1, 2**60, math.nan, complex(math.nan, 1), b"x", np.int8(1),
                                       Phase.COLD, ()], ids=repr)  # fmt: skip
@pytest.mark.parametrize("wrap", _WRAPPERS.values(), ids=_WRAPPERS)
def test_depth(wrap: Any, innermost: Any) -> None:
    """What is nested as deeply as may be stored can be read; one level more is `Unstorable`."""
    store = MemoryStore()
    repository = new_output(store)
    writer = repository.claim("writer")
    trees = [wrap(innermost)]

    def save_deeper_and_deeper() -> None:
        for level in range(MAX_DEPTH):
            commit = writer.commit(trees[-1], facts(level))
            assert plain(read_state(store, repository.manifest(commit))) == plain(trees[-1])
            trees.append(wrap(trees[-1]))

    with pytest.raises(Unstorable, match="nested too deeply"):
        save_deeper_and_deeper()
    assert len(trees) > 15


# --- tensors


def test_tied_tensors() -> None:
    """Leaves that share memory are stored once and come back so; equal ones share only bytes."""
    store = MemoryStore()
    repository = new_output(store)
    values = np.arange(1000, dtype=np.float64)
    tree = {
        "a": leaf(values, identity="same"),
        "b": leaf(values, identity="same"),
        "c": leaf(values, identity="other"),
        "d": leaf(values),
    }
    commit = repository.claim("writer").commit(tree, facts(1))
    manifest = repository.manifest(commit)
    assert len(manifest.tensors) == 3
    assert 8000 <= commit.stored < 9000
    found = read_state(store, manifest)
    assert plain(found) == plain(tree)
    identities = [found[name].identity for name in "abcd"]
    assert identities[0] == identities[1]
    assert len(set(identities)) == 3


def test_leaves_that_share_memory_but_not_form() -> None:
    """A view of another shape, dtype or framework is another tensor."""
    store = MemoryStore()
    repository = new_output(store)
    data = np.arange(24, dtype=np.uint8)
    tree = {
        "bytes": TensorLeaf("U8", (24,), "numpy", data, identity=1),
        "table": TensorLeaf("U8", (4, 6), "numpy", data, identity=1),
        "numbers": TensorLeaf("F64", (3,), "numpy", data, identity=1),
        "torch": TensorLeaf("U8", (24,), "torch", data, identity=1),
    }
    manifest = repository.manifest(repository.claim("writer").commit(tree, facts(1)))
    assert plain(read_state(store, manifest)) == plain(tree)


def test_tensors_of_no_elements_and_of_one() -> None:
    """Empty ones have no bytes; one without dimensions has."""
    store = MemoryStore()
    repository = new_output(store)
    tree = {
        "empty": leaf(np.zeros((0, 5), np.float32)),
        "empty-too": leaf(np.zeros((5, 0), np.float32)),
        "scalar": leaf(np.float64(2.5)),
        "one": leaf(np.ones((1,) * 30, np.int8)),
    }
    manifest = repository.manifest(repository.claim("writer").commit(tree, facts(1)))
    assert plain(read_state(store, manifest)) == plain(tree)
    assert [len(tensor.parts) for tensor in manifest.tensors] == [0, 0, 1, 1]


def test_tensor_of_too_many_dimensions() -> None:
    """It is refused when it is saved, not when it is read."""
    writer = new_output(MemoryStore()).claim("writer")
    with pytest.raises(Unstorable, match="cannot be stored"):
        writer.commit({"a": leaf(np.ones((1,) * 31, np.int8))}, facts(1))
