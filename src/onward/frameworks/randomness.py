"""The random generators that every program has, whatever its framework: Python's and NumPy's."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np

from onward.frameworks import values
from onward.frameworks.base import TensorLeaf


def capture() -> dict[str, Any]:
    """Their state as a tree."""
    version, words, gauss_next = random.getstate()
    return {
        "python": {
            "version": version,
            "words": _frozen(np.array(words, np.uint32), "randomness.python"),
            "gauss_next": gauss_next,
        },
        "numpy": _frozen(np.random.get_state(legacy=False), "randomness.numpy"),
    }


def restore(tree: Mapping[str, Any]) -> None:
    """Sets them as captured."""
    python = _thawed(tree["python"])
    random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss_next"]))
    np.random.set_state(_thawed(tree["numpy"]))


def _frozen(value: Any, path: str) -> Any:
    return values.freeze(value, path, lambda value, path: None)


def _thawed(tree: Any) -> Any:
    return values.thaw(tree, "numpy", _array, lambda tag, value: None)


def _array(leaf: TensorLeaf) -> Any:
    return values.numpy_array(leaf)
