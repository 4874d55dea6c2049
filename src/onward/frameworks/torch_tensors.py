"""Values of PyTorch's world <-> values of a state tree."""

from __future__ import annotations

import enum
import warnings
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from onward.errors import StateError, Unstorable
from onward.frameworks.base import DistantLeaf, Tagged, TensorLeaf
from onward.frameworks.torch_sources import TensorSource, lane_of

DTYPES: dict[torch.dtype, str] = {
    torch.bool: "BOOL", torch.uint8: "U8", torch.int8: "I8",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
    torch.uint16: "U16", torch.int16: "I16", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.uint32: "U32", torch.int32: "I32", torch.float32: "F32",
    torch.uint64: "U64", torch.int64: "I64", torch.float64: "F64",
    torch.complex64: "C64", torch.complex128: "C128",
}  # fmt: skip
_TORCH_DTYPES = {name: dtype for dtype, name in DTYPES.items()}

_NUMPY_DTYPES: dict[str, str] = {
    "BOOL": "|b1", "U8": "|u1", "I8": "|i1", "U16": "<u2", "I16": "<i2", "F16": "<f2",
    "U32": "<u4", "I32": "<i4", "F32": "<f4", "U64": "<u8", "I64": "<i8", "F64": "<f8",
    "C64": "<c8", "C128": "<c16",
}  # fmt: skip
_NUMPY_NAMES = {dtype: name for name, dtype in _NUMPY_DTYPES.items()}

_FACTORIES: dict[str, type] = {kind.__name__: kind for kind in (int, float, list, dict, set, str)}
_PLAIN = (bool, int, float, complex, str, bytes, enum.Enum, np.generic)

Place = Callable[[TensorLeaf], torch.Tensor]
"""Makes of a leaf a tensor that may live on: in memory of its own, on the right device."""


def freeze(value: Any, path: str) -> Any:
    """The state tree of `value`. Leaves share memory with live tensors where that is possible.

    Raises `Unstorable` with the path, below `path`, of the first thing that cannot be stored.
    """
    return _freeze(value, path, ())


def owned(leaf: TensorLeaf) -> torch.Tensor:
    """The leaf as a tensor on the host in memory of its own: the leaf's, if that is private."""
    tensor = view(leaf)
    return tensor if leaf.private else tensor.clone()


def thaw(tree: Any, place: Place = owned) -> Any:
    """What `freeze` was given, in memory of its own; `place` has the last word on each tensor."""
    match tree:
        case TensorLeaf(kind="torch"):
            return place(tree)
        case TensorLeaf(kind="numpy"):
            array = _bytes_of(tree).view(_NUMPY_DTYPES[tree.dtype]).reshape(tree.shape)
            return array if tree.private else array.copy()
        case TensorLeaf():
            raise StateError(
                f"the checkpoint holds a tensor of {tree.kind}",
                do="restore it with the framework that saved it",
            )
        case Tagged():
            return _untag(tree, place)
        case dict():
            return {key: thaw(child, place) for key, child in tree.items()}
        case list():
            return [thaw(child, place) for child in tree]
        case tuple():
            return tuple(thaw(child, place) for child in tree)
    return tree


@dataclass(frozen=True)
class _Memory:
    """Equal for what lies in the same memory in the same way.

    Keeps that memory, because an address says nothing once it can be given to someone else.
    """

    place: tuple[Any, ...]
    kept: Any = field(compare=False, repr=False)


def _memory_of(tensor: torch.Tensor) -> _Memory:
    storage = tensor.untyped_storage()
    layout = (tensor.storage_offset(), tuple(tensor.shape), tensor.stride())
    values = (tensor.dtype, tensor.is_conj(), tensor.is_neg())
    return _Memory((str(tensor.device), storage.data_ptr(), *layout, *values), storage)


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
    data = _bytes_of(leaf)
    dtype = _TORCH_DTYPES[leaf.dtype]
    if data.ctypes.data % dtype.itemsize:
        data = data.copy()
    with warnings.catch_warnings():
        # PyTorch has no read-only tensors and warns about memory that must not be written.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(data).view(dtype).reshape(leaf.shape)


def shown(leaf: TensorLeaf) -> str:
    """Dtype and shape, as messages show them: `F32 [10, 512]`."""
    return f"{leaf.dtype} {list(leaf.shape)}"


def _freeze(value: Any, path: str, above: tuple[int, ...]) -> Any:
    match value:
        case None:
            return None
        case torch.Tensor():
            return leaf_of(value, path)
        case np.ndarray():
            return _numpy_leaf(value, path)
        case torch.Size():
            return Tagged("torch.Size", list(value))
        case torch.dtype():
            return Tagged("torch.dtype", str(value).removeprefix("torch."))
        case torch.device():
            return Tagged("torch.device", str(value))
        case bytearray():
            return bytes(value)
        case _ if isinstance(value, _PLAIN):
            return value
        case Mapping() | list() | tuple() | set() | frozenset() | deque():
            if id(value) in above:
                raise Unstorable(f"{path} contains itself", do="break the circle")
            return _freeze_container(value, path, (*above, id(value)))
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    raise Unstorable(
        f"{path} is a {'function' if callable(value) and hasattr(value, '__code__') else kind}",
        why="only names, numbers, text, bytes, tensors and containers of them are stored",
        do="leave it out of state_dict() and give it again when the object is made, or store its "
        "own state_dict()",
    )


def _freeze_container(value: Any, path: str, above: tuple[int, ...]) -> Any:
    def each(children: Any) -> list[Any]:
        return [_freeze(child, f"{path}[{i}]", above) for i, child in enumerate(children)]

    match value:
        case Mapping():
            frozen = {
                _key(key, path): _freeze(child, _below(path, key), above)
                for key, child in value.items()
            }
            if isinstance(value, Counter):
                return Tagged("Counter", frozen)
            if isinstance(value, defaultdict) and value.default_factory is not None:
                factory = getattr(value.default_factory, "__name__", "")
                if _FACTORIES.get(factory) is not value.default_factory:
                    raise Unstorable(
                        f"{path} is a defaultdict whose default is made by a function",
                        do="store dict(...) of it instead",
                    )
                return Tagged("defaultdict", [factory, frozen])
            return frozen
        case list():
            return each(value)
        case tuple() if hasattr(value, "_fields"):
            raise Unstorable(
                f"{path} is the named tuple {type(value).__name__}",
                do="store its _asdict() instead",
            )
        case tuple():
            return tuple(each(value))
        case deque():
            return Tagged("deque", [value.maxlen, each(value)])
        case _:
            # What a set holds is hashable, and only plain values have the same hash next time.
            for child in value:
                _key(child, path)
            return value


def _key(key: Any, path: str) -> Any:
    plain = key is None or isinstance(key, _PLAIN)
    if plain or (isinstance(key, tuple) and all(_key(part, path) is part for part in key)):
        return key
    raise Unstorable(
        f"{path} has the key {key!r:.60}, a {type(key).__qualname__}",
        why="keys are text, numbers, bytes and tuples of them",
        do="use a name as the key",
    )


def _below(path: str, key: Any) -> str:
    return f"{path}.{key}" if isinstance(key, str) else f"{path}[{key!r}]"


def _untag(tagged: Tagged, place: Place) -> Any:
    value = thaw(tagged.value, place)
    match tagged.tag:
        case "torch.Size":
            return torch.Size(value)
        case "torch.dtype" if isinstance(getattr(torch, value, None), torch.dtype):
            return getattr(torch, value)
        case "torch.device":
            return torch.device(value)
        case "Counter":
            return Counter(value)
        case "defaultdict":
            return defaultdict(_FACTORIES[value[0]], value[1])
        case "deque":
            return deque(value[1], maxlen=value[0])
    raise StateError(
        f"the checkpoint holds a {tagged.tag!r}, which this version does not know",
        do="update Onward or PyTorch to the version that saved it",
    )


def _numpy_leaf(array: npt.NDArray[Any], path: str) -> TensorLeaf:
    little = array.dtype.newbyteorder("<").str
    if type(array) not in (np.ndarray, np.memmap) or little not in _NUMPY_NAMES:
        raise Unstorable(
            f"{path} is a NumPy {type(array).__name__} of {array.dtype}",
            why="only plain arrays of numbers are stored",
            do="store plain arrays of numbers instead",
        )
    flat = np.ascontiguousarray(array, dtype=little).reshape(-1)
    place = ("numpy", array.ctypes.data, array.shape, array.strides, array.dtype.str)
    return TensorLeaf(
        dtype=_NUMPY_NAMES[little],
        shape=array.shape,
        kind="numpy",
        data=flat.view(np.uint8),
        identity=_Memory(place, array) if array.size else None,
    )


def _bytes_of(leaf: TensorLeaf) -> npt.NDArray[np.uint8]:
    if leaf.data is None:
        raise AssertionError("a leaf without its bytes was given to be restored")
    return leaf.data
