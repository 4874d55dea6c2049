"""Loaders for PyTorch that know their position and can begin anywhere."""

from typing import Any

from onward.data.position import PositionedLoader
from onward.data.torch_loader import Loader
from onward.data.torch_positioned import Positioned

__all__ = ["Loader", "Positioned", "PositionedLoader", "adapted"]


def adapted(dataset: Any) -> Any:
    """A dataset as a list of items: PyTorch's map-style datasets are that already."""
    return dataset
