"""What is learned: a scenario is data that arrives in stages, a model, and how both are measured.

The scenarios themselves are in `vision.py`, `text.py` and `ratings.py`; `load` finds them by name.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

Size = dict[str, int]
"""How many rows of each kind a model has, such as `{"classes": 8}`."""


@dataclass(frozen=True, eq=False)
class Items:
    """Items in memory: `inputs` is what the model is given, `targets` the right answers."""

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def __add__(self, other: Items) -> Items:
        return Items(
            torch.cat([self.inputs, other.inputs]), torch.cat([self.targets, other.targets])
        )

    def take(self, chosen: Tensor) -> Items:
        """The items of these indices, or where this mask is true."""
        return Items(self.inputs[chosen], self.targets[chosen])

    def dataset(self) -> TensorDataset:
        """The same as a map-style dataset of pairs (input, target)."""
        return TensorDataset(self.inputs, self.targets)


@dataclass(frozen=True, eq=False)
class Stage:
    """What arrives at once: items to learn, and a holdout that nobody ever trains on."""

    items: Items
    holdout: Items
    size: Size
    """The model's size from now on."""


@dataclass(frozen=True, eq=False)
class Scenario:
    """See the fields. With two stages, a base and an increment, methods are compared with a full
    retrain at shares of its steps; with more, every stage has the same steps (`stage_steps`)."""

    name: str
    title: str
    stages: tuple[Stage, ...]
    make_model: Callable[[Size], nn.Module]
    """A fresh model; the caller seeds `torch` before."""
    loss: Callable[[Tensor, Tensor], Tensor]
    score: Callable[[nn.Module, Items], float]
    unit: str
    """What `score` gives: `"accuracy %"` or `"RMSE"`."""
    batch_size: int
    peak_rate: float
    weight_decay: float = 0.0
    retrain_steps: int = 0
    stage_steps: tuple[int, ...] = ()
    shares: tuple[float, ...] = (0.1, 0.2, 0.4)
    memories: tuple[int, ...] = ()
    """How many samples may be kept, where old data cannot be reached."""
    test: Items | None = None
    """What the score is taken on. Where there is none: all holdouts' items alike, in a sequence
    all holdouts alike (ACC)."""

    @property
    def is_sequence(self) -> bool:
        return bool(self.stage_steps)

    @property
    def higher_is_better(self) -> bool:
        return self.unit != "RMSE"

    @property
    def size(self) -> Size:
        """The model's size in the end."""
        return self.stages[-1].size

    def everything(self, until: int | None = None) -> Items:
        """The items of the first `until` stages, or of all."""
        first, *rest = self.stages[:until]
        items = first.items
        for stage in rest:
            items = items + stage.items
        return items

    def base_steps(self) -> int:
        """As many epochs over the base as the full retrain makes over everything."""
        return round(self.retrain_steps * len(self.stages[0].items) / len(self.everything()))

    def optimizer(self, model: nn.Module) -> torch.optim.Adam:
        """The optimizer of every method: Adam at the peak rate (fused: one pass over memory)."""
        return torch.optim.Adam(
            model.parameters(), self.peak_rate, weight_decay=self.weight_decay, fused=True
        )

    def metrics(self, model: nn.Module) -> dict[str, float]:
        """`score` on the test items, and `holdout 1`, `holdout 2`, … of each stage."""
        model.eval()
        with torch.no_grad():
            found = self.metrics_by(lambda items: self.score(model, items))
        model.train()
        return found

    def metrics_by(self, score: Callable[[Items], float]) -> dict[str, float]:
        """The same of any model, by what `score` gives for some items."""
        found = {
            f"holdout {number}": score(stage.holdout) for number, stage in enumerate(self.stages, 1)
        }
        if self.test is not None:
            found["score"] = score(self.test)
        elif self.is_sequence:
            found["score"] = sum(found.values()) / len(found)
        else:
            items = [len(stage.holdout) for stage in self.stages]
            weighted = zip(found.values(), items, strict=True)
            found["score"] = sum(value * n for value, n in weighted) / sum(items)
        return found


SCENARIOS = {
    "fashion-growth": "vision",
    "fashion-classes": "vision",
    "split-mnist": "vision",
    "split-mnist-hsu": "vision",
    "newsgroups-topics": "text",
    "movielens-window": "ratings",
}
"""Every scenario's name, and the file that makes it."""


@lru_cache(maxsize=1)
def load(name: str) -> Scenario:
    """The scenario, its data fetched where they are not here yet."""
    module = importlib.import_module(f"benchmarks.learning.{SCENARIOS[name]}")
    made: Scenario = module.scenario(name)
    return made


def accuracy(model: nn.Module, items: Items) -> float:
    """The share of items whose greatest output is the right class, in percent."""
    right = sum(
        int((model(inputs).argmax(1) == targets).sum())
        for inputs, targets in zip(items.inputs.split(1000), items.targets.split(1000), strict=True)
    )
    return 100.0 * right / len(items)


def rmse(model: nn.Module, items: Items) -> float:
    """The root of the mean squared error."""
    return float(torch.sqrt(nn.functional.mse_loss(model(items.inputs), items.targets)))
