"""Values of MindSpore's world <-> values of a state tree."""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
import numpy.typing as npt
from mindspore import Parameter, Tensor
from mindspore.common import np_dtype

from onward.errors import Unstorable
from onward.frameworks import values
from onward.frameworks.base import Tagged, TensorLeaf
from onward.frameworks.values import Memory, Place, bytes_of

DTYPES: dict[Any, str] = {
    ms.bool_: "BOOL", ms.uint8: "U8", ms.int8: "I8",
    ms.uint16: "U16", ms.int16: "I16", ms.float16: "F16", ms.bfloat16: "BF16",
    ms.uint32: "U32", ms.int32: "I32", ms.float32: "F32",
    ms.uint64: "U64", ms.int64: "I64", ms.float64: "F64",
    ms.complex64: "C64", ms.complex128: "C128",
}  # fmt: skip
_MINDSPORE_DTYPES = {name: dtype for dtype, name in DTYPES.items()}
_NUMPY_DTYPES: dict[str, Any] = {**values.NUMPY_DTYPES, "BF16": np_dtype.bfloat16}


def freeze(value: Any, path: str) -> Any:
    """The state tree of `value`. Leaves share memory with live tensors where that is possible.

    Raises `Unstorable` with the path, below `path`, of the first thing that cannot be stored.
    """
    return values.freeze(value, path, _special)


def thaw(tree: Any, place: Place | None = None) -> Any:
    """What `freeze` was given, in memory of its own; `place` has the last word on each tensor."""
    return values.thaw(tree, "mindspore", place or owned, _untag)


def leaf_of(tensor: Any, path: str) -> TensorLeaf:
    """`tensor` as a leaf; it shares the tensor's memory if that is on the host.

    Raises `Unstorable` for a parameter that has no values yet, and for dtypes that NumPy lacks.
    """
    dtype, shape = describe(tensor, path), tuple(int(extent) for extent in tensor.shape)
    array = tensor.asnumpy()
    if not array.flags.c_contiguous:
        array = np.ascontiguousarray(array)
    identity = Memory(("mindspore", _address(array), shape, dtype), array) if array.size else None
    return TensorLeaf(dtype, shape, "mindspore", _flat(array), identity)


def describe(tensor: Any, path: str) -> str:
    """The name of the tensor's dtype. Raises `Unstorable` if the tensor cannot be stored."""
    if tensor.dtype not in DTYPES:
        raise Unstorable(
            f"{path} has the dtype {tensor.dtype}",
            why="NumPy has no such numbers, and they cannot be brought back exactly",
            do="keep the parameter in float16, bfloat16 or float32 and cast it where it is used "
            "(to_float), or leave it out of the state",
        )
    if getattr(tensor, "has_init", False):
        raise Unstorable(
            f"{path} has no values yet",
            why="its network was made under no_init_parameters() or for a graph that is not built",
            do="call network.init_parameters_data() before onward.open",
        )
    return DTYPES[tensor.dtype]


def owned(leaf: TensorLeaf) -> Any:
    """The leaf as a tensor in memory of its own: the leaf's, if that is private."""
    array = as_array(leaf)
    # from_numpy shares memory; a Tensor of a scalar is made by copying.
    return Tensor.from_numpy(array if leaf.private else array.copy())


def as_array(leaf: TensorLeaf) -> npt.NDArray[Any]:
    """The leaf as an array that shares the leaf's memory: read it, never write it."""
    data, dtype = bytes_of(leaf), np.dtype(_NUMPY_DTYPES[leaf.dtype])
    if _address(data) % dtype.itemsize:
        data = data.copy()
    array: npt.NDArray[Any] = data.view(dtype).reshape(leaf.shape)
    return array


def live_leaf(tensor: Any) -> TensorLeaf | None:
    """The tensor as a leaf in whose data it can be written; None if it lies in another way.

    On the host `asnumpy()` is the tensor's own memory, in PyNative mode and in compiled graphs.
    """
    if not isinstance(tensor, Tensor) or tensor.dtype not in DTYPES or not on_host():
        return None
    if getattr(tensor, "has_init", False):
        return None
    array = tensor.asnumpy()
    if not array.size or not (array.flags.c_contiguous and array.flags.writeable):
        return None
    return leaf_of(tensor, "a live tensor")


def is_live(leaf: Any, tensor: Any) -> bool:
    """Whether the leaf's data is the memory of the tensor, so that there is nothing to copy."""
    if not isinstance(leaf, TensorLeaf) or leaf.data is None:
        return False
    live = live_leaf(tensor)
    return (
        live is not None
        and live.data is not None
        and (live.dtype, live.shape) == (leaf.dtype, leaf.shape)
        and _address(live.data) == _address(leaf.data)
    )


def write(target: Any, leaf: TensorLeaf) -> None:
    """Gives a live parameter or tensor the bits of the leaf; it stays the same object."""
    if is_live(leaf, target):
        return
    live = live_leaf(target)
    if (
        live is not None
        and live.data is not None
        and (live.dtype, live.shape)
        == (
            leaf.dtype,
            leaf.shape,
        )
    ):
        np.copyto(live.data, bytes_of(leaf))
    else:
        target.copy_(owned(leaf))  # a compiled network would not see set_data


def write_number(target: Any, value: float) -> None:
    """Gives a live scalar parameter a value, as its dtype holds it."""
    live = live_leaf(target)
    if live is not None and live.data is not None:
        live.data.view(_NUMPY_DTYPES[live.dtype])[:] = value
    else:
        target.copy_(Tensor(np.full(target.shape, value), dtype=target.dtype))


def number(tensor: Any) -> float:
    """The value of a tensor of one element, once what computes it is done."""
    return float(tensor.item())  # asnumpy takes 50 times as long, and every step pays for it


def on_host() -> bool:
    """Whether tensors are in the memory that NumPy sees."""
    return bool(ms.get_context("device_target") == "CPU")


def _special(value: Any, path: str) -> Any:
    match value:
        case Tensor():  # Parameters, too
            return leaf_of(value, path)
        case _ if isinstance(value, ms.Type):
            return Tagged("mindspore.dtype", str(value))
    return None


def _untag(tag: str, value: Any) -> Any:
    if tag == "mindspore.dtype":
        return next((dtype for dtype in DTYPES if str(dtype) == value), None)
    return None


def _flat(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    return array.reshape(-1).view(np.uint8)


def _address(array: npt.NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])


def is_parameter(value: Any) -> bool:
    """Whether it is a Parameter, such as the scale of a TrainOneStepWithLossScaleCell."""
    return isinstance(value, Parameter)
