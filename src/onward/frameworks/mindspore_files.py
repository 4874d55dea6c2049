"""`.ckpt` files, written by MindSpore's own `save_checkpoint`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import mindspore
import numpy as np
from mindspore import Tensor

from onward.errors import StateError
from onward.frameworks.base import TensorLeaf
from onward.frameworks.mindspore_ckpt import DTYPES

_NUMPY = {
    "BOOL": "|b1", "U8": "|u1", "I8": "|i1", "U16": "<u2", "I16": "<i2", "F16": "<f2",
    "U32": "<u4", "I32": "<i4", "F32": "<f4", "U64": "<u8", "I64": "<i8", "F64": "<f8",
}  # fmt: skip


def write_ckpt(
    path: Path, entries: Mapping[str, TensorLeaf], *, info: Mapping[str, int] | None = None
) -> None:
    """Writes the tensors under these names, and `info` after them; `path` ends in `.ckpt`.

    Raises `StateError` with all those that such a file cannot hold.
    """
    known = set(DTYPES.values())
    bad = [f"{n} is {x.dtype}" for n, x in entries.items() if x.dtype not in known]
    # save_checkpoint passes over them without a word.
    bad += [f"{name} is empty" for name, leaf in entries.items() if leaf.size_bytes == 0]
    if bad:
        raise StateError(
            "a .ckpt file cannot hold these tensors: " + ", ".join(bad),
            do="export to safetensors",
        )
    saved = [{"name": name, "data": _tensor(leaf)} for name, leaf in entries.items()]
    mindspore.save_checkpoint(saved, str(path), append_dict=dict(info or {}) or None)


def _tensor(leaf: TensorLeaf) -> Tensor:
    assert leaf.data is not None
    if leaf.dtype == "BF16":
        # NumPy has no such dtype: the upper half of a float32 is one, exactly.
        wide = leaf.data.view("<u2").astype("<u4") << 16
        return Tensor.from_numpy(wide.view("<f4").reshape(leaf.shape)).astype(mindspore.bfloat16)
    array = np.ascontiguousarray(leaf.data).view(_NUMPY[leaf.dtype]).reshape(leaf.shape)
    # Shares the memory, which a copy of a large model would double; it wants it writable.
    return Tensor.from_numpy(array if array.flags.writeable else array.copy())
