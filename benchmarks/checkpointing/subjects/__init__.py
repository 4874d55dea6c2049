"""The libraries that are compared, each in a file of its own, loaded when it is measured."""

from __future__ import annotations

import importlib

from benchmarks.checkpointing.subjects.base import Subject

_HOMES = {
    "onward": ("onward", "Onward"),
    "dcp": ("dcp", "Dcp"),
    "dcp-overlap": ("dcp", "DcpOverlapping"),
    "torch_checkpointing": ("torch_checkpointing", "TorchCheckpointing"),
    "torch.save": ("torch_save", "TorchSave"),
    "safetensors": ("safetensors", "Safetensors"),
    "orbax": ("orbax", "Orbax"),
    "lightning": ("lightning", "Lightning"),
    "ms-ckpt": ("mindspore", "Ckpt"),
    "ms-ckpt-crc": ("mindspore", "CkptCrc"),
    "ms-ckpt-thread": ("mindspore", "CkptThread"),
    "ms-ckpt-process": ("mindspore", "CkptProcess"),
    "ms-safetensors": ("mindspore", "Safetensors"),
    "ms-safetensors-crc": ("mindspore", "SafetensorsCrc"),
    "ms-safetensors-thread": ("mindspore", "SafetensorsThread"),
    "ms-safetensors-process": ("mindspore", "SafetensorsProcess"),
}
NAMES = tuple(_HOMES)
OURS = "onward"
OF_MINDSPORE = tuple(name for name, (home, _) in _HOMES.items() if home == "mindspore")

__all__ = ["NAMES", "OF_MINDSPORE", "OURS", "Subject", "subject_class"]


def subject_class(name: str) -> type[Subject]:
    """Raises `ImportError` where the library is not installed."""
    home, kind = _HOMES[name]
    module = importlib.import_module(f"benchmarks.checkpointing.subjects.{home}")
    found = getattr(module, kind)
    assert issubclass(found, Subject)
    return found
