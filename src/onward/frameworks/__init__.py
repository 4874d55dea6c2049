"""Live objects and state trees: one file per framework, the same verbs in each."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any, cast

from onward.errors import UsageError
from onward.frameworks.base import Framework, Stateful, Tagged, TensorLeaf

__all__ = ["Framework", "Stateful", "Tagged", "TensorLeaf", "framework_for", "load_framework"]

_FRAMEWORKS = {
    "torch": "onward.frameworks.torch",
    "mindspore": "onward.frameworks.mindspore",
}


def framework_for(objects: Iterable[Any]) -> Framework:
    """The framework that the live objects belong to, by the modules of their classes."""
    for value in objects:
        for kind in type(value).__mro__:
            root = kind.__module__.partition(".")[0]
            if root in _FRAMEWORKS:
                return load_framework(root)
    raise UsageError(
        "none of the objects given to onward.open belongs to a known framework",
        why=f"known are {', '.join(sorted(_FRAMEWORKS))}",
        do="pass the model: onward.open(url, model=model, optimizer=optimizer)",
    )


def load_framework(name: str) -> Framework:
    """The named framework's verbs. Imports the framework."""
    return cast(Framework, importlib.import_module(_FRAMEWORKS[name]))
