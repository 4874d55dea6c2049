"""What differs between frameworks in an increment: network, optimizer, step and score.

`torch.py` and `mindspore.py` each have a `side` that makes one; run, loader, strategy, plan and
memory are the same code for both (`ours.py`).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Protocol

from benchmarks.learning.scenarios import Items, Scenario, Size

FRAMEWORKS = ("torch", "mindspore")
TITLES = {"torch": "PyTorch", "mindspore": "MindSpore"}


class Side(Protocol):
    """A network and its optimizer, made anew for one stage of a scenario."""

    model: Any
    optimizer: Any

    def dataset(self, items: Items) -> Any:
        """The items as `run.loader` takes them."""

    def step(self, batch: Any, penalty: Callable[[Any], Any]) -> Any:
        """One step of the optimizer on a batch; the loss, with what `penalty` adds to it."""

    def metrics(self) -> dict[str, float]:
        """As `Scenario.metrics` has them, of the network as it is."""


def make_side(framework: str, scenario: Scenario, *, size: Size, seed: int) -> Side:
    """A side whose network has the initial weights that PyTorch draws with `seed`."""
    module = importlib.import_module(f"benchmarks.learning.{framework}")
    made: Side = module.side(scenario, size=size, seed=seed)
    return made
