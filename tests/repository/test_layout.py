"""What a checkpoint writes: patches while they pay, whole tensors when they no longer do."""

from __future__ import annotations

import numpy as np

from onward.frameworks.base import TensorLeaf
from onward.repository.layout import Base, by_comparison
from onward.repository.manifest import Full, Range, Rows, Tensor
from onward.repository.staging import NONE, Slot

ROWS, WIDTH = 10_000, 100
PACK = "0" * 32


def slot(*, rows: int) -> Slot:
    """A table of which so many rows have changed since it was stored."""
    memory = np.zeros(ROWS * WIDTH, dtype=np.uint8)
    leaf = TensorLeaf("U8", (ROWS, WIDTH), "numpy", memory)
    return Slot(leaf, everything=False, rows=np.arange(rows) if rows else NONE)


def stored(*patches: int) -> Base:
    """The table as its parent left it: whole, then patched so many rows at a time."""
    digest, parts, at = "1" * 64, [], 100
    parts.append(Full(Range(PACK, at, ROWS * WIDTH, digest)))
    for count in patches:
        index, rows = Range(PACK, at, count * 8, digest), Range(PACK, at, count * WIDTH, digest)
        parts.append(Rows(count, index=index, rows=rows))
    return Base(by_name={"x": Tensor("x", "numpy", "U8", [ROWS, WIDTH], digest, parts)})


def written(rows: int, *patches: int) -> int:
    """Bytes to be written for a table of a million, `rows` of it changed."""
    layout = by_comparison(["x"], [slot(rows=rows)], stored(*patches))
    return sum(entry.size_bytes for entry in layout.entries)


def test_unchanged_costs_nothing() -> None:
    assert written(0) == written(0, 100, 100) == 0


def test_a_patch_costs_its_rows_and_their_numbers() -> None:
    assert written(1600) == 1600 * (WIDTH + 8)
    assert written(3700) == 3700 * (WIDTH + 8)  # 0.4 of the table: 3703 rows


def test_a_patch_that_saves_little_is_not_made() -> None:
    assert written(3704) == ROWS * WIDTH
    assert written(ROWS) == ROWS * WIDTH


def test_patches_that_outweigh_their_table_twice_are_replaced_by_it() -> None:
    light, heavy = [1600] * 10, [1600] * 11  # 1.73 and 1.90 tables
    assert written(1600, *light) == 1600 * (WIDTH + 8)
    assert written(1600, *heavy) == ROWS * WIDTH


def test_patches_that_pile_up_are_replaced_by_the_whole() -> None:
    assert written(1, *[1] * 30) == WIDTH + 8
    assert written(1, *[1] * 31) == ROWS * WIDTH


def test_tensors_that_changed_in_the_same_rows_share_their_numbers() -> None:
    """A table and its moments: three patches, one index."""
    base = stored()
    tensor = base.by_name["x"]
    base.by_name = dict.fromkeys(("x", "m", "v"), tensor)
    layout = by_comparison(["x", "m", "v"], [slot(rows=50) for _ in range(3)], base)
    assert [entry.path for entry in layout.entries] == ["x#index", "x#rows", "m#rows", "v#rows"]
