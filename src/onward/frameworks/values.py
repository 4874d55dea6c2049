"""Plain values, containers and NumPy arrays <-> values of a state tree, for every framework alike.

What a framework adds (its tensors, dtypes, devices) it does itself, through two functions that it
gives: `special` on the way in, `place` and `untag` on the way out.
"""

from __future__ import annotations

import enum
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from onward.errors import StateError, Unstorable
from onward.frameworks.base import Tagged, TensorLeaf

NUMPY_DTYPES: dict[str, str] = {
    "BOOL": "|b1", "U8": "|u1", "I8": "|i1", "U16": "<u2", "I16": "<i2", "F16": "<f2",
    "U32": "<u4", "I32": "<i4", "F32": "<f4", "U64": "<u8", "I64": "<i8", "F64": "<f8",
    "C64": "<c8", "C128": "<c16",
}  # fmt: skip
NUMPY_NAMES = {dtype: name for name, dtype in NUMPY_DTYPES.items()}

_FACTORIES: dict[str, type] = {kind.__name__: kind for kind in (int, float, list, dict, set, str)}
_PLAIN = (bool, int, float, complex, str, bytes, enum.Enum, np.generic)

Special = Callable[[Any, str], Any]
"""The tree of a value that only one framework knows, at this path; `None` for any other value."""
Place = Callable[[TensorLeaf], Any]
"""Makes of a leaf a tensor that may live on: in memory of its own, on the right device."""
Untag = Callable[[str, Any], Any]
"""The framework's value for a tag and its plain value; `None` for a tag that it does not know."""


def freeze(value: Any, path: str, special: Special) -> Any:
    """The state tree of `value`. Leaves share memory with live tensors where that is possible.

    Raises `Unstorable` with the path, below `path`, of the first thing that cannot be stored.
    """
    return _freeze(value, path, special, ())


def thaw(tree: Any, kind: str, place: Place, untag: Untag) -> Any:
    """What `freeze` was given, in memory of its own; `place` has the last word on each tensor.

    Raises `StateError` for the tensors of a framework other than `kind`, and for unknown tags.
    """

    def each(tree: Any) -> Any:
        match tree:
            case TensorLeaf(kind="numpy"):
                return numpy_array(tree)
            case TensorLeaf() if tree.kind == kind:
                return place(tree)
            case TensorLeaf():
                raise StateError(
                    f"the checkpoint holds a tensor of {tree.kind}",
                    do="restore it with the framework that saved it",
                )
            case Tagged():
                return _untag(tree.tag, each(tree.value), untag)
            case dict():
                return {key: each(child) for key, child in tree.items()}
            case list():
                return [each(child) for child in tree]
            case tuple():
                return tuple(each(child) for child in tree)
        return tree

    return each(tree)


@dataclass(frozen=True)
class Memory:
    """Equal for what lies in the same memory in the same way.

    Keeps that memory, because an address says nothing once it can be given to someone else.
    """

    place: tuple[Any, ...]
    kept: Any = field(compare=False, repr=False)


def bytes_of(leaf: TensorLeaf) -> npt.NDArray[np.uint8]:
    """The bytes of a leaf that has them."""
    if leaf.data is None:
        raise AssertionError("a leaf without its bytes was given to be restored")
    return leaf.data


def numpy_array(leaf: TensorLeaf) -> npt.NDArray[Any]:
    """The leaf as an array in memory of its own: the leaf's, if that is private."""
    array = bytes_of(leaf).view(NUMPY_DTYPES[leaf.dtype]).reshape(leaf.shape)
    return array if leaf.private else array.copy()


def shown(leaf: TensorLeaf) -> str:
    """Dtype and shape, as messages show them: `F32 [10, 512]`."""
    return f"{leaf.dtype} {list(leaf.shape)}"


def differences_by_name(
    live: Mapping[str, Any],
    tree: Any,
    key: str,
    *,
    kind: str,
    difference: Callable[[Any, Any, str], str],
) -> list[str]:
    """Every reason why `tree` does not fit the live tensors by name of a `kind`, such as a model.

    `difference` says what keeps a stored entry from a live one at a path, or ''.
    """
    if not isinstance(tree, Mapping):
        return [f"{key}: the checkpoint has something else than a {kind} there"]
    lines = []
    for name, value in live.items():
        if name not in tree:
            lines.append(f"{key}.{name}: the checkpoint has no such entry")
        elif line := difference(value, tree[name], f"{key}.{name}"):
            lines.append(line)
    for name, stored in tree.items():
        if name not in live:
            what = f" {shown(stored)}" if isinstance(stored, TensorLeaf) else ""
            lines.append(
                f"{key}.{name}: the checkpoint has it{what}, the live {kind} has no such entry"
            )
    return lines


def check_stateful(thing: Any, key: str, *, kinds: str) -> None:
    """Raises `Unstorable` for an object that is neither one of these kinds nor `Stateful`."""
    verbs = (getattr(thing, verb, None) for verb in ("state_dict", "load_state_dict"))
    if isinstance(thing, type) or not all(callable(verb) for verb in verbs):
        raise Unstorable(
            f"{key}= is a {type(thing).__module__}.{type(thing).__qualname__}",
            why=f"it is no {kinds}, and has no state_dict() and load_state_dict()",
            do=f"leave {key}= out, or give its class these two methods",
        )


def _freeze(value: Any, path: str, special: Special, above: tuple[int, ...]) -> Any:
    if value is None:
        return None
    found = special(value, path)
    if found is not None:
        return found
    match value:
        case np.ndarray():
            return _numpy_leaf(value, path)
        case bytearray():
            return bytes(value)
        case _ if isinstance(value, _PLAIN):
            return value
        case Mapping() | list() | tuple() | set() | frozenset() | deque():
            if id(value) in above:
                raise Unstorable(f"{path} contains itself", do="break the circle")
            return _freeze_container(value, path, special, (*above, id(value)))
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    raise Unstorable(
        f"{path} is a {'function' if callable(value) and hasattr(value, '__code__') else kind}",
        why="only names, numbers, text, bytes, tensors and containers of them are stored",
        do="leave it out of state_dict() and give it again when the object is made, or store its "
        "own state_dict()",
    )


def _freeze_container(value: Any, path: str, special: Special, above: tuple[int, ...]) -> Any:
    def each(children: Any) -> list[Any]:
        return [_freeze(child, f"{path}[{i}]", special, above) for i, child in enumerate(children)]

    match value:
        case Mapping():
            frozen = {
                _key(key, path): _freeze(child, _below(path, key), special, above)
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


def _untag(tag: str, value: Any, untag: Untag) -> Any:
    match tag:
        case "Counter":
            return Counter(value)
        case "defaultdict":
            return defaultdict(_FACTORIES[value[0]], value[1])
        case "deque":
            return deque(value[1], maxlen=value[0])
    found = untag(tag, value)
    if found is None:
        raise StateError(
            f"the checkpoint holds a {tag!r}, which this version does not know",
            do="update Onward or the framework to the version that saved it",
        )
    return found


def _numpy_leaf(array: npt.NDArray[Any], path: str) -> TensorLeaf:
    little = array.dtype.newbyteorder("<").str
    if type(array) not in (np.ndarray, np.memmap) or little not in NUMPY_NAMES:
        raise Unstorable(
            f"{path} is a NumPy {type(array).__name__} of {array.dtype}",
            why="only plain arrays of numbers are stored",
            do="store plain arrays of numbers instead",
        )
    flat = np.ascontiguousarray(array, dtype=little).reshape(-1)
    place = ("numpy", array.ctypes.data, array.shape, array.strides, array.dtype.str)
    return TensorLeaf(
        dtype=NUMPY_NAMES[little],
        shape=array.shape,
        kind="numpy",
        data=flat.view(np.uint8),
        identity=Memory(place, array) if array.size else None,
    )
