"""The global random generators of a PyTorch program: Python's, NumPy's, and PyTorch's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from onward.frameworks import randomness
from onward.frameworks.torch_tensors import freeze, thaw


def capture_randomness() -> dict[str, Any]:
    """The state of every global random generator: Python's, NumPy's, the host's, the devices'."""
    return {
        **randomness.capture(),
        "torch": freeze(torch.get_rng_state(), "randomness.torch"),
        "devices": {
            kind: [freeze(state, f"randomness.{kind}") for state in module.get_rng_state_all()]
            for kind, module in _devices().items()
            if module.is_initialized()
        },
    }


def restore_randomness(tree: Mapping[str, Any]) -> None:
    """Sets every global random generator as captured; devices that are gone are passed over."""
    randomness.restore(tree)
    torch.set_rng_state(thaw(tree["torch"]))
    for kind, module in _devices().items():
        states = tree["devices"].get(kind, ())
        for index, state in zip(range(module.device_count()), states, strict=False):
            module.set_rng_state(thaw(state), index)


def _devices() -> dict[str, Any]:
    """The kind of accelerator that this machine has, if it keeps random generators per device."""
    accelerator = torch.accelerator.current_accelerator()
    if accelerator is None or not torch.accelerator.is_available():
        return {}
    module = torch.get_device_module(accelerator)
    needed = ("is_initialized", "get_rng_state_all", "set_rng_state", "device_count")
    return {accelerator.type: module} if all(hasattr(module, name) for name in needed) else {}
