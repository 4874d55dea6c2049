"""A loop that drives hooks as `onward/learning/hooks.py` says, and can be killed after any step.

Every increment, and every life after a kill, is a process of its own: new objects, restored from
what the framework captured. Nothing else passes from one to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from onward.data.order import Indices, derive_seed, permutation
from onward.frameworks import torch as framework
from onward.learning.hooks import Counts, Hook, Observer, Penalty, Sampler, Transform
from tests.learning.models import ListedLessons, mlp, setting


@dataclass
class Loop:
    """Trains `steps` steps in each of `increments` (indices of the items that it learns)."""

    hooks: Callable[[], Sequence[Hook]]
    inputs: Tensor
    labels: Tensor
    increments: Sequence[Sequence[int]]
    model: Callable[[], nn.Module] = mlp
    steps: int = 30
    batch_size: int = 16
    learning_rate: float = 0.01
    told: bool = True
    kills: Collection[tuple[int, int]] = ()
    """Where a process ends: (increment, steps made in it)."""
    saved: dict[str, Any] = field(default_factory=dict)

    def run(self) -> Loop:
        """All increments; `saved` is the state at the end, and `live` the objects."""
        for increment in range(1, len(self.increments) + 1):
            stops = sorted(step for where, step in self.kills if where == increment)
            first = 0
            for life, last in enumerate([*stops, self.steps]):
                process = _Process(self, increment, resumed=life > 0)
                process.train(first, last)
                first = last
                if last == self.steps and life == len(stops):
                    process.finish()
                self.saved = framework.capture(process.objects)
                self.live = process.objects
        return self

    def accuracy(self, inputs: Tensor, labels: Tensor) -> float:
        model = self.live["model"]
        with torch.no_grad():
            return float((model(inputs).argmax(1) == labels).float().mean())


class _Process:
    def __init__(self, loop: Loop, increment: int, *, resumed: bool) -> None:
        self.loop, self.increment = loop, increment
        self.model = loop.model()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=loop.learning_rate)
        self.hooks = loop.hooks()
        fresh = {name: value.detach().clone() for name, value in self.model.named_parameters()}
        self.objects = {"model": self.model, "optimizer": self.optimizer}
        self.objects |= {hook.name: hook for hook in self.hooks}
        if loop.saved:
            framework.restore(self.objects, loop.saved)
        samplers = [hook for hook in self.hooks if isinstance(hook, Sampler)]
        self.sampler = samplers[0] if samplers else None
        self.memory = self.sampler.memory if self.sampler else None
        self.lessons = ListedLessons(
            loop.inputs,
            loop.labels,
            loop.increments[increment - 1],
            remembered=self.memory,
            told=loop.told,
        )
        for hook in self.hooks:
            hook.begin(setting(self.model, increment=increment))
        if not resumed and increment > 1:
            for hook in self._of(Transform):
                hook.at_start(fresh)
        if not resumed:
            for hook in self._of(Observer):
                hook.before_increment(self.lessons)

    def train(self, first: int, last: int) -> None:
        criterion = nn.CrossEntropyLoss()
        for step in range(first, last):
            batch = self.lessons.batch(self._drawn(step))
            outputs = self.model(batch.inputs)
            loss = criterion(outputs, batch.labels)
            for hook in self._of(Penalty):
                loss = loss + hook.penalty(outputs, batch)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            for hook in self._of(Observer):
                hook.after_step()

    def finish(self) -> None:
        for hook in self._of(Observer):
            hook.after_increment(self.lessons)

    def _drawn(self, step: int) -> Indices:
        """New items and, as the sampler shares them out, slots of the memory."""
        size, new = self.loop.batch_size, self.lessons.new
        slots = np.empty(0, np.int64) if self.memory is None else self.memory.slots
        known = sum(len(part) for part in self.loop.increments[: self.increment - 1])
        if self.sampler is not None and len(slots):
            size = round(size * self.sampler.share(Counts(len(new), len(slots), known)))
        fresh = self._some(new, size, step)
        rest = self._some(slots + self.lessons.first_slot, self.loop.batch_size - size, step)
        return np.concatenate([fresh, rest])

    def _some(self, items: Indices, count: int, step: int) -> Indices:
        seed = derive_seed(1, self.increment, step, count)
        return items[permutation(len(items), seed)[:count]]

    def _of(self, kind: type) -> list[Any]:
        return [hook for hook in self.hooks if isinstance(hook, kind)]
