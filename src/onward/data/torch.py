"""Loaders for PyTorch that know their position and can begin anywhere."""

from onward.data.position import PositionedLoader
from onward.data.torch_loader import Loader
from onward.data.torch_positioned import Positioned

__all__ = ["Loader", "Positioned", "PositionedLoader"]
