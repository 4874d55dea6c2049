"""The staging copy: what is staged is what was live, and every change is seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onward.frameworks.base import ITEM_BYTES, TensorLeaf
from onward.repository.staging import Slot, Staging, TooLarge, row_bytes_of

MIB = 1 << 20


def leaf_of(array: Any, dtype: str = "U8") -> TensorLeaf:
    """A leaf that shares the memory of `array`, as live tensors do."""
    shape = (*array.shape[:-1], array.shape[-1] * array.itemsize // ITEM_BYTES[dtype])
    return TensorLeaf(dtype, shape, "numpy", array.reshape(-1).view(np.uint8))


def taken(staging: Staging, **arrays: Any) -> dict[str, Slot]:
    slots = staging.take([(name, leaf_of(array)) for name, array in arrays.items()])
    for slot, array in zip(slots, arrays.values(), strict=True):
        assert slot.memory.tobytes() == array.tobytes()
        assert not np.shares_memory(slot.memory, array)
    return dict(zip(arrays, slots, strict=True))


@pytest.mark.parametrize("row_bytes", [1, 3, 4, 6, 8, 12, 24, 64, 72, 256, 1000, 4096, 70_000])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.16, 0.49, 0.6, 1.0])
def test_every_changed_row_is_found_and_no_other(row_bytes: int, share: float) -> None:
    """For rows of any width: what is told as changed covers exactly what changed, or is all."""
    rng = np.random.default_rng(row_bytes)
    count = max(40, (3 * MIB) // row_bytes)
    live = rng.integers(0, 256, (count, row_bytes), dtype=np.uint8)
    staging = Staging(threads=2)
    taken(staging, table=live)
    staging.settle()
    chosen = np.sort(rng.permutation(count)[: int(share * count)])
    live[chosen, rng.integers(0, row_bytes, chosen.size)] ^= 1 << 3
    slot = taken(staging, table=live)["table"]
    if slot.everything:
        assert share > 0.3  # a few changes never make all of it count as changed
    else:
        assert slot.rows.tolist() == chosen.tolist() or share > 0.3
        assert set(chosen) <= set(slot.rows.tolist())


@given(st.integers(0, 2**32 - 1), st.data())
def test_one_flipped_bit_anywhere_is_seen(seed: int, data: st.DataObject) -> None:
    """Of any tensor, at any position: nothing that changed is ever taken for unchanged."""
    size = data.draw(st.sampled_from([1, 7, 64, 65_536, 65_537, 200_000]))
    rows = data.draw(st.sampled_from([n for n in (1, 2, 16, 100, size) if size % n == 0]))
    live = np.random.default_rng(seed).integers(0, 256, (rows, size // rows), dtype=np.uint8)
    staging = Staging(threads=2)
    taken(staging, x=live)
    staging.settle()
    assert not taken(staging, x=live)["x"].changed
    at = data.draw(st.integers(0, size - 1))
    live.reshape(-1)[at] ^= 1 << data.draw(st.integers(0, 7))
    slot = taken(staging, x=live)["x"]
    assert slot.everything or slot.rows.tolist() == [at // (size // rows)]


def test_values_that_compare_equal_but_differ_in_bits() -> None:
    """Comparison is by bytes: a zero that became negative is stored, the same NaN is not."""
    live = np.zeros((64, 1024), dtype=np.float32)
    live[5, 5] = np.nan
    staging = Staging()
    taken(staging, x=live)
    staging.settle()
    assert not taken(staging, x=live)["x"].changed
    live[7, 7] = -0.0
    assert taken(staging, x=live)["x"].rows.tolist() == [7]


def test_what_was_not_stored_is_still_owed() -> None:
    """Rows that changed before a save that failed are told again by the next one."""
    live = np.zeros((1000, 256), dtype=np.uint8)
    staging = Staging()
    taken(staging, x=live)
    staging.settle()
    live[3] = 1
    assert taken(staging, x=live)["x"].rows.tolist() == [3]
    live[[2, 900]] = 1
    assert taken(staging, x=live)["x"].rows.tolist() == [2, 3, 900]
    staging.settle()
    assert not taken(staging, x=live)["x"].changed


def test_a_tensor_of_another_kind_is_new() -> None:
    """A changed shape or dtype under an old name is no change of rows; a gone one is forgotten."""
    staging = Staging()
    taken(staging, x=np.zeros((100, 1000), dtype=np.uint8), y=np.zeros((1, 5), dtype=np.uint8))
    staging.settle()
    other = taken(staging, x=np.zeros((200, 1000), dtype=np.uint8))
    assert other["x"].everything
    assert list(staging.slots) == ["x"]
    again = taken(staging, x=np.zeros((200, 1000), dtype=np.uint8), y=np.zeros((1, 5), np.uint8))
    assert again["y"].everything


def test_a_glance_is_not_fooled_by_busy_first_rows() -> None:
    """An embedding table whose first rows change every time is still patched."""
    live = np.zeros((100_000, 64), dtype=np.uint8)
    staging = Staging()
    taken(staging, x=live)
    staging.settle()
    live[:5000] += 1
    slot = taken(staging, x=live)["x"]
    assert not slot.everything
    assert slot.rows.tolist() == list(range(5000))


def test_too_little_memory_is_found_before_it_is_taken() -> None:
    """The machine's limit is asked for what is new only; nothing is staged when it is too low."""
    available = [10 * MIB]
    staging = Staging(available_bytes=lambda: available[0])
    small = np.zeros((8, MIB), dtype=np.uint8)
    taken(staging, x=small)
    available[0] = 100
    taken(staging, x=small)
    with pytest.raises(TooLarge, match="are available"):
        taken(staging, x=small, y=small.copy())
    assert list(staging.slots) == ["x"]


def test_rows_only_where_a_patch_could_pay() -> None:
    """Small tensors, few rows and very wide rows are stored whole."""
    for shape, rows in [((15, 8192), 0), ((16, 8192), 8192), ((1000, 10), 0), ((16, 2 * MIB), 0)]:
        array = np.broadcast_to(np.zeros(1, np.uint8), shape)
        leaf = TensorLeaf("U8", shape, "numpy", array.reshape(-1)[:1] if rows else None)
        assert row_bytes_of(leaf) == rows
