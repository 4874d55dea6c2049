"""What is trained while it is saved; a framework is imported when its scenario is built."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

from benchmarks.checkpointing.training import Training


@dataclass(frozen=True)
class Scenario:
    """How a training is made, by the function of this name in its framework's file."""

    name: str
    title: str
    saves: int
    """How many make one process. Bytes that grow need ten; seconds need repetitions."""
    function: str
    framework: str = "torch"

    def build(self, scale: float, seed: int) -> Training:
        """With `scale` 1.0 the full size; a seed decides weights and batches."""
        home = importlib.import_module(f"benchmarks.checkpointing.{self.framework}_scenarios")
        found = getattr(home, self.function)(scale, seed)
        assert isinstance(found, Training)
        return found


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("a", "dense AdamW, 100 M parameters", 6, "dense"),
        Scenario("b", "frozen backbone of 50 M parameters, 1 % trained", 10, "frozen"),
        Scenario("c", "embeddings of 50 M, 16 % of the rows change", 10, "sparse_table"),
        Scenario("d", "dense AdamW on the same embeddings", 10, "dense_table"),
        Scenario("m", "MindSpore, dense Adam, 25 M parameters", 4, "dense", "mindspore"),
    )
}
USUAL = tuple(name for name, scenario in SCENARIOS.items() if scenario.framework == "torch")
"""Those that run unless others are asked for; MindSpore has an environment of its own."""
