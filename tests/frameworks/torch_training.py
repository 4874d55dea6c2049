"""A small training, and trees as a repository gives them back, for the tests of PyTorch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import lr_scheduler

from onward.frameworks import torch as framework
from onward.frameworks.base import Tagged, TensorLeaf, fetched
from onward.repository import Facts, open_or_create, read_state
from onward.stores import MemoryStore


def through_bytes(tree: Any) -> Any:
    """The tree as a repository gives it back: read-only bytes of its own, no identity."""
    match tree:
        case TensorLeaf():
            tree = fetched(tree)
            assert tree.data is not None
            assert tree.data.nbytes == tree.size_bytes
            data = np.frombuffer(tree.data.tobytes(), np.uint8)
            return TensorLeaf(dtype=tree.dtype, shape=tree.shape, kind=tree.kind, data=data)
        case Tagged():
            return Tagged(tree.tag, through_bytes(tree.value))
        case dict():
            return {key: through_bytes(child) for key, child in tree.items()}
        case list() | tuple():
            return type(tree)(through_bytes(child) for child in tree)
    return copy.deepcopy(tree)


def through_an_output(tree: Any, into: Mapping[str, Any]) -> Any:
    """The tree as a repository gives it back to live objects: read into their own memory."""
    store = MemoryStore()
    repository = open_or_create(store)
    facts = Facts(
        step=1, epoch=0, increment=1, parent=None, finished=False, reason="test", verb="fresh",
        framework="torch", framework_version="2",
    )  # fmt: skip
    commit = repository.claim("test").commit(tree, facts)
    return read_state(store, repository.manifest(commit), into=into)


def without_data(tree: Any) -> Any:
    """The tree as a manifest alone describes it."""
    match tree:
        case TensorLeaf():
            return TensorLeaf(dtype=tree.dtype, shape=tree.shape, kind=tree.kind)
        case dict():
            return {key: without_data(child) for key, child in tree.items()}
        case list():
            return [without_data(child) for child in tree]
    return tree


def same(a: Any, b: Any) -> bool:
    """Equal types and equal bits, all the way down."""
    if isinstance(a, TensorLeaf) and isinstance(b, TensorLeaf):
        a, b = fetched(a), fetched(b)
        described = (a.dtype, a.shape, a.kind) == (b.dtype, b.shape, b.kind)
        return described and bool(np.array_equal(a.data, b.data))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


class Net(nn.Module):
    """Convolution, normalisation with buffers, dropout, and tied embeddings."""

    def __init__(self, width: int = 8, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, width)
        self.fc = nn.Linear(width, width)
        self.norm = nn.BatchNorm1d(width)
        self.drop = nn.Dropout(0.2)
        self.out = nn.Linear(width, 11, bias=False)
        self.out.weight = self.embedding.weight
        self.to(dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.norm(torch.tanh(self.fc(self.embedding(x))))
        return self.out(self.drop(hidden))


def net(seed: int = 0, **options: Any) -> Net:
    torch.manual_seed(seed)
    return Net(**options)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range, **also: Any) -> None:
    for step in steps:

        def closure(step: int = step) -> torch.Tensor:
            torch.manual_seed(1000 + step)  # batch and dropout of this step
            x = torch.randint(11, (16,))
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x).float(), x)
            loss.backward()
            return loss

        optimizer.step(closure)
        if scheduler := also.get("scheduler"):
            metrics = (float(step % 3),)
            plateau = isinstance(scheduler, lr_scheduler.ReduceLROnPlateau)
            scheduler.step(*(metrics if plateau else ()))
        if ema := also.get("ema"):
            ema.update_parameters(model)


Make = Callable[[], dict[str, Any]]


def check_resumed_equals_uninterrupted(make: Make) -> None:
    whole = make()
    train(steps=range(9), **whole)

    first = make()
    train(steps=range(5), **first)
    tree = through_bytes(framework.capture(first))
    torch.manual_seed(99)
    second = make()
    train(steps=range(100, 101), **second)  # not fresh, so that everything has to be replaced
    assert framework.differences(second, without_data(tree)) == []
    framework.restore(second, tree)
    assert same(framework.capture(second), tree)
    train(steps=range(5, 9), **second)
    assert same(framework.capture(second), framework.capture(whole))

    # Read into live memory, of objects that were trained already and of fresh ones.
    for third in (second, make()):
        read = through_an_output(framework.capture(first), framework.destinations(third))
        framework.restore(third, read)
        assert same(framework.capture(third), tree)
        train(steps=range(5, 9), **third)
        assert same(framework.capture(third), framework.capture(whole))


class Remembers:
    """Something of the user's own with a state."""

    def __init__(self, state: Any = None) -> None:
        self.state = state

    def state_dict(self) -> Any:
        return self.state

    def load_state_dict(self, state: Any) -> None:
        self.state = state
