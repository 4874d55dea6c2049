"""Values of every kind survive the way through a state tree bit for bit, or are refused by name."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from onward.errors import StateError, Unstorable
from onward.frameworks import torch as framework
from onward.frameworks.base import Tagged, TensorLeaf
from onward.frameworks.torch_tensors import freeze, moved_like, thaw
from tests.frameworks.torch_training import (
    Remembers,
    same,
    through_bytes,
)


def test_tied_weights_have_one_identity_and_equal_ones_have_two() -> None:
    """Shared memory is stored once; equal values in two places are two tensors."""
    model = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3), "c": nn.Linear(3, 3)})
    model["b"].weight = model["a"].weight
    model["c"].load_state_dict(model["a"].state_dict())
    tree = framework.capture({"model": model})["model"]
    assert tree["a.weight"].identity == tree["b.weight"].identity
    assert tree["a.weight"].identity != tree["c.weight"].identity
    assert tree["a.weight"].identity != tree["a.bias"].identity


def test_values_of_every_kind_come_back_as_they_were() -> None:
    """Types and bits of everything that a state may hold, tensors of every dtype included."""
    ints = torch.arange(-4, 4)
    state = {
        "plain": [None, True, 3, -0.0, float("inf"), 2 + 1j, "text", b"bytes", (1, (2,))],
        7: {("a", 1): np.float32(0.1), np.int64(3): np.bool_(True)},
        "dtype": torch.bfloat16,
        "device": torch.device("cpu"),
        "size": torch.Size([2, 3]),
        "counter": Counter("abca"),
        "default": defaultdict(list, {"a": [1]}),
        "deque": deque([1, 2], maxlen=3),
        "set": {1, "a"},
        "tensors": {
            str(dtype): ints.to(dtype)
            for dtype in (
                torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
                torch.uint16, torch.uint32, torch.uint64, torch.float16, torch.bfloat16,
                torch.float32, torch.float64, torch.complex64, torch.complex128,
                torch.float8_e4m3fn, torch.float8_e5m2,
            )
        },
        "scalar": torch.tensor(1.5),
        "empty": torch.empty(0, 3),
        "nan": torch.tensor([float("nan"), -0.0]),
        "transposed": torch.arange(6).reshape(2, 3).t(),
        "expanded": torch.tensor([1.0]).expand(3),
        "conjugated": torch.tensor([1 + 2j]).conj(),
        "negated": torch.tensor([1 + 2j]).conj().imag,
        "needs grad": torch.ones(2, requires_grad=True),
        "arrays": {
            str(np.dtype(kind)): np.arange(3).astype(kind)
            for kind in ("?", "u1", "i2", "<u4", "i8", "f2", "f4", "f8", "c8", "c16")
        },
        "big-endian": np.arange(3, dtype=">i4"),
        "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "no dimensions": np.array(3.5),
    }  # fmt: skip
    other = Remembers()
    tree = through_bytes(framework.capture({"mine": Remembers(state)}))
    framework.restore({"mine": other}, tree)
    back = other.state
    assert same(framework.capture({"mine": other}), tree)
    for name in ("plain", 7, "dtype", "device", "size", "counter", "default", "deque", "set"):
        assert back[name] == state[name]
        assert type(back[name]) is type(state[name])
    for name in ("transposed", "expanded", "conjugated", "negated", "scalar", "empty"):
        assert torch.equal(back[name], state[name])
    assert back["default"].default_factory is list
    assert back["deque"].maxlen == 3
    assert not back["needs grad"].requires_grad
    for name in ("big-endian", "fortran", "no dimensions"):
        assert np.array_equal(back[name], state[name])
    back["scalar"].add_(1)  # its own memory, free to be written
    back["no dimensions"][...] = 1


def test_leaves_share_memory_with_live_tensors() -> None:
    """Capturing host tensors copies nothing."""
    model = nn.Linear(3, 3)
    leaf = framework.capture({"model": model})["model"]["weight"]
    with torch.no_grad():
        model.weight.fill_(2)
    assert leaf.data.view(np.float32).tolist() == [2.0] * 9


class Pair(NamedTuple):
    a: int


def circle() -> list[Any]:
    a: list[Any] = [1]
    a.append({"again": a})
    return a


@pytest.mark.parametrize(
    ("state", "path"),
    [
        ({"lr_lambdas": [lambda step: step]}, "mine.lr_lambdas[0] is a function"),
        ({"a": {3: object()}}, "mine.a[3] is a builtins.object"),
        ({"a": torch.eye(2).to_sparse()}, "mine.a is sparse"),
        ({"a": torch.empty(2, device="meta")}, "mine.a is on the meta device"),
        ({"a": np.array(["x"])}, "mine.a is a NumPy ndarray of <U1"),
        ({"a": np.ma.masked_array([1], [True])}, "mine.a is a NumPy MaskedArray"),
        ({"a": (1, Pair(3))}, "mine.a[1] is the named tuple Pair"),
        ({"a": {torch.tensor(1): 2}}, "mine.a has the key tensor(1)"),
        ({"a": {object}}, "mine.a has the key <class 'object'>"),
        (circle(), "mine[1].again contains itself"),
        ({"a": defaultdict(lambda: 3)}, "mine.a is a defaultdict"),
        ({"a": nn.UninitializedParameter()}, "mine.a has no shape yet"),
        ({"a": Remembers()}, "mine.a is a "),
    ],
)
def test_what_cannot_be_stored_is_named_by_its_path(state: Any, path: str) -> None:
    """`Unstorable` says where the thing is and what to do."""
    with pytest.raises(Unstorable) as caught:
        framework.capture({"mine": Remembers(state)})
    assert caught.value.what.startswith(path)
    assert caught.value.do


@pytest.mark.parametrize("thing", [nn.functional.relu, None, Remembers, {"a": 1}])
def test_an_object_without_state_is_named_by_its_keyword(thing: Any) -> None:
    """What is neither PyTorch's nor `Stateful` is refused, never skipped."""
    for verb in (framework.capture, lambda objects: framework.differences(objects, {"loss": {}})):
        with pytest.raises(Unstorable, match=r"loss= is a "):
            verb({"loss": thing})


def test_an_unknown_tag_or_framework_is_refused() -> None:
    """A checkpoint of a newer version or of another framework is an error that says so."""
    with pytest.raises(StateError, match=r"torch\.layout"):
        thaw(Tagged("torch.layout", "strided"))
    with pytest.raises(StateError, match="mindspore"):
        thaw(TensorLeaf(dtype="F32", shape=(), kind="mindspore", data=np.zeros(4, np.uint8)))
    with pytest.raises(StateError):
        thaw(Tagged("torch.dtype", "load"))


def test_bytes_at_odd_addresses_are_read() -> None:
    """A pack may place a tensor anywhere; alignment is our business."""
    leaf = freeze(torch.arange(4.0), "x")
    odd = np.frombuffer(b"x" + leaf.data.tobytes(), np.uint8)[1:]
    moved = TensorLeaf(dtype="F32", shape=(4,), kind="torch", data=odd)
    assert thaw(moved).tolist() == [0.0, 1.0, 2.0, 3.0]
    array = TensorLeaf(dtype="F32", shape=(4,), kind="numpy", data=odd)
    assert thaw(array).tolist() == [0.0, 1.0, 2.0, 3.0]


def test_tensors_of_a_stateful_go_where_the_live_ones_are() -> None:
    """An average of the user's own lives on the accelerator; the meta device stands in for it."""
    device = torch.device("meta")
    live = {"shadow": [torch.empty(2, device=device)], "new": None, "pair": (1, torch.empty(2))}
    stored = {"shadow": [torch.ones(2), torch.ones(3)], "gone": torch.ones(1), "pair": (1, 2)}
    moved = moved_like(stored, live)
    assert [tensor.device.type for tensor in moved["shadow"]] == ["meta", "cpu"]
    assert moved["gone"].device.type == "cpu"
    assert moved["pair"] == (1, 2)
