"""MindSpore for the one command that needs it, loaded when it does."""

from __future__ import annotations

import importlib
from types import ModuleType

from onward.errors import UsageError


def mindspore_files() -> ModuleType:
    """`onward.frameworks.mindspore_files`; `UsageError` where MindSpore is not installed."""
    try:
        return importlib.import_module("onward.frameworks.mindspore_files")
    except ModuleNotFoundError as error:
        if error.name != "mindspore":
            raise
        raise UsageError(
            "writing a .ckpt file needs MindSpore",
            why="it is not installed here",
            do="pip install 'onward[mindspore]', or export to safetensors",
        ) from error
