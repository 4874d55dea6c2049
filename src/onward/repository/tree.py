"""The state tree as typed JSON that reads back equal, floats bit for bit (docs/format.md §3.1)."""

from __future__ import annotations

import base64
import enum
import math
import re
import struct
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from onward.errors import Damaged, StateError, Unstorable
from onward.frameworks.base import Tagged, TensorLeaf

_EXACT_INT = 1 << 53
_MAX_DEPTH = 56  # leaves room for the manifest around the tree
_NUMPY_KINDS = re.compile(r"[<|][biufc][0-9]{1,2}")


def encode(tree: Any, tensor: Callable[[str, TensorLeaf], int]) -> Any:
    """`tree` as JSON values; `tensor` is told each leaf with its path and returns its index.

    Raises `Unstorable`, naming the path of the first object that is none of the known kinds.
    """
    return _encode(tree, "", 0, tensor)


def decode(document: Any, tensor: Callable[[int], Any]) -> Any:
    """The tree that `encode` was given; `tensor` turns an index back into a leaf."""
    return _decode(document, 0, tensor)


def join(path: str, key: object) -> str:
    """The path of a child, as messages and packs show it."""
    step = key if isinstance(key, str) else f"[{key!r}]"
    return f"{path}/{step}" if path else str(step)


def _encode(value: Any, path: str, depth: int, tensor: Callable[[str, TensorLeaf], int]) -> Any:
    if depth > _MAX_DEPTH:
        raise Unstorable(
            f"{path} is nested deeper than {_MAX_DEPTH} levels",
            why="either the state contains itself or it is not a state tree",
        )

    def inner(child: Any, key: object) -> Any:
        return _encode(child, join(path, key), depth + 1, tensor)

    if isinstance(value, enum.Enum):
        kind = type(value)
        return {"$enum": [f"{kind.__module__}:{kind.__qualname__}", value.name]}
    match value:
        case None | bool():
            return value
        case TensorLeaf():
            return {"$tensor": tensor(path, value)}
        case Tagged():
            return {"$tagged": [value.tag, inner(value.value, value.tag)]}
        case np.generic():
            return _encode_numpy(value, path)
        case str():
            return _text(value, path)
        case int():
            return int(value) if abs(value) < _EXACT_INT else {"$int": str(int(value))}
        case float():
            return _encode_float(float(value))
        case complex():
            return {"$complex": [_encode_float(value.real), _encode_float(value.imag)]}
        case bytes() | bytearray():
            return {"$bytes": base64.b64encode(value).decode("ascii")}
        case tuple():
            return {"$tuple": [inner(child, i) for i, child in enumerate(value)]}
        case list():
            return [inner(child, i) for i, child in enumerate(value)]
        case set() | frozenset():
            tag = "$set" if isinstance(value, set) else "$frozenset"
            return {tag: [inner(child, "{}") for child in sorted(value, key=repr)]}
        case Mapping():
            return _encode_mapping(value, path, inner)
    raise Unstorable(
        f"{path or 'the state'} is a {type(value).__module__}.{type(value).__qualname__}",
        why="only names, numbers, text, bytes, tensors and containers of them are stored",
        do="leave it out of state_dict(), or give its class state_dict() and load_state_dict()",
    )


def _encode_mapping(
    value: Mapping[Any, Any], path: str, inner: Callable[[Any, object], Any]
) -> dict[str, Any]:
    if all(isinstance(k, str) and type(k) is str and not k.startswith("$") for k in value):
        return {_text(k, path): inner(child, k) for k, child in value.items()}
    pairs = [[inner(k, "key"), inner(child, k)] for k, child in value.items()]
    return {"$dict": pairs}


def _encode_float(value: float) -> Any:
    if math.isfinite(value):
        return value
    return {"$float": struct.pack(">d", value).hex()}


def _encode_numpy(value: np.generic, path: str) -> dict[str, Any]:
    array = np.asarray(value)
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    if not _NUMPY_KINDS.fullmatch(little.dtype.str):
        raise Unstorable(f"{path} is a NumPy {array.dtype} scalar", do="store a number instead")
    return {"$numpy": [little.dtype.str, little.tobytes().hex()]}


def _text(value: str, path: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise Unstorable(f"{path} is text that UTF-8 cannot hold", why=str(error)) from error
    return str(value)


def _decode(value: Any, depth: int, tensor: Callable[[int], Any]) -> Any:
    if depth > _MAX_DEPTH * 2:
        raise Damaged("the state tree is nested too deeply")
    if isinstance(value, list):
        return [_decode(child, depth + 1, tensor) for child in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((tag, body),) = value.items()
        if tag.startswith("$"):
            try:
                return _decode_tagged(tag, body, depth + 1, tensor)
            except (TypeError, ValueError, KeyError, IndexError, struct.error) as error:
                raise Damaged(f"the state tree has a bad {tag}", why=str(error)) from error
    for key in value:
        if key.startswith("$"):
            raise Damaged(f"the state tree has an unknown entry {key[:40]!r}")
    return {key: _decode(child, depth + 1, tensor) for key, child in value.items()}


def _decode_tagged(tag: str, body: Any, depth: int, tensor: Callable[[int], Any]) -> Any:
    def each() -> list[Any]:
        if not isinstance(body, list):
            raise ValueError("its body is not an array")
        return [_decode(child, depth, tensor) for child in body]

    match tag:
        case "$tensor":
            if type(body) is not int or body < 0:
                raise ValueError("its index is not a count")
            return tensor(body)
        case "$tuple":
            return tuple(each())
        case "$set":
            return set(each())
        case "$frozenset":
            return frozenset(each())
        case "$dict":
            pairs = [(_decode(k, depth, tensor), _decode(v, depth, tensor)) for k, v in body]
            result = dict(pairs)
            if len(result) != len(pairs):
                raise ValueError("a key appears twice")
            return result
        case "$int":
            return int(body)
        case "$float":
            return struct.unpack(">d", bytes.fromhex(body))[0]
        case "$complex":
            real, imaginary = each()
            return complex(real, imaginary)
        case "$bytes":
            return base64.b64decode(body, validate=True)
        case "$numpy":
            kind, data = body
            if not _NUMPY_KINDS.fullmatch(kind):
                raise ValueError(f"unknown dtype {kind[:20]!r}")
            return np.frombuffer(bytes.fromhex(data), dtype=kind, count=1)[0]
        case "$tagged":
            name, content = body
            if not isinstance(name, str):
                raise ValueError("its tag is not text")
            return Tagged(name, _decode(content, depth, tensor))
        case "$enum":
            return _enum_member(*body)
    raise Damaged(f"the state tree has an unknown entry {tag[:40]!r}")


def _enum_member(kind: str, member: str) -> enum.Enum:
    # Never imports: a document must not choose which code runs.
    module, _, qualified = kind.partition(":")
    found: Any = sys.modules.get(module)
    for name in qualified.split("."):
        found = getattr(found, name, None)
    if not (isinstance(found, type) and issubclass(found, enum.Enum)):
        raise StateError(
            f"the state holds a member of the enum {kind[:200]!r}, which is not loaded",
            do=f"import {module[:100]} before restoring, if you know it",
        )
    return found[member]
