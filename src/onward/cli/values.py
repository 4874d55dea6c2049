"""How far two tensors are apart, computed from their raw bytes with NumPy alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from onward.frameworks.base import ITEM_BYTES

_CHUNK_ELEMENTS = 1 << 20
_NUMPY = {
    "BOOL": "|u1", "U8": "|u1", "I8": "|i1", "U16": "<u2", "I16": "<i2", "F16": "<f2",
    "U32": "<u4", "I32": "<i4", "F32": "<f4", "U64": "<u8", "I64": "<i8", "F64": "<f8",
    "C64": "<f4", "C128": "<f8",  # a complex number counts as two components
}  # fmt: skip

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]


@dataclass(slots=True)
class Difference:
    """By how much a second tensor differs from a first one of the same shape.

    `max_abs` and `relative_l2` (the norm of the difference over the norm of the first, None if
    that is 0) are over elements where the difference is a finite number; `not_finite` counts the
    others. `changed` is the number of elements whose bits differ, None where the dtypes do.
    """

    elements: int
    changed: int | None
    max_abs: float
    relative_l2: float | None
    not_finite: int


def difference(first: Bytes, second: Bytes, dtypes: tuple[str, str]) -> Difference:
    """Compares raw bytes of equally many elements, in steps that need little memory."""
    items = [ITEM_BYTES[dtype] for dtype in dtypes]
    elements = first.size // items[0]
    changed = 0 if dtypes[0] == dtypes[1] else None
    max_abs, squares, base_squares, not_finite = 0.0, 0.0, 0.0, 0
    for start in range(0, elements, _CHUNK_ELEMENTS):
        stop = min(start + _CHUNK_ELEMENTS, elements)
        raw = [
            data[start * item : stop * item]
            for data, item in zip((first, second), items, strict=True)
        ]
        if changed is not None:
            bits = (raw[0] != raw[1]).reshape(-1, items[0])
            changed += int(np.count_nonzero(bits.any(axis=1)))
        a, b = (to_floats(piece, dtype) for piece, dtype in zip(raw, dtypes, strict=True))
        with np.errstate(all="ignore"):
            apart = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, b - a)
            finite = np.isfinite(apart)
            not_finite += int(apart.size - np.count_nonzero(finite))
            apart = np.where(finite, apart, 0.0)
            max_abs = max(max_abs, float(np.abs(apart).max(initial=0.0)))
            squares += float(np.dot(apart, apart))
            base = np.where(finite & np.isfinite(a), a, 0.0)
            base_squares += float(np.dot(base, base))
    return Difference(elements, changed, max_abs, _relative(squares, base_squares), not_finite)


def _relative(squares: float, base_squares: float) -> float | None:
    if not squares:
        return 0.0
    if not base_squares or not math.isfinite(squares + base_squares):
        return None
    return math.sqrt(squares / base_squares)


def to_floats(data: Bytes, dtype: str) -> Floats:
    """Raw little-endian bytes as float64, exact for every dtype but 64-bit integers."""
    match dtype:
        case "BF16":
            wide = data.view("<u2").astype("<u4") << 16
            return wide.view("<f4").astype(np.float64)
        case "F8_E5M2":
            return (data.astype("<u2") << 8).view("<f2").astype(np.float64)
        case "F8_E4M3":
            values: Floats = _e4m3_values()[data]
            return values
    return data.view(_NUMPY[dtype]).astype(np.float64)


@cache
def _e4m3_values() -> Floats:
    """The 256 values of float8 e4m3fn: bias 7, no infinities, 0x7f and 0xff are not numbers."""
    codes: npt.NDArray[Any] = np.arange(256)
    exponent, mantissa = (codes >> 3) & 15, codes & 7
    magnitude = np.where(
        exponent == 0,
        mantissa * 2.0**-9,
        (1 + mantissa / 8) * 2.0 ** (exponent.astype(np.float64) - 7),
    )
    magnitude[[0x7F, 0xFF]] = np.nan
    return np.where(codes >= 128, -magnitude, magnitude)
