"""JSON documents read with suspicion: size, nesting, duplicate keys, numbers."""

from __future__ import annotations

import json
import math
import re
import threading
from typing import Any, TypeVar

import msgspec
from blake3 import blake3

from onward.errors import Damaged, NewerFormat

FORMAT = 1
MAX_DEPTH = 64
MAX_RECORD_BYTES = 1 << 20
MAX_MANIFEST_BYTES = 64 << 20
MAX_SUMMARY_BYTES = 256 << 20
MAX_COUNT = (1 << 53) - 1
_MAX_DIGITS = 400  # no finite float needs more; int() of a megabyte of digits is quadratic
_BYTES_PER_VALUE = 16  # `[],[],[],…` takes 25 times its length in memory: so many are no document

# A string that never ends is one match too: searched again from each quote in it, a hostile
# document would take quadratic time.
_NOT_BRACKETS = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[^"\[{\]}]++', re.DOTALL)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")

_BLANK_SEAL = b'"digest":""}'
_END = b'"}'  # what follows the 64 digits of a seal

T = TypeVar("T")

_ready: set[Any] = set()
_making_ready = threading.Lock()


def digest_of(data: bytes | bytearray | memoryview) -> str:
    """BLAKE3-256 of `data` as 64 hexadecimal digits."""
    return blake3(data, max_threads=blake3.AUTO if len(data) > 1 << 20 else 1).hexdigest()


def to_bytes(document: Any) -> bytes:
    """The stored form of a document. Key order is kept: in a state tree it carries meaning."""
    return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def sealed(document: dict[str, Any]) -> bytes:
    """The stored form with one more field, the last: the digest of all the others."""
    return with_seal(to_bytes({**document, "digest": ""}))


def with_seal(blank: bytes) -> bytes:
    """A stored form whose last field is an empty `digest`, with that digest filled in."""
    assert blank.endswith(_BLANK_SEAL)
    return blank[: -len(_END)] + digest_of(blank).encode() + _END


def check_seal(data: bytes, *, name: str) -> None:
    """Raises `Damaged` unless `data` is what `with_seal` once made, every bit of it."""
    claimed = data[-len(_END) - 64 : -len(_END)]
    blank = data[: -len(_END) - 64] + _END
    if not blank.endswith(_BLANK_SEAL) or digest_of(blank).encode() != claimed:
        raise Damaged(f"{name} is damaged", why="its bytes are not those that its digest names")


def from_bytes(data: bytes, *, name: str, max_bytes: int, newest: int = FORMAT) -> dict[str, Any]:
    """Parses an untrusted document into plain values, or raises `Damaged` or `NewerFormat`.

    `newest` is the highest format that the caller can read.
    Takes memory of at most a dozen times `max_bytes`.
    """
    if len(data) > max_bytes:
        raise Damaged(f"{name} is {len(data):,} bytes long", why=f"the limit is {max_bytes:,}")
    try:
        text = data.decode("utf-8")
        if sum(map(text.count, ",[{")) > max_bytes // _BYTES_PER_VALUE:
            raise ValueError("it holds too many values")
        _check_depth(text)
        document = json.loads(
            text,
            object_pairs_hook=_unique_keys,
            parse_constant=_no_constant,
            parse_int=_bounded_int,
            parse_float=_finite_float,
        )
        if _SURROGATE.search(text):
            to_bytes(document)  # fails where half a pair stands alone: no text can hold that
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{name} is not a readable document", why=str(error)) from error
    if not isinstance(document, dict):
        raise Damaged(f"{name} is not a readable document", why="it is not a JSON object")
    version = document.get("format")
    if isinstance(version, int) and not isinstance(version, bool) and version > newest:
        raise NewerFormat(
            f"{name} has format {str(version)[:20]}",
            why=f"this Onward reads format {newest}",
            do="upgrade onward, or read the output with the version that wrote it",
        )
    if not isinstance(version, int) or isinstance(version, bool) or version < FORMAT:
        raise Damaged(f"{name} is not a readable document", why=f"its format is {version!r:.40}")
    return document


def convert(document: Any, type_: type[T], *, name: str) -> T:
    """`document` as the msgspec struct `type_`, every field checked; else `Damaged`."""
    make_ready(type_)
    try:
        return msgspec.convert(document, type_, strict=True)
    except msgspec.ValidationError as error:
        raise Damaged(f"{name} is not a valid document", why=str(error)) from error


def make_ready(type_: Any) -> None:
    """Before a thread reads a struct for the first time.

    msgspec looks at a struct's fields then, and what it knows halfway it shares with other threads:
    two that begin at the same moment end the process with a segmentation fault (msgspec 0.22).
    """
    if type_ not in _ready:
        with _making_ready:
            msgspec.json.Decoder(type_)
            _ready.add(type_)


def _check_depth(text: str) -> None:
    # The parser recurses in C; looking at the brackets outside of strings first keeps a hostile
    # document from ever taking it deep.
    depth = 0
    for bracket in _NOT_BRACKETS.sub("", text):
        depth += 1 if bracket in "[{" else -1
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested deeper than {MAX_DEPTH}")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {key!r:.80} appears twice in one object")
            seen.add(key)
    return result


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _bounded_int(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)


def _finite_float(digits: str) -> float:
    value = float(digits) if len(digits) <= _MAX_DIGITS else math.inf
    if not math.isfinite(value):
        raise ValueError(f"the number {digits[:40]} is out of range")
    return value
