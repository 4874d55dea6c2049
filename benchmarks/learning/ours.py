"""Onward's side: the same scenarios through its public interface, checkpoints and all.

How a scenario plugs in, stage by stage, in one output below `folder`:

- the data set is the concatenation of what has arrived: `scenario.everything(number).dataset()`,
  map-style pairs (input, target) that only grow at the end. Where the old data may not be reached
  (a strategy with a memory), it is `stage.items.dataset()` alone
- the model is `scenario.make_model(size)` with `torch.manual_seed(seed)` before, `size` being the
  last finished stage's; growing it to `stage.size` is Onward's work. The head of classes or topics
  grows by rows; users and films are rows already, numbered by first appearance, so their four
  tables grow at the end
- `scenario.optimizer(model)`, `scenario.loss(outputs, targets)`, `scenario.batch_size`
- the budget is `scenario.base_steps()` for the base and `share` × `scenario.retrain_steps` for the
  increment; in a sequence `scenario.stage_steps[number - 1]` for each stage
- `scenario.metrics(model)` in the end, or `scenario.score(model, stage.holdout)` for the matrix
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.learning.reference import Done
from benchmarks.learning.scenarios import Scenario

STRATEGIES: dict[str, tuple[tuple[str, float], ...]] = {
    "fashion-growth": (("uniform", 0.1), ("uniform", 0.2), ("uniform", 0.4)),
    "fashion-classes": (
        ("uniform", 0.1),
        ("uniform", 0.2),
        ("uniform", 0.4),
        ("er 1920", 0.2),
        ("der++ 1920", 0.2),
        ("gdumb 1920", 0.2),
    ),
    "newsgroups-topics": (("uniform", 0.1), ("uniform", 0.2), ("uniform", 0.4)),
    "movielens-window": (("uniform", 0.1), ("uniform", 0.2)),
    "split-mnist": (
        ("er 1000", 1.0),
        ("er-ace 1000", 1.0),
        ("der++ 1000", 1.0),
        ("gdumb 1000", 1.0),
    ),
    "split-mnist-hsu": (("er 4400", 1.0), ("er 1100", 1.0), ("ewc", 1.0), ("si", 1.0)),
}
"""By scenario: what will be run, named as in `targets.TARGETS` (a number is the memory's size)."""


def planned(scenario: Scenario) -> list[tuple[str, float]]:
    """Onward's strategies for a scenario, each with its share of a full retrain's steps."""
    return []  # `list(STRATEGIES[scenario.name])`, once `ours` is there


def ours(scenario: Scenario, strategy: str, *, share: float, seed: int, folder: Path) -> Done:
    """Learns the scenario's stages one after another into an output below `folder`."""
    raise NotImplementedError(f"{scenario.name}: {strategy}")
