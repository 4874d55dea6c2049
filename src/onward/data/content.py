"""The content of an item in one canonical form, and what that identifies it by.

Equal content has equal bytes, on every system and in every release of Onward and of its libraries:

| value | bytes |
|---|---|
| `None`, `True`, `False` | `n`, `t`, `f` |
| whole number | `i`, hexadecimal digits, `;` |
| float | `d`, 8 bytes IEEE 754, little end first; every NaN is one |
| text, bytes | `s` or `b`, number of bytes, `:`, UTF-8 or the bytes |
| decimal number | `x`, as text |
| list or tuple | `l`, number of values, `:`, the values |
| dict | `m`, number of entries, `:`, key and value of each, in the order of the keys' bytes |
| array, tensor, NumPy's number | `a`, dtype and shape as text, the elements, little end first |
"""

from __future__ import annotations

import decimal
import math
import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from onward.data.items import DIGEST_BYTES, Digests, Items, halves
from onward.errors import DataError

_NAN = struct.pack("<d", math.nan)
_DEEPEST = 100


def identify(
    dataset: Any,
    ids: str | Sequence[str | int | bytes] | Callable[[int], str | int | bytes] | None,
) -> Items:
    """What the items of any map-style dataset are known by.

    `ids`: `"content"` for the canonical form of what `dataset[i]` returns (the n-th of equal items
    is an item of its own), one id per item, a function from index to id, or `None` for data that
    only ever grows at its end. Raises `DataError` for an empty dataset, ids that are too many, too
    few or not unique, and content that has no canonical form, named by its path in the item.
    """
    count = _length(dataset)
    if ids is None:
        return Items.counted(count)
    if isinstance(ids, str):
        if ids != "content":
            raise DataError(f"ids is {ids!r}", do='give ids="content", a sequence or a function')
        return _by_content(dataset, count)
    if callable(ids):
        return Items.identified([ids(index) for index in range(count)])
    if len(ids) != count:
        raise DataError(
            f"the dataset has {count} items, but {len(ids)} ids are given",
            do="give one id for each item",
        )
    return Items.identified(ids)


def canonical(value: Any, name: str = "the value") -> bytes:
    """`value` as bytes that are equal if and only if it is. Raises `DataError` with its path."""
    try:
        return encoded(value)
    except _NoForm as error:
        path = error.path if len(error.path) < 200 else f"{error.path[:200]}…"
        raise DataError(
            f"{name}{path} is a {error.what}, which has no canonical content",
            do="let it be numbers, text, bytes, arrays, tensors, or lists, tuples and dicts of "
            "them, or give ids=",
        ) from error


def digest_of_content(content: bytes) -> bytes:
    """The 16 bytes that identify a canonical form."""
    return blake3(content).digest(length=DIGEST_BYTES)


def with_occurrences(digests: Digests) -> Digests:
    """Digests of which the n-th among equal ones stands for the n-th such item, so all differ."""
    high, low = halves(digests)
    if not has_equal(high):
        return digests
    order = np.lexsort((low, high))
    again = (high[order][1:] == high[order][:-1]) & (low[order][1:] == low[order][:-1])
    if not again.any():
        return digests
    # Within a run of equal digests the sort keeps the order of the items.
    position = np.arange(len(order))
    first = np.maximum.accumulate(np.where(np.concatenate([[False], again]), 0, position))
    occurrence = position - first
    distinct = digests.copy()
    for index, nth in zip(order[occurrence > 0], occurrence[occurrence > 0].tolist(), strict=True):
        own = digest_of_content(b"%d:" % nth + digests[index].tobytes())
        distinct[index] = np.frombuffer(own, np.uint8)
    return distinct


def has_equal(numbers: npt.NDArray[np.uint64]) -> bool:
    """Whether two of them are equal; far quicker than finding which."""
    ordered = np.sort(numbers)
    return bool((ordered[1:] == ordered[:-1]).any())


class _NoForm(Exception):
    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what
        self.path = ""


def encoded(value: Any, depth: int = 0) -> bytes:
    """As `canonical`, for values that are known to have a form, such as a parsed row's."""
    encode = ENCODERS.get(value.__class__)
    if encode is not None:
        return encode(value)
    if depth > _DEEPEST:
        raise _NoForm("structure that is too deep, or contains itself")
    if isinstance(value, list | tuple):
        parts = [_within(item, f"[{index}]", depth) for index, item in enumerate(value)]
        return b"l%d:" % len(parts) + b"".join(parts)
    if isinstance(value, dict):
        return _encoded_dict(value, depth)
    if isinstance(value, np.ndarray | np.generic):
        return _encoded_array(value, depth)
    for kind in (bool, int, float, str, bytes):
        if isinstance(value, kind):  # as an enumeration's members are
            return ENCODERS[kind](value)
    if isinstance(value, decimal.Decimal):
        return b"x" + _text(str(value))
    return _encoded_tensor(value, depth)


def _text(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogatepass")
    return b"s%d:" % len(raw) + raw


def _float(value: float) -> bytes:
    return b"d" + (struct.pack("<d", value) if value == value else _NAN)


ENCODERS: dict[type, Callable[[Any], bytes]] = {
    type(None): lambda value: b"n",
    bool: lambda value: b"t" if value else b"f",
    int: lambda value: b"i%x;" % value,  # decimal digits are limited to 4,300
    float: _float,
    str: _text,
    bytes: lambda value: b"b%d:" % len(value) + value,
}


def _within(value: Any, path: str, depth: int) -> bytes:
    try:
        return encoded(value, depth + 1)
    except _NoForm as error:
        error.path = path + error.path
        raise


def _encoded_dict(value: dict[Any, Any], depth: int) -> bytes:
    entries = sorted(
        (_within(key, f" key {key!r}", depth), _within(item, f"[{key!r}]", depth))
        for key, item in value.items()
    )
    return b"m%d:" % len(entries) + b"".join(key + item for key, item in entries)


def _encoded_array(value: Any, depth: int, dtype: str = "") -> bytes:
    if isinstance(value, np.ma.MaskedArray):
        raise _NoForm("masked array")
    array = np.asarray(value)
    if array.dtype.kind in "UO" and array.ndim == 0:
        return encoded(array.item(), depth + 1)
    if array.dtype.kind in "UO":
        return _within(array.tolist(), "", depth)
    padded = array.dtype.kind in "fc" and array.dtype in (np.longdouble, np.clongdouble)
    if array.dtype.kind not in "biufcSMm" or padded:
        raise _NoForm(f"NumPy array of {array.dtype}")
    array = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(array.shape)
    if array.dtype.kind in "fc":
        array = np.where(np.isnan(array), np.array(np.nan, array.dtype), array)
    about = f"{dtype or array.dtype.newbyteorder('<').str}{list(array.shape)}"
    return b"a" + _text(about) + array.tobytes()


def _encoded_tensor(value: Any, depth: int) -> bytes:
    """Tensors of any framework, by the methods that turn them into arrays."""
    what = f"{type(value).__module__}.{type(value).__qualname__}"
    for name in ("detach", "cpu"):
        method = getattr(value, name, None)
        value = method() if callable(method) else value
    to_array = getattr(value, "numpy", None) or getattr(value, "asnumpy", None)
    if not callable(to_array):
        raise _NoForm(what)
    try:
        try:
            return _encoded_array(to_array(), depth)
        except TypeError:
            # NumPy has no bfloat16; every such number is a float32 as well.
            return _encoded_array(value.float().numpy(), depth, dtype=str(value.dtype))
    except (TypeError, RuntimeError, ValueError, AttributeError) as error:
        raise _NoForm(f"{what} that cannot be an array ({error})") from error


def _by_content(dataset: Any, count: int) -> Items:
    found = bytearray()
    for index in range(count):
        found += digest_of_content(canonical(dataset[index], f"item {index}"))
    if digest_of_content(canonical(dataset[0], "item 0")) != bytes(found[:DIGEST_BYTES]):
        raise DataError(
            "item 0 has another content each time it is read",
            why="the dataset may augment its items at random",
            do="identify the dataset without augmentations, or give an id for each item",
        )
    digests = np.frombuffer(bytes(found), np.uint8).reshape(count, DIGEST_BYTES)
    return Items(count, with_occurrences(digests), "identified")


def _length(dataset: Any) -> int:
    try:
        count = len(dataset)
    except TypeError as error:
        raise DataError(
            f"a {type(dataset).__name__} has no length",
            do="give a map-style dataset, with __len__ and __getitem__",
        ) from error
    if not count:
        raise no_items("the dataset")
    return count


def no_items(what: str) -> DataError:
    return DataError(f"the data is empty: {what} has no items", do="check where the data is")
