"""Small real outputs for the commands to look at."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onward.frameworks.base import TensorLeaf
from onward.repository import Commit, Facts, Repository, open_or_create
from onward.stores import LocalStore

_NAMES = {
    "bool": "BOOL", "uint8": "U8", "int64": "I64", "float16": "F16", "float32": "F32",
    "float64": "F64", "complex64": "C64", "complex128": "C128",
}  # fmt: skip


def leaf(array: npt.NDArray[Any], dtype: str = "") -> TensorLeaf:
    """An array as a tensor of a state; `dtype` reads its bytes as something NumPy does not know."""
    whole = np.ascontiguousarray(array)
    return TensorLeaf(
        dtype or _NAMES[str(whole.dtype)], array.shape, "torch", whole.reshape(-1).view(np.uint8)
    )


def floats(*values: float) -> TensorLeaf:
    return leaf(np.array(values, np.float32))


def facts(**given: Any) -> Facts:
    """Facts with defaults for what a test does not care about."""
    about = {"host": "box", "command": ["train.py", "--lr", "0.1"], "config": {"lr": 0.1}}
    usual: dict[str, Any] = {
        "step": 10, "epoch": 1, "increment": 1, "parent": None, "finished": False,
        "reason": "every 10 steps", "verb": "fresh", "framework": "torch",
        "framework_version": "2.13.0", "about": about, "metrics": {"loss": 0.5},
    }  # fmt: skip
    return Facts(**{**usual, **given})


class Output:
    """A repository in a folder, and one writer of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = str(folder)
        self.repository: Repository = open_or_create(LocalStore(folder))
        self.writer = self.repository.claim("box pid 1 (train.py)")

    def save(self, state: Mapping[str, Any] | None = None, **given: Any) -> Commit:
        return self.writer.commit(state or {"model": {"w": floats(1, 2, 3)}}, facts(**given))

    def chain(self, steps: int) -> list[Commit]:
        """Checkpoints at steps 10, 20, …, each the child of the one before, with new weights."""
        commits: list[Commit] = []
        for number in range(1, steps + 1):
            parent = commits[-1].checkpoint if commits else None
            state = {"model": {"w": floats(number, 2, 3), "frozen": floats(*range(8))}}
            metrics = {"loss": 1 / number}
            commits.append(self.save(state, step=10 * number, parent=parent, metrics=metrics))
        return commits

    def file(self, kind: str, name: str) -> Path:
        return self.folder / "onward" / kind / name

    def flip(self, path: Path, position: int = -1) -> None:
        """Changes one bit of a stored file."""
        data = bytearray(path.read_bytes())
        data[position] ^= 1
        path.write_bytes(data)
