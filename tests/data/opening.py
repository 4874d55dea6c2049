"""Which files this process opens, told by Python itself rather than by a mock."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_listeners: list[list[str]] = []
_hooked = False


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _listeners and isinstance(arguments[0], str | bytes | os.PathLike):
        for listener in _listeners:
            listener.append(os.fsdecode(arguments[0]))


@contextmanager
def opened_below(folder: Path) -> Iterator[list[str]]:
    """The relative paths of the files below `folder` that are opened meanwhile, in order."""
    global _hooked
    if not _hooked:
        sys.addaudithook(_hook)  # for good: there is no way to remove it
        _hooked = True
    heard: list[str] = []
    found: list[str] = []
    _listeners.append(heard)
    try:
        yield found
    finally:
        _listeners.remove(heard)
        root = os.path.realpath(folder) + "/"
        paths = (os.path.realpath(path) for path in heard)
        found += [path.removeprefix(root) for path in paths if path.startswith(root)]
