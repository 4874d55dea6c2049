"""`.ckpt` files, written by MindSpore's own `save_checkpoint`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import mindspore

from onward.errors import StateError
from onward.frameworks.base import TensorLeaf
from onward.frameworks.mindspore_ckpt import DTYPES
from onward.frameworks.mindspore_tensors import owned


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
    # They are only read: copies would double a large model.
    tensors = {name: owned(replace(leaf, private=True)) for name, leaf in entries.items()}
    saved = [{"name": name, "data": tensor} for name, tensor in tensors.items()]
    mindspore.save_checkpoint(saved, str(path), append_dict=dict(info or {}) or None)
