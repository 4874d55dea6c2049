"""Ways not to forget, ways to tell whether it worked, and what it cost.

Names are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onward.learning.asymmetric import AsymmetricCrossEntropy
    from onward.learning.distillation import Distillation
    from onward.learning.ewc import OnlineEWC
    from onward.learning.gdumb import GDumb
    from onward.learning.hooks import (
        Batch,
        Hook,
        Lessons,
        Observer,
        Penalty,
        Reading,
        Sampler,
        Setting,
        Transform,
    )
    from onward.learning.logits import LogitReplay
    from onward.learning.memory import Memory
    from onward.learning.replay import MemoryReplay, NoReplay, UniformReplay
    from onward.learning.shrink_perturb import ShrinkPerturb
    from onward.learning.strategies import strategy
    from onward.learning.synaptic import SynapticIntelligence

_HOMES = {
    "AsymmetricCrossEntropy": "asymmetric",
    "Batch": "hooks",
    "Distillation": "distillation",
    "GDumb": "gdumb",
    "Hook": "hooks",
    "Lessons": "hooks",
    "LogitReplay": "logits",
    "Memory": "memory",
    "MemoryReplay": "replay",
    "NoReplay": "replay",
    "Observer": "hooks",
    "OnlineEWC": "ewc",
    "Penalty": "hooks",
    "Reading": "hooks",
    "Sampler": "hooks",
    "Setting": "hooks",
    "ShrinkPerturb": "shrink_perturb",
    "SynapticIntelligence": "synaptic",
    "Transform": "hooks",
    "UniformReplay": "replay",
    "strategy": "strategies",
}

__all__ = [
    "AsymmetricCrossEntropy",
    "Batch",
    "Distillation",
    "GDumb",
    "Hook",
    "Lessons",
    "LogitReplay",
    "Memory",
    "MemoryReplay",
    "NoReplay",
    "Observer",
    "OnlineEWC",
    "Penalty",
    "Reading",
    "Sampler",
    "Setting",
    "ShrinkPerturb",
    "SynapticIntelligence",
    "Transform",
    "UniformReplay",
    "strategy",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'onward.learning' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"onward.learning.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
