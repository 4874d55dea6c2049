"""Loaders for MindSpore that know their position and can begin anywhere."""

from onward.data.mindspore_loader import Loader, adapted
from onward.data.mindspore_positioned import Positioned
from onward.data.position import PositionedLoader

__all__ = ["Loader", "Positioned", "PositionedLoader", "adapted"]
