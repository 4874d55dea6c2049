"""The state tree as typed JSON that reads back equal, floats bit for bit (docs/format.md §3.1)."""

from __future__ import annotations

import base64
import enum
import math
import re
import struct
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np

from onward.errors import Damaged, StateError, Unstorable
from onward.frameworks.base import Tagged, TensorLeaf
from onward.repository.documents import MAX_DEPTH

_EXACT_INT = 1 << 53
_MAX_DIGITS = 4300  # more than that Python itself refuses to read
_MAX_DEPTH = MAX_DEPTH - 1  # of brackets; one is the manifest's own
_LEAF_DEPTH = 3  # the most brackets that a value without children opens
# The same on every machine, which long double is not.
_NUMPY_KINDS = frozenset(
    ["|b1", "|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8", "<c8",
     "<c16"]
)  # fmt: skip
_INTEGER = re.compile(rf"-?[0-9]{{1,{_MAX_DIGITS}}}")
_HEX64 = re.compile(r"[0-9a-f]{16}")

ToIndex: TypeAlias = Callable[[str, TensorLeaf], int]
ToLeaf: TypeAlias = Callable[[int], Any]


def encode(tree: Any, tensor: ToIndex) -> Any:
    """`tree` as JSON values; `tensor` is told each leaf with its path and returns its index.

    Raises `Unstorable`, naming the path of the first object that is none of the known kinds.
    """
    return _encode(tree, "", 0, tensor)


def decode(document: Any, tensor: ToLeaf) -> Any:
    """The tree that `encode` was given; `tensor` turns an index back into a leaf.

    Raises `Damaged` for what `encode` cannot have made, `StateError` for an enum that is not known.
    """
    return _decode(document, 0, tensor)


def join(path: str, key: object) -> str:
    """The path of a child, as messages and packs show it."""
    step = key if isinstance(key, str) else f"[{key!r}]"
    return f"{path}/{step}" if path else str(step)


def _encode(value: Any, path: str, depth: int, tensor: ToIndex) -> Any:
    """`depth` is the number of brackets around the value in the document."""
    if depth > _MAX_DEPTH - _LEAF_DEPTH:
        raise Unstorable(
            f"{path:.200} … is nested too deeply",
            why=f"a manifest has {MAX_DEPTH} levels of brackets; perhaps the state contains itself",
            do="store a flatter state",
        )

    def inner(child: Any, key: object, brackets: int) -> Any:
        return _encode(child, join(path, key), depth + brackets, tensor)

    match value:
        case enum.Enum():
            return _encode_enum(value, path)
        case None | bool():
            return value
        case TensorLeaf():
            return {"$tensor": tensor(path, value)}
        case Tagged():
            return {"$tagged": [_text(value.tag, path), inner(value.value, value.tag, 2)]}
        case np.generic():
            return _encode_numpy(value, path)
        case str():
            return _text(value, path)
        case int():
            return _encode_int(value, path)
        case float():
            return _encode_float(value)
        case complex():
            return {"$complex": [_encode_float(value.real), _encode_float(value.imag)]}
        case bytes() | bytearray():
            return {"$bytes": base64.b64encode(value).decode("ascii")}
        case tuple():
            return {"$tuple": [inner(child, i, 2) for i, child in enumerate(value)]}
        case list():
            return [inner(child, i, 1) for i, child in enumerate(value)]
        case set() | frozenset():
            tag = "$set" if isinstance(value, set) else "$frozenset"
            return {tag: [_encode_key(k, path, depth + 2) for k in sorted(value, key=repr)]}
        case Mapping() if all(type(k) is str and not k.startswith("$") for k in value):
            return {_text(k, path): inner(child, k, 1) for k, child in value.items()}
        case Mapping():
            pairs = value.items()
            return {"$dict": [[_encode_key(k, path, depth + 3), inner(v, k, 3)] for k, v in pairs]}
    raise Unstorable(
        f"{path or 'the state'} is a {type(value).__module__}.{type(value).__qualname__}",
        why="only names, numbers, text, bytes, tensors and containers of them are stored",
        do="leave it out of state_dict(), or give its class state_dict() and load_state_dict()",
    )


def _encode_key(key: Any, path: str, depth: int) -> Any:
    def refuse(where: str, leaf: TensorLeaf) -> int:
        raise Unstorable(
            f"{path or 'the state'} has a tensor as a key or in a set",
            why="a tensor that is read back is another object, and would not be found there",
            do="use a name or a number as the key, or a list instead of the set",
        )

    return _encode(key, join(path, "key"), depth, refuse)


def _encode_enum(value: enum.Enum, path: str) -> dict[str, Any]:
    kind = type(value)
    name = f"{kind.__module__}:{kind.__qualname__}"
    if _loaded_class(name) is not kind or kind.__members__.get(value.name) is not value:
        raise Unstorable(
            f"{path or 'the state'} is {value!r:.200}, which could not be found again by its name",
            why="an enum is stored as a class that its module names, and one of its members",
            do="store its .value",
        )
    return {"$enum": [name, value.name]}


def _encode_int(value: int, path: str) -> Any:
    if abs(value) < _EXACT_INT:
        return int(value)
    try:
        digits = int.__repr__(value)
    except ValueError:
        digits = ""
    if not _INTEGER.fullmatch(digits):
        raise Unstorable(
            f"{path or 'the state'} is an integer of more than {_MAX_DIGITS:,} digits",
            do="store its bytes",
        )
    return {"$int": digits}


def _encode_float(value: float) -> Any:
    if math.isfinite(value):
        return float(value)
    return {"$float": struct.pack(">d", value).hex()}


def _encode_numpy(value: np.generic, path: str) -> dict[str, Any]:
    array = np.asarray(value)
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    if little.dtype.str not in _NUMPY_KINDS:
        raise Unstorable(
            f"{path or 'the state'} is a NumPy {array.dtype} scalar",
            do="store a number or text of Python's own",
        )
    return {"$numpy": [little.dtype.str, little.tobytes().hex()]}


def _text(value: str, path: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise Unstorable(f"{path} is text that UTF-8 cannot hold", why=str(error)) from error
    return str.__str__(value)


def _decode(value: Any, depth: int, tensor: ToLeaf) -> Any:
    if depth > MAX_DEPTH:
        raise Damaged("the state tree is nested too deeply")
    if isinstance(value, list):
        return [_decode(child, depth + 1, tensor) for child in value]
    if not isinstance(value, dict):
        return value
    tag = next((key for key in value if key.startswith("$")), None)
    if tag is None:
        return {key: _decode(child, depth + 1, tensor) for key, child in value.items()}
    if len(value) != 1:
        raise Damaged(f"the state tree has an entry {tag[:40]!r} beside others")
    try:
        return _decode_tagged(tag, value[tag], depth + 1, tensor)
    except (TypeError, ValueError) as error:
        raise Damaged(f"the state tree has a bad {tag[:40]}", why=str(error)) from error


def _decode_tagged(tag: str, body: Any, depth: int, tensor: ToLeaf) -> Any:
    def each() -> list[Any]:
        return [_decode(child, depth + 1, tensor) for child in _array(body)]

    match tag:
        case "$tensor":
            if type(body) is not int or body < 0:
                raise ValueError("its index is not a count")
            return tensor(body)
        case "$tuple":
            return tuple(each())
        case "$set":
            return set(_distinct(each()))
        case "$frozenset":
            return frozenset(_distinct(each()))
        case "$dict":
            pairs = [_array(pair, 2) for pair in _array(body)]
            keys = _distinct(_decode(key, depth + 2, tensor) for key, _ in pairs)
            values = [_decode(child, depth + 2, tensor) for _, child in pairs]
            return dict(zip(keys, values, strict=True))
        case "$int":
            return int(_matching(body, _INTEGER))
        case "$float":
            return struct.unpack(">d", bytes.fromhex(_matching(body, _HEX64)))[0]
        case "$complex":
            real, imaginary = each()
            if type(real) is not float or type(imaginary) is not float:
                raise ValueError("its parts are not two floats")
            return complex(real, imaginary)
        case "$bytes":
            return base64.b64decode(_string(body), validate=True)
        case "$numpy":
            return _numpy_scalar(*map(_string, _array(body, 2)))
        case "$tagged":
            name, content = _array(body, 2)
            return Tagged(_string(name), _decode(content, depth + 1, tensor))
        case "$enum":
            return _enum_member(*map(_string, _array(body, 2)))
    raise Damaged(f"the state tree has an unknown entry {tag[:40]!r}")


def _array(body: Any, length: int | None = None) -> list[Any]:
    if not isinstance(body, list) or length not in (None, len(body)):
        raise ValueError("its body is not " + (f"{length} values" if length else "an array"))
    return body


def _string(body: Any) -> str:
    if not isinstance(body, str):
        raise ValueError("its body is not text")
    return body


def _matching(body: Any, pattern: re.Pattern[str]) -> str:
    if not pattern.fullmatch(_string(body)):
        raise ValueError(f"{body[:40]!r} is not of its form")
    return str(body)


def _distinct(keys: Iterable[Any]) -> list[Any]:
    listed = list(keys)
    if len(set(listed)) != len(listed):
        raise ValueError("a key appears twice")
    return listed


def _numpy_scalar(kind: str, data: str) -> Any:
    if kind not in _NUMPY_KINDS:
        raise ValueError(f"unknown dtype {kind[:20]!r}")
    dtype, content = np.dtype(kind), bytes.fromhex(data)
    if len(content) != dtype.itemsize:
        raise ValueError(f"{len(content)} bytes of a {kind}")
    return np.frombuffer(content, dtype=dtype)[0]


def _enum_member(kind: str, member: str) -> enum.Enum:
    found = _loaded_class(kind)
    if not (isinstance(found, type) and issubclass(found, enum.Enum)):
        raise StateError(
            f"the state holds a member of the enum {kind[:200]!r}, which is not loaded",
            do=f"import {kind.partition(':')[0][:100]} before restoring, if you know it",
        )
    if member not in found.__members__:
        raise StateError(
            f"the enum {kind[:200]} has no member {member[:200]!r}, which the state holds",
            do="restore with the version of the code that saved it",
        )
    return found.__members__[member]


def _loaded_class(kind: str) -> Any:
    """What `module:qualified name` stands for, if it is loaded already.

    Never imports, and runs no code of a module either, which might: a document must not choose
    what happens. Hence no `getattr`, which asks a lazy module's `__getattr__`.
    """
    module, _, qualified = kind.partition(":")
    found: Any = sys.modules.get(module)
    for name in qualified.split("."):
        try:
            found = object.__getattribute__(found, "__dict__").get(name)
        except AttributeError:
            return None
    return found
