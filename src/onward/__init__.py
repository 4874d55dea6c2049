"""Keep training, never start over: incremental model training with exact resume.

    run = onward.open("out", model=model, optimizer=optimizer, scheduler=scheduler)

Names are loaded when they are first used, so that importing Onward costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from onward._version import __version__

if TYPE_CHECKING:
    from onward.errors import NothingNew, OnwardError, Stopped
    from onward.training.naming import names
    from onward.training.run import Run
    from onward.training.session import open

__all__ = ["NothingNew", "OnwardError", "Run", "Stopped", "__version__", "names", "open"]

_HOMES = {
    "NothingNew": "onward.errors",
    "OnwardError": "onward.errors",
    "Run": "onward.training.run",
    "Stopped": "onward.errors",
    "names": "onward.training.naming",
    "open": "onward.training.session",
}


_ROOMS = ("data", "learning", "trackers", "trainers")
"""Packages with public names of their own, such as `onward.data.Table`."""


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"onward.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'onward' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
