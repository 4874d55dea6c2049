"""Samples of any form, kept by slot in NumPy arrays, and given back as what they were.

Each leaf of a sample (its image, its label) has a column over all slots: one array where all
slots agree in shape and dtype, so that replacing a few samples changes a few rows of a checkpoint;
else an array for each slot.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from onward.data.order import Indices
from onward.errors import Unstorable

Array = npt.NDArray[Any]
Form = Any
"""A sample with the kind of each leaf in its place, such as `("torch", "int")`."""

_DEEPEST = 20
_PLAIN = {bool: "bool", int: "int", float: "float"}
_DTYPES = {"bool": np.bool_, "int": np.int64, "float": np.float64}
_NUMBERS = {
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
}


class Samples:
    """A fixed number of slots, each empty or holding one sample.

    A sample is nested tuples, lists and dicts (of text or integer keys) of tensors, NumPy arrays
    and scalars, numbers, text, bytes and None. Anything else is refused (`Unstorable`, with its
    path in the sample). What `state_dict` returned is never changed afterwards.
    """

    def __init__(self, slots: int) -> None:
        self._forms: list[Form] = []
        self._form_of = np.full(slots, -1, np.int64)
        self._columns: dict[str, _Column] = {}

    def write(self, slots: Indices, samples: Sequence[Any]) -> None:
        """Puts samples into slots, or raises and changes nothing."""
        taken: dict[str, tuple[list[int], list[Array]]] = {}
        forms = []
        for slot, sample in zip(slots.tolist(), samples, strict=True):
            leaves: dict[str, Array] = {}
            forms.append(_take_apart(sample, "", leaves))
            for key, array in leaves.items():
                where, arrays = taken.setdefault(key, ([], []))
                where.append(slot)
                arrays.append(array)
        self.clear(slots)
        for key, (where, arrays) in taken.items():
            if key not in self._columns:
                self._columns[key] = _Column(len(self._form_of), arrays)
            self._columns[key].write(where, arrays, filled=self._holding(key))
        self._form_of = self._form_of.copy()
        self._form_of[slots] = [self._form_number(form) for form in forms]

    def read(self, slot: int, *, tensor: Callable[[Array], Any]) -> Any:
        """A copy of the sample in a slot; `tensor` makes an array a tensor again."""
        form = self._form_of[slot]
        if form < 0:
            raise IndexError(f"slot {slot} is empty")
        return _put_together(self._forms[form], "", self._columns, int(slot), tensor)

    def read_batch(self, slots: Indices, *, tensor: Callable[[Array], Any]) -> Any | None:
        """Samples collated as frameworks do by default: each leaf of them all becomes one tensor.

        None where samples differ in form or shape, or where only the framework can tell what comes
        out (text, None); then they must be collated one by one.
        """
        forms = self._form_of[slots]
        if not len(forms) or forms[0] < 0 or (forms != forms[0]).any():
            return None
        form = self._forms[int(forms[0])]
        return _batched(form, "", self._columns, slots, tensor)

    def clear(self, slots: Indices) -> None:
        """Leaves nothing of the samples in these slots."""
        self._form_of = self._form_of.copy()
        self._form_of[slots] = -1
        for key in list(self._columns):
            if len(self._holding(key)):
                self._columns[key].clear(slots)
            else:
                del self._columns[key]

    def rearrange(self, origins: Indices) -> None:
        """Slot i becomes what slot `origins[i]` was, or empty where that is -1."""
        kept = origins >= 0
        self._form_of = np.where(kept, self._form_of[origins], -1)
        for column in self._columns.values():
            column.rearrange(origins)

    @property
    def size_bytes(self) -> int:
        """What the filled slots hold."""
        return sum(column.size_bytes(self._holding(key)) for key, column in self._columns.items())

    def state_dict(self) -> dict[str, Any]:
        """Arrays over the slots, and the forms that samples have."""
        return {
            "forms": list(self._forms),
            "form": self._form_of,
            "columns": {key: column.state() for key, column in self._columns.items()},
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Becomes what `state_dict` once returned."""
        self._forms = list(state_dict["forms"])
        self._form_of = np.array(state_dict["form"], np.int64)
        slots = len(self._form_of)
        self._columns = {key: _Column(slots) for key in state_dict["columns"]}
        for key, column in self._columns.items():
            column.load(state_dict["columns"][key])

    def _form_number(self, form: Form) -> int:
        for number, known in enumerate(self._forms):
            if repr(known) == repr(form):  # 1 and True are equal keys, but not the same
                return number
        self._forms.append(form)
        return len(self._forms) - 1

    def _holding(self, key: str) -> Indices:
        """The slots whose samples have a leaf in this column."""
        having = [number for number, form in enumerate(self._forms) if key in _keys(form, "")]
        return np.flatnonzero(np.isin(self._form_of, having))


class _Column:
    """A leaf of every slot's sample: dense (`array`), or an array for each slot (`loose`)."""

    def __init__(self, slots: int, arrays: Sequence[Array] = ()) -> None:
        """`arrays`: what will be written first; if they agree, the column is dense."""
        self._array: Array | None = None
        self._loose: list[Array | None] = [None] * slots
        self._packed: dict[str, Any] | None = None
        self._shared = False
        if arrays and _all_like(arrays[0], arrays):
            self._array = np.zeros((slots, *arrays[0].shape), arrays[0].dtype)

    def write(self, slots: list[int], arrays: list[Array], *, filled: Indices) -> None:
        """`filled`: the other slots that hold something, and keep it."""
        if self._array is not None and not _all_like(self._array[0], arrays):
            for slot in filled.tolist():
                self._loose[slot] = self._array[slot].copy()
            self._array = None
        self._packed = None
        if self._array is not None:
            self._own()[slots] = np.stack(arrays)
        else:
            for slot, array in zip(slots, arrays, strict=True):
                self._loose[slot] = array.copy()

    def read(self, slot: int) -> Array:
        found = self._loose[slot] if self._array is None else self._array[slot]
        return np.array(found)

    def rows(self, slots: Indices) -> Array | None:
        """A copy of the rows of these slots, if the column is dense."""
        return None if self._array is None else self._array[slots]

    def clear(self, slots: Indices) -> None:
        self._packed = None
        if self._array is not None:
            self._own()[slots] = 0
        else:
            for slot in slots.tolist():
                self._loose[slot] = None

    def rearrange(self, origins: Indices) -> None:
        self._packed, self._shared = None, False
        self._loose = [self._loose[o] if o >= 0 else None for o in origins.tolist()]
        if self._array is not None:
            self._array = self._array[origins]
            self._array[origins < 0] = 0

    def size_bytes(self, slots: Indices) -> int:
        if self._array is not None:
            return len(slots) * self._array[:1].nbytes
        return sum(array.nbytes for array in self._loose if array is not None)

    def state(self) -> dict[str, Any]:
        if self._array is not None:
            self._shared = True
            return {"array": self._array}
        if self._packed is None:
            self._packed = _pack(self._loose)
        return self._packed

    def load(self, state: Mapping[str, Any]) -> None:
        self._packed, self._shared = None, False
        if "array" in state:
            self._array = np.array(state["array"])
        else:
            self._array, self._loose = None, _unpack(state)

    def _own(self) -> Array:
        """The array, to write into: what a state holds stays as it is."""
        assert self._array is not None
        if self._shared:
            self._array, self._shared = self._array.copy(), False
        return self._array


def _all_like(first: Array, arrays: Sequence[Array]) -> bool:
    return all(a.shape == first.shape and a.dtype == first.dtype for a in arrays)


def _pack(loose: list[Array | None]) -> dict[str, Any]:
    """All slots' arrays as bytes, one after another; a tensor each would swell the manifest."""
    present = [array for array in loose if array is not None]
    dtypes = sorted({array.dtype.str for array in present})
    dims = max((array.ndim for array in present), default=0)
    kinds = [-1 if array is None else dtypes.index(array.dtype.str) for array in loose]
    shapes = np.full((len(loose), dims), -1, np.int64)
    for slot, array in enumerate(loose):
        if array is not None:
            shapes[slot, : array.ndim] = array.shape
    joined = b"".join(array.tobytes() for array in present)
    return {
        "bytes": np.frombuffer(joined, np.uint8),
        "dtypes": dtypes,
        "dtype": np.array(kinds, np.int64),
        "shape": shapes,
    }


def _unpack(packed: Mapping[str, Any]) -> list[Array | None]:
    joined = np.ascontiguousarray(packed["bytes"], np.uint8).tobytes()
    loose: list[Array | None] = []
    start = 0
    for kind, row in zip(packed["dtype"].tolist(), packed["shape"].tolist(), strict=True):
        if kind < 0:
            loose.append(None)
            continue
        shape = [length for length in row if length >= 0]
        dtype = np.dtype(packed["dtypes"][kind])
        count = int(np.prod(shape, dtype=np.int64))
        found = np.frombuffer(joined, dtype, count=count, offset=start) if count else np.empty(0)
        loose.append(np.array(found, dtype).reshape(shape))
        start += count * dtype.itemsize
    return loose


def _take_apart(sample: Any, path: str, leaves: dict[str, Array]) -> Form:
    """The form of a sample; its leaves go into `leaves` by path and kind."""
    if path.count("[") > _DEEPEST:
        raise _unstorable("", f"is nested more than {_DEEPEST} deep")
    if type(sample) in (tuple, list):
        parts = [_take_apart(part, f"{path}[{i}]", leaves) for i, part in enumerate(sample)]
        return tuple(parts) if type(sample) is tuple else parts
    if type(sample) is dict:
        for key in sample:
            if type(key) not in (str, int):
                raise _unstorable(path, f"has the key {key!r}, a {type(key).__name__}")
        return {key: _take_apart(part, f"{path}[{key!r}]", leaves) for key, part in sample.items()}
    if sample is None:
        return "none"
    kind, array = _as_array(sample, path)
    leaves[f"{path}:{kind}"] = array
    return kind


def _as_array(leaf: Any, path: str) -> tuple[str, Array]:
    match leaf:
        case bool() | int() | float() if type(leaf) in _PLAIN:
            kind = _PLAIN[type(leaf)]
            try:
                return kind, np.array(leaf, _DTYPES[kind])
            except OverflowError:
                raise _unstorable(path, f"is {leaf}, which needs more than 64 bits") from None
        case str() if type(leaf) is str:
            text = leaf.encode("utf-8", "surrogatepass")
            return "text", np.frombuffer(text, np.uint8)
        case bytes() if type(leaf) is bytes:
            return "bytes", np.frombuffer(leaf, np.uint8)
        case np.ndarray() if not isinstance(leaf, np.ma.MaskedArray):
            kind, array = "numpy", np.asarray(leaf)
        case np.generic():
            kind, array = "scalar", np.asarray(leaf)
        case _:
            kind, array = _tensor_as_array(leaf, path)
    if array.dtype.name not in _NUMBERS:
        raise _unstorable(path, f"is an array of {array.dtype}")
    return kind, array.astype(array.dtype.newbyteorder("="), order="C", copy=False)


def _tensor_as_array(leaf: Any, path: str) -> tuple[str, Array]:
    # By what they can do: this file serves frameworks that it must not import.
    try:
        if hasattr(leaf, "asnumpy"):
            return "mindspore", np.asarray(leaf.asnumpy())
        if hasattr(leaf, "detach") and hasattr(leaf, "cpu"):
            return "torch", np.asarray(leaf.detach().cpu().numpy())
    except (TypeError, RuntimeError, ValueError) as error:
        raise _unstorable(path, f"is a tensor that NumPy cannot hold ({error})") from error
    raise _unstorable(path, f"is a {type(leaf).__name__}")


def _unstorable(path: str, what: str) -> Unstorable:
    return Unstorable(
        f"sample{path} {what}: the replay memory cannot hold it",
        why="it holds tensors, arrays, numbers, text, bytes and None in tuples, lists and dicts",
        do="give the loader raw=, a function from an index to the sample as it is to be remembered",
    )


def _put_together(
    form: Form,
    path: str,
    columns: Mapping[str, _Column],
    slot: int,
    tensor: Callable[[Array], Any],
) -> Any:
    if isinstance(form, tuple | list):
        parts = [
            _put_together(part, f"{path}[{i}]", columns, slot, tensor)
            for i, part in enumerate(form)
        ]
        return tuple(parts) if isinstance(form, tuple) else parts
    if isinstance(form, dict):
        return {
            key: _put_together(part, f"{path}[{key!r}]", columns, slot, tensor)
            for key, part in form.items()
        }
    if form == "none":
        return None
    array = columns[f"{path}:{form}"].read(slot)
    match form:
        case "bool" | "int" | "float":
            return array.item()
        case "text":
            return array.tobytes().decode("utf-8", "surrogatepass")
        case "bytes":
            return array.tobytes()
        case "numpy":
            return array
        case "scalar":
            return array[()]
        case _:
            return tensor(array)


def _batched(
    form: Form,
    path: str,
    columns: Mapping[str, _Column],
    slots: Indices,
    tensor: Callable[[Array], Any],
) -> Any | None:
    if isinstance(form, tuple | list):
        parts = [
            _batched(part, f"{path}[{i}]", columns, slots, tensor) for i, part in enumerate(form)
        ]
        return None if any(part is None for part in parts) else parts
    if isinstance(form, dict):
        found = {
            key: _batched(part, f"{path}[{key!r}]", columns, slots, tensor)
            for key, part in form.items()
        }
        return None if any(part is None for part in found.values()) else found
    if form in ("none", "text", "bytes"):
        return None
    rows = columns[f"{path}:{form}"].rows(slots)
    return None if rows is None else tensor(rows)


def _keys(form: Form, path: str) -> set[str]:
    """The columns that a sample of this form has a part in."""
    if isinstance(form, tuple | list):
        return set().union(*(_keys(part, f"{path}[{i}]") for i, part in enumerate(form)))
    if isinstance(form, dict):
        return set().union(*(_keys(part, f"{path}[{key!r}]") for key, part in form.items()))
    return set() if form == "none" else {f"{path}:{form}"}
