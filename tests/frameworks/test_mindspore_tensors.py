"""Values of MindSpore's world survive a state tree bit for bit, or are refused by name."""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn

from onward.errors import StateError, Unstorable
from onward.frameworks import mindspore as framework
from onward.frameworks.base import Tagged, TensorLeaf
from onward.frameworks.mindspore_tensors import (
    DTYPES,
    freeze,
    is_live,
    live_leaf,
    owned,
    thaw,
    write,
    write_number,
)
from tests.frameworks.mindspore_training import Remembers, same, through_bytes

NUMBERS = np.array([0, 1, 2, 3], np.float32)


def made(dtype: Any, shape: tuple[int, ...]) -> Tensor:
    """A tensor of the dtype, with numbers that it can hold."""
    values = np.resize(NUMBERS, shape).astype(np.float32)
    return Tensor(values, dtype=dtype)


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (4,), (2, 2, 3)])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_and_shape_comes_back_bit_for_bit(dtype: Any, shape: tuple[int, ...]) -> None:
    """bfloat16, scalars and tensors without elements, too: as a tensor and in a parameter."""
    value = made(dtype, shape)
    tree = through_bytes(freeze(value, "x"))
    assert tree.dtype == DTYPES[dtype]
    assert tree.shape == shape
    back = thaw(tree)
    assert back.dtype == dtype
    assert tuple(back.shape) == shape
    assert same(freeze(back, "x"), freeze(value, "x"))
    if not shape or 0 in shape:
        return
    live = Parameter(Tensor(np.ones(shape, np.float32), dtype=dtype), name="p")
    write(live, tree)
    assert same(freeze(live, "x"), freeze(value, "x"))


def test_special_numbers_keep_their_bits() -> None:
    """Negative zero, infinities, and which NaN it is."""
    bits = np.array([0x80000000, 0x7F800000, 0x7FC00001, 0xFFC0FFFF], np.uint32)
    back = thaw(through_bytes(freeze(Tensor(bits.view(np.float32)), "x")))
    assert np.array_equal(back.asnumpy().view(np.uint32), bits)


def test_leaves_share_memory_with_live_tensors() -> None:
    """Capturing copies nothing, and what is written into a live leaf is the tensor's value."""
    model = nn.Dense(3, 3)
    leaf = framework.capture({"model": model})["model"]["weight"]
    model.weight.asnumpy()[...] = 2
    assert leaf.data.view(np.float32).tolist() == [2.0] * 9
    live = live_leaf(model.weight)
    assert live is not None
    live.data.view(np.float32)[:] = 3
    assert model.weight.asnumpy().tolist() == [[3.0] * 3] * 3
    assert float(model.weight.sum()) == 27.0
    assert is_live(live, model.weight)
    assert not is_live(live, model.bias)
    assert not is_live(through_bytes(live), model.weight)


def test_a_live_leaf_is_that_of_a_tensor_with_memory_of_its_own() -> None:
    """What has no elements, no values or is no tensor is written in another way."""
    assert live_leaf(made(ms.float32, (0, 3))) is None
    assert live_leaf(3) is None
    assert live_leaf(np.ones(3)) is None
    leaf = live_leaf(made(ms.float16, (3,)))
    assert leaf is not None
    assert (leaf.dtype, leaf.shape) == ("F16", (3,))


def test_writing_keeps_the_object_and_what_a_graph_reads() -> None:
    """A parameter of another dtype than its leaf, and a number, are written in place, too."""
    parameter = Parameter(Tensor([1.0, 2.0], ms.float32), name="p")

    class Read(nn.Cell):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.parameter = parameter

        @ms.jit
        def construct(self) -> Any:
            return self.parameter * 1

    function = Read()
    assert function().tolist() == [1.0, 2.0]
    write(parameter, freeze(Tensor([3.0, 4.0], ms.float32), "x"))
    assert function().tolist() == [3.0, 4.0]
    write(parameter, freeze(Tensor([5, 6], ms.int32), "x"))
    assert parameter.dtype == ms.float32
    assert function().tolist() == [5.0, 6.0]
    write_number(parameter, 7)
    assert function().tolist() == [7.0, 7.0]


def test_values_of_every_kind_come_back_as_they_were() -> None:
    """What a `Stateful` of the user's may hold: its types and bits."""
    state = {
        "plain": [None, True, 3, -0.0, float("inf"), "text", b"bytes", (1, (2,))],
        7: {("a", 1): np.float32(0.1)},
        "dtype": ms.bfloat16,
        "tensor": Tensor([[1.0, 2.0], [3.0, 4.0]]),
        "transposed": Tensor([[1.0, 2.0], [3.0, 4.0]]).T,
        "parameter": Parameter(Tensor([1.0]), name="p"),
        "array": np.arange(3, dtype=">i4"),
    }
    other = Remembers()
    framework.restore({"mine": other}, through_bytes(framework.capture({"mine": Remembers(state)})))
    back = other.state
    assert back["plain"] == state["plain"]
    assert back[7] == state[7]
    assert back["dtype"] == ms.bfloat16
    for name in ("tensor", "transposed", "parameter"):
        assert back[name].tolist() == state[name].tolist()
    assert np.array_equal(back["array"], state["array"])
    back["tensor"] += 1  # its own memory, free to be written


def test_a_private_leaf_is_kept_and_any_other_is_copied() -> None:
    """What a repository read for this leaf alone becomes the tensor's memory."""
    data = np.arange(4, dtype=np.float32).view(np.uint8)
    private = TensorLeaf("F32", (4,), "mindspore", data, private=True)
    shared = TensorLeaf("F32", (4,), "mindspore", data)
    kept, copied = owned(private), owned(shared)
    data.view(np.float32)[:] = 9
    assert kept.tolist() == [9.0] * 4
    assert copied.tolist() == [0.0, 1.0, 2.0, 3.0]


def test_bytes_at_odd_addresses_are_read() -> None:
    """A pack may place a tensor anywhere; alignment is our business."""
    leaf = freeze(Tensor(np.arange(4, dtype=np.float32)), "x")
    odd = np.frombuffer(b"x" + leaf.data.tobytes(), np.uint8)[1:]
    assert thaw(TensorLeaf("F32", (4,), "mindspore", odd)).tolist() == [0.0, 1.0, 2.0, 3.0]


def test_what_cannot_be_stored_is_named_by_its_path() -> None:
    """`Unstorable` says where the thing is and what to do."""
    with pytest.raises(Unstorable, match=r"mine\.a\[0\] is a function") as caught:
        framework.capture({"mine": Remembers({"a": [lambda: 0]})})
    assert caught.value.do


def test_a_leaf_of_another_framework_is_refused() -> None:
    """It says which one it is of."""
    with pytest.raises(StateError, match="torch"):
        thaw(TensorLeaf(dtype="F32", shape=(), kind="torch", data=np.zeros(4, np.uint8)))
    with pytest.raises(StateError, match=r"mindspore\.dtype|no such"):
        thaw(Tagged("mindspore.dtype", "Float9"))
