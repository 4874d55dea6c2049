"""Tiny runs that learn: points of a few classes, a linear model, and a loop that may be broken."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import onward
from onward.data.torch_loader import Loader
from onward.repository import Commit, History, open_repository
from onward.stores import open_store

FEATURES = 4


class Points(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """Points around a centre for each class, known by their numbers."""

    def __init__(self, numbers: Iterable[int], *, classes: int = 2) -> None:
        self.ids = [int(number) for number in numbers]
        self.labels = np.array([number % classes for number in self.ids], np.int64)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        number, label = self.ids[index], int(self.labels[index])
        noise = np.random.Philox(key=number).random_raw(FEATURES).astype(np.float64) / 2.0**64
        centre = np.arange(FEATURES) == label % FEATURES
        return torch.tensor(centre + noise, dtype=torch.float32), label


class Learner:
    """A linear model and its optimizer, alike every time."""

    def __init__(self, output: Any, *, outputs: int = 2, rate: float = 0.1, **options: Any) -> None:
        torch.manual_seed(0)
        self.model = nn.Linear(FEATURES, outputs)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=rate, momentum=0.9)
        given = {
            "model": self.model, "optimizer": self.optimizer, "save_every_seconds": None, **options
        }  # fmt: skip
        self.run = onward.open(output, **given)
        self.rates: list[float] = []
        self.rows: list[list[int]] = []

    def score(self) -> Learner:
        """Scores by right or wrong."""
        self.run.scoring(self.right)
        return self

    def right(self, batch: Any) -> torch.Tensor:
        found: torch.Tensor = self.model(batch[0]).argmax(1) == batch[1]
        return found

    def loader(self, data: Points, *, batch_size: int = 4, **options: Any) -> Loader:
        loader: Loader = self.run.loader(
            data, batch_size=batch_size, **{"ids": data.ids, **options}
        )
        return loader

    def step(self, batch: Any) -> None:
        outputs = self.model(batch[0])
        loss = nn.functional.cross_entropy(outputs, batch[1]) + self.run.penalty(outputs)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.rates.append(self.optimizer.param_groups[0]["lr"])
        self.run.step(loss=loss)

    def loop(self, loader: Any, *, budget: Any = None, stop: int = -1) -> bool:
        """Trains; False if it was broken off after the step `stop` of the model's life."""
        for _epoch in self.run.epochs(budget):
            for batch in loader:
                self.rows.append(list(loader.rows))
                self.step(batch)
                if self.run.global_step == stop:
                    self.run.save()
                    return False
        return True


def increment(
    output: Any,
    data: Points,
    *,
    budget: Any = 1,
    stop: int = -1,
    scored: bool = False,
    before: Callable[[Learner], None] = lambda learner: None,
    plan: dict[str, Any] | None = None,
    loading: dict[str, Any] | None = None,
    **options: Any,
) -> Learner:
    """One increment from its beginning to its end, or (as if killed) without one.

    With `stop`, the state is saved after that step, and the process "dies".
    """
    learner = Learner(output, **options)
    try:
        if scored:
            learner.score()
        before(learner)
        loader = learner.loader(data, **(loading or {}))
        learner.run.plan(budget, **(plan or {}))
        if learner.loop(loader, stop=stop):
            learner.run.finish()
    finally:
        learner.run.close()
    return learner


def history(output: Path | str) -> History:
    return open_repository(open_store(str(output))).history


def newest(output: Path | str) -> Commit:
    commit = history(output).latest()
    assert commit is not None
    return commit


def about(output: Path | str) -> dict[str, Any]:
    """What the newest checkpoint tells of its increment's learning."""
    found = open_repository(open_store(str(output))).manifest(newest(output)).about["learning"]
    assert isinstance(found, dict)
    return found


def scores(output: Path | str) -> list[Any]:
    """The row of the matrix of each finished increment."""
    return [commit.scores for commit in history(output).live() if commit.finished]
