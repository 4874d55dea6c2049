"""Where metrics go beside the log: one file per tracker, none of them needed.

run = onward.open("out", model=model, trackers=("tensorboard", "mlflow"))
run = onward.open("out", model=model, trackers=MLflow("shop", tracking_uri="http://mlflow:5000"))
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onward.trackers.base import Row, Series, Tracker
    from onward.trackers.memory import InMemory
    from onward.trackers.mlflow import MLflow
    from onward.trackers.names import NAMES, trackers_of
    from onward.trackers.tensorboard import TensorBoard

__all__ = [
    "NAMES", "InMemory", "MLflow", "Row", "Series", "TensorBoard", "Tracker", "trackers_of",
]  # fmt: skip

_HOMES = {
    "InMemory": "memory",
    "MLflow": "mlflow",
    "NAMES": "names",
    "Row": "base",
    "Series": "base",
    "TensorBoard": "tensorboard",
    "Tracker": "base",
    "trackers_of": "names",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'onward.trackers' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"onward.trackers.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
