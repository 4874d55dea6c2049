"""The same increments, the same hooks and the same batches in PyTorch and in MindSpore.

A side is one framework's model, optimizer and arithmetic. All that differs between them is here;
`Twin.run` is one code for both.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import mindspore as ms
import numpy as np
import numpy.typing as npt
import torch
from mindspore import nn, ops

from onward.data.order import Indices, derive_seed, permutation
from onward.learning import (
    Batch,
    Hook,
    Memory,
    Observer,
    Penalty,
    Reading,
    Sampler,
    Setting,
    Transform,
)
from onward.learning.hooks import Counts
from onward.learning.maths import Maths
from onward.learning.mindspore import MindSporeMaths
from onward.learning.torch import TorchMaths
from tests.learning.models import digests

Array = npt.NDArray[Any]


class Side(Protocol):
    """One framework."""

    maths: Maths
    model: Any

    def tensor(self, array: Array) -> Any:
        """A constant."""

    def step(self, batch: Batch, penalties: Sequence[Any]) -> tuple[float, float]:
        """One of plain SGD; returns the criterion and the sum of the penalties."""

    def stored(self, state: Any) -> Any:
        """A hook's state as a checkpoint may give it back: other objects, equal values."""


class TorchSide:
    """torch, with autograd in tensors."""

    def __init__(self, weights: Mapping[str, Array], *, learning_rate: float) -> None:
        self.maths: Maths = TorchMaths()
        self.model = torch.nn.Sequential(
            torch.nn.Linear(*weights["0.weight"].shape[::-1]),
            torch.nn.ReLU(),
            torch.nn.Linear(*weights["2.weight"].shape[::-1]),
        )
        self.maths.load(self.model, weights)
        self.model.train()
        self._optimizer = torch.optim.SGD(self.model.parameters(), learning_rate)

    def tensor(self, array: Array) -> Any:
        return torch.from_numpy(array)

    def step(self, batch: Batch, penalties: Sequence[Any]) -> tuple[float, float]:
        outputs = self.model(batch.inputs)
        loss = torch.nn.functional.cross_entropy(outputs, batch.labels)
        added = sum((penalty(outputs, batch) for penalty in penalties), torch.zeros(()))
        self._optimizer.zero_grad()
        (loss + added).backward()
        self._optimizer.step()
        return float(loss.detach()), float(added.detach())

    def stored(self, state: Any) -> Any:
        return _mapped(state, torch.Tensor, lambda value: value.detach().clone())


class MindSporeSide:
    """MindSpore, with a functional loop in PyNative mode."""

    def __init__(self, weights: Mapping[str, Array], *, learning_rate: float) -> None:
        self.maths: Maths = MindSporeMaths()
        self.model = nn.SequentialCell(
            nn.Dense(*weights["0.weight"].shape[::-1]),
            nn.ReLU(),
            nn.Dense(*weights["2.weight"].shape[::-1]),
        )
        self.maths.load(self.model, weights)
        self.model.set_train(True)
        self._optimizer = nn.SGD(self.model.trainable_params(), learning_rate)
        self._stored = 0

    def tensor(self, array: Array) -> Any:
        return ms.Tensor(array)

    def step(self, batch: Batch, penalties: Sequence[Any]) -> tuple[float, float]:
        def forward(inputs: Any, labels: Any) -> Any:
            outputs = self.model(inputs)
            loss = ops.cross_entropy(outputs, labels.astype(ms.int32))
            added = sum((penalty(outputs, batch) for penalty in penalties), ms.Tensor(0.0))
            return loss + added, loss, added

        learn = ms.value_and_grad(forward, None, self._optimizer.parameters, has_aux=True)
        (_, loss, added), gradients = learn(batch.inputs, batch.labels)
        self._optimizer(gradients)
        return float(loss), float(added)

    def stored(self, state: Any) -> Any:
        # Each time in another of the forms that a checkpoint of a framework may give back.
        self._stored += 1
        forms: list[Callable[[Any], Any]] = [
            lambda value: np.array(value.asnumpy()),
            lambda value: ms.Tensor(np.array(value.asnumpy())),
            lambda value: ms.Parameter(ms.Tensor(np.array(value.asnumpy()))),
        ]
        return _mapped(state, ms.Tensor, forms[self._stored % 3])


@dataclass
class Twin:
    """Trains `steps` steps in each of `increments` (indices of the items that it learns).

    Every increment, and every life after a kill, has new hooks, which are given the state of
    those before them.
    """

    side: Side
    hooks: Callable[[], Sequence[Hook]]
    inputs: Array
    labels: Array
    increments: Sequence[Sequence[int]]
    steps: int = 8
    batch_size: int = 16
    kills: Collection[tuple[int, int]] = ()
    """Where a process ends: (increment, steps made in it)."""
    losses: list[tuple[float, float]] = field(default_factory=list)
    """Criterion and penalties of each step."""

    def run(self) -> Twin:
        """All increments."""
        state: dict[str, Any] = {}
        fresh = self.side.maths.weights(self.side.model)
        fresh = {name: self.side.maths.array(value) for name, value in fresh.items()}
        for increment in range(1, len(self.increments) + 1):
            for step in range(self.steps):
                if step == 0 or (increment, step) in self.kills:
                    hooks = self._restored(state, increment)
                    lessons = self._lessons(hooks, increment)
                if step == 0:
                    for hook in hooks:
                        if isinstance(hook, Transform) and increment > 1:
                            hook.at_start(fresh)
                    for hook in hooks:
                        if isinstance(hook, Observer):
                            hook.before_increment(lessons)
                batch = lessons.batch(self._drawn(hooks, lessons, increment, step))
                penalties = [hook.penalty for hook in hooks if isinstance(hook, Penalty)]
                self.losses.append(self.side.step(batch, penalties))
                for hook in hooks:
                    if isinstance(hook, Observer):
                        hook.after_step()
                state = {hook.name: self.side.stored(hook.state_dict()) for hook in hooks}
            for hook in hooks:
                if isinstance(hook, Observer):
                    hook.after_increment(lessons)
            state = {hook.name: self.side.stored(hook.state_dict()) for hook in hooks}
        return self

    def accuracy(self, inputs: Array, labels: Array) -> float:
        outputs = self.side.maths.outputs(self.side.model, self.side.tensor(inputs))
        return float((self.side.maths.array(outputs).argmax(1) == labels).mean())

    def weights(self) -> dict[str, Array]:
        live = self.side.maths.weights(self.side.model)
        return {name: self.side.maths.array(value) for name, value in live.items()}

    def _restored(self, state: Mapping[str, Any], increment: int) -> Sequence[Hook]:
        hooks = self.hooks()
        for hook in hooks:
            if hook.name in state:
                hook.load_state_dict(state[hook.name])
        setting = Setting(self.side.maths, self.side.model, Reading(), increment, seed=7)
        for hook in hooks:
            hook.begin(setting)
        return hooks

    def _lessons(self, hooks: Sequence[Hook], increment: int) -> ArrayLessons:
        memory = next((h.memory for h in hooks if isinstance(h, Sampler)), None)
        return ArrayLessons(
            self.side.maths,
            self.inputs,
            self.labels,
            np.asarray(self.increments[increment - 1], np.int64),
            memory,
        )

    def _drawn(
        self, hooks: Sequence[Hook], lessons: ArrayLessons, increment: int, step: int
    ) -> Indices:
        """New items and, as the sampler shares them out, slots of the memory."""
        size = self.batch_size
        slots = np.empty(0, np.int64) if lessons.memory is None else lessons.memory.slots
        known = sum(len(part) for part in self.increments[: increment - 1])
        sampler = next((h for h in hooks if isinstance(h, Sampler)), None)
        if sampler is not None and len(slots):
            size = round(size * sampler.share(Counts(len(lessons.new), len(slots), known)))
        fresh = _some(lessons.new, size, derive_seed(1, increment, step, "new"))
        rest = self.batch_size - size
        old = _some(slots + lessons.first_slot, rest, derive_seed(1, increment, step, "old"))
        return np.concatenate([fresh, old])


@dataclass
class ArrayLessons:
    """`Lessons` over two arrays, and the slots of a memory behind them."""

    maths: Maths
    inputs: Array
    all_labels: Array
    new: Indices
    memory: Memory | None

    def __post_init__(self) -> None:
        self.labels = self.all_labels
        self.digests = digests(len(self.labels))
        self.first_slot = len(self.labels)

    def raw(self, index: int) -> Any:
        return self.inputs[index], int(self.labels[index])

    def batches(self, indices: Indices, *, batch_size: int) -> Iterator[Batch]:
        for start in range(0, len(indices), batch_size):
            yield self.batch(indices[start : start + batch_size])

    def batch(self, indices: Indices) -> Batch:
        pairs = [
            self.raw(index)
            if index < self.first_slot
            else self.memory.sample(index - self.first_slot, tensor=self.maths.host_tensor)
            for index in np.asarray(indices).tolist()
        ]
        slots = np.where(indices < self.first_slot, -1, indices - self.first_slot)
        inputs = self.maths.host_tensor(np.stack([pair[0] for pair in pairs]))
        labels = self.maths.host_tensor(np.array([pair[1] for pair in pairs], np.int64))
        return Batch(len(pairs), slots, inputs, labels)


def _some(items: Indices, count: int, seed: int) -> Indices:
    return items[permutation(len(items), seed)[:count]]


def _mapped(tree: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    match tree:
        case dict():
            return {key: _mapped(value, kind, change) for key, value in tree.items()}
        case list():
            return [_mapped(value, kind, change) for value in tree]
        case np.ndarray():
            return tree.copy()
    return change(tree) if isinstance(tree, kind) else tree
