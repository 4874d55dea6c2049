"""Trackers by name, for the command line and for who needs no options."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

from onward.errors import UsageError
from onward.trackers.base import Tracker

NAMES = ("tensorboard", "mlflow")
"""Those that `onward run --track` knows."""

_CLASSES = {"tensorboard": "TensorBoard", "mlflow": "MLflow"}


def trackers_of(asked: str | Tracker | Sequence[str | Tracker]) -> list[Tracker]:
    """Names and trackers as trackers, one of each. Raises `UsageError` for an unknown name."""
    several = [asked] if isinstance(asked, str) or not isinstance(asked, Sequence) else list(asked)
    found: dict[str, Tracker] = {}
    for one in several:
        tracker = _named(one) if isinstance(one, str) else one
        if tracker.name in found:
            raise UsageError(f"the tracker {tracker.name!r} is given twice", do="give it once")
        found[tracker.name] = tracker
    return list(found.values())


def need(package: str, *, extra: str, what: str) -> None:
    """Raises `UsageError` where a package is not installed. Does not import it."""
    try:
        installed = find_spec(package) is not None
    except (ImportError, ValueError):
        installed = False
    if not installed:
        raise UsageError(
            f"{what} needs {package}",
            why="it is not installed here",
            do=f"pip install 'onward[{extra}]'",
        )


def _named(name: str) -> Tracker:
    if name not in NAMES:
        raise UsageError(f"there is no tracker {name!r}", do=f"use one of {', '.join(NAMES)}")
    module = importlib.import_module(f"onward.trackers.{name}")
    make: Callable[[], Any] = getattr(module, _CLASSES[name])
    tracker: Tracker = make()
    return tracker
