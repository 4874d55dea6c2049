"""PyTorch for the two commands that need it, loaded when they do."""

from __future__ import annotations

import importlib
from types import ModuleType

from onward.errors import UsageError


def torch_files() -> ModuleType:
    """`onward.frameworks.torch_files`; `UsageError` where PyTorch is not installed."""
    try:
        return importlib.import_module("onward.frameworks.torch_files")
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise UsageError(
            "a .pth file needs PyTorch",
            why="it is not installed here",
            do="pip install 'onward[torch]', or use a safetensors file",
        ) from error
