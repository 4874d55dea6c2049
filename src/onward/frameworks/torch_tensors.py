"""Values of PyTorch's world <-> values of a state tree."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from onward.errors import Unstorable
from onward.frameworks import values
from onward.frameworks.base import DistantLeaf, Tagged, TensorLeaf
from onward.frameworks.torch_sources import TensorSource, lane_of
from onward.frameworks.values import Memory, Place, bytes_of, shown

__all__ = [
    "DTYPES", "Place", "describe", "dtype_named", "freeze", "is_live", "leaf_of", "live_leaf",
    "moved_like", "owned", "settled", "shown", "thaw", "view",
]  # fmt: skip

DTYPES: dict[torch.dtype, str] = {
    torch.bool: "BOOL", torch.uint8: "U8", torch.int8: "I8",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
    torch.uint16: "U16", torch.int16: "I16", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.uint32: "U32", torch.int32: "I32", torch.float32: "F32",
    torch.uint64: "U64", torch.int64: "I64", torch.float64: "F64",
    torch.complex64: "C64", torch.complex128: "C128",
}  # fmt: skip
_TORCH_DTYPES = {name: dtype for dtype, name in DTYPES.items()}


def freeze(value: Any, path: str) -> Any:
    """The state tree of `value`. Leaves share memory with live tensors where that is possible.

    Raises `Unstorable` with the path, below `path`, of the first thing that cannot be stored.
    """
    return values.freeze(value, path, _special)


def owned(leaf: TensorLeaf) -> torch.Tensor:
    """The leaf as a tensor on the host in memory of its own: the leaf's, if that is private."""
    tensor = view(leaf)
    return tensor if leaf.private else tensor.clone()


def thaw(tree: Any, place: Place = owned) -> Any:
    """What `freeze` was given, in memory of its own; `place` has the last word on each tensor."""
    return values.thaw(tree, "torch", place, _untag)


def _memory_of(tensor: torch.Tensor) -> Memory:
    storage = tensor.untyped_storage()
    layout = (tensor.storage_offset(), tuple(tensor.shape), tensor.stride())
    values = (tensor.dtype, tensor.is_conj(), tensor.is_neg())
    return Memory((str(tensor.device), storage.data_ptr(), *layout, *values), storage)


def moved_like(value: Any, live: Any) -> Any:
    """`value` with each tensor on the device where `live` has one in the same place."""
    match value, live:
        case torch.Tensor(), torch.Tensor():
            return value.to(live.device)
        case dict(), Mapping():
            for key in value.keys() & live.keys():
                value[key] = moved_like(value[key], live[key])
        case list(), list():
            for index in range(min(len(value), len(live))):
                value[index] = moved_like(value[index], live[index])
        case tuple(), tuple() if len(value) == len(live) and type(value) is tuple:
            return tuple(moved_like(*pair) for pair in zip(value, live, strict=True))
    return value


def leaf_of(tensor: torch.Tensor, path: str) -> TensorLeaf:
    """`tensor` as a leaf: shares its memory if that is on the host, contiguous and in order.

    Else its bytes are fetched when they are needed.
    """
    dtype, shape = describe(tensor, path), tuple(tensor.shape)
    identity = _memory_of(tensor) if tensor.numel() else None
    detached = tensor.detach().resolve_conj().resolve_neg()
    if tensor.numel() and (detached.device.type != "cpu" or not detached.is_contiguous()):
        source = TensorSource(detached, lane_of(detached.device))
        return DistantLeaf(dtype, shape, "torch", identity=identity, source=source)
    # Not reshape(-1): a single element may be contiguous and yet have any stride.
    flat = detached.cpu().as_strided((detached.numel(),), (1,))
    return TensorLeaf(dtype, shape, "torch", flat.view(torch.uint8).numpy(), identity)


def settled(tree: Any) -> Any:
    """The tree with every leaf that must be fetched marked as changed by optimizers only."""
    match tree:
        case DistantLeaf():
            return replace(tree, settled=True)
        case dict():
            return {key: settled(child) for key, child in tree.items()}
    return tree


def live_leaf(tensor: Any) -> TensorLeaf | None:
    """The tensor as a leaf in whose data it can be written; None if it lies in another way."""
    if (
        not isinstance(tensor, torch.Tensor)
        or torch.nn.parameter.is_lazy(tensor)
        or _problem(tensor)
        or tensor.device.type != "cpu"
        or not tensor.is_contiguous()
        or tensor.is_conj()
        or tensor.is_neg()
        or tensor.numel() == 0
    ):
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
        and live.data.__array_interface__["data"] == leaf.data.__array_interface__["data"]
    )


def describe(tensor: torch.Tensor, path: str) -> str:
    """The name of the tensor's dtype. Raises `Unstorable` if the tensor cannot be stored."""
    if torch.nn.parameter.is_lazy(tensor):
        raise Unstorable(
            f"{path} has no shape yet", do="run one batch through the model before the first save"
        )
    problem = _problem(tensor)
    if problem:
        raise Unstorable(
            f"{path} {problem}",
            why="only dense tensors of ordinary dtypes are stored",
            do="store a dense tensor instead (to_dense(), dequantize(), full_tensor()), or leave "
            "it out of the state",
        )
    return DTYPES[tensor.dtype]


def dtype_named(name: str) -> torch.dtype:
    """PyTorch's dtype by its name in a tree, such as `BF16`."""
    return _TORCH_DTYPES[name]


def _problem(tensor: torch.Tensor) -> str:
    """What keeps a tensor from being stored, or ''."""
    problem = ""
    if is_traceable_wrapper_subclass(tensor):
        problem = f"is a {type(tensor).__module__}.{type(tensor).__qualname__}"
    elif tensor.layout != torch.strided:
        problem = f"is sparse ({tensor.layout})"
    elif tensor.is_nested:
        problem = "is a nested tensor"
    elif tensor.device.type == "meta":
        problem = "is on the meta device and has no values"
    elif tensor.dtype not in DTYPES:
        problem = f"has the dtype {tensor.dtype}"
    return problem


def view(leaf: TensorLeaf) -> torch.Tensor:
    """The leaf as a tensor on the host that shares the leaf's memory: read it, never write it."""
    data = bytes_of(leaf)
    dtype = _TORCH_DTYPES[leaf.dtype]
    if data.ctypes.data % dtype.itemsize:
        data = data.copy()
    with warnings.catch_warnings():
        # PyTorch has no read-only tensors and warns about memory that must not be written.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(data).view(dtype).reshape(leaf.shape)


def _special(value: Any, path: str) -> Any:
    match value:
        case torch.Tensor():
            return leaf_of(value, path)
        case torch.Size():
            return Tagged("torch.Size", list(value))
        case torch.dtype():
            return Tagged("torch.dtype", str(value).removeprefix("torch."))
        case torch.device():
            return Tagged("torch.device", str(value))
    return None


def _untag(tag: str, value: Any) -> Any:
    match tag:
        case "torch.Size":
            return torch.Size(value)
        case "torch.dtype" if isinstance(getattr(torch, value, None), torch.dtype):
            return getattr(torch, value)
        case "torch.device":
            return torch.device(value)
    return None
