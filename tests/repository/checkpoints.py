"""Small checkpoints, committed without any framework."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from onward.frameworks.base import TensorLeaf
from onward.repository import Commit, Facts, Repository, Writer, exists, read_state
from onward.repository.repository import _create
from onward.stores import Store


def leaf(*values: float) -> TensorLeaf:
    """A tensor of F32 values."""
    array = np.array(values, dtype="<f4")
    return TensorLeaf("F32", array.shape, "numpy", array.view(np.uint8).ravel())


def noise(seed: int, count: int) -> TensorLeaf:
    """A tensor of `count` bytes that compresses and repeats nowhere."""
    array = np.random.default_rng(seed).integers(0, 256, count, dtype=np.uint8)
    return TensorLeaf("U8", (count,), "numpy", array)


def commit(
    writer: Writer,
    step: int,
    *,
    state: Any = None,
    finished: bool = False,
    about: Mapping[str, Any] | None = None,
) -> Commit:
    """A checkpoint that follows the writer's newest one."""
    latest = writer.history.latest()
    facts = Facts(
        step=step,
        epoch=0,
        increment=1 if latest is None else latest.increment + latest.finished,
        parent=latest.checkpoint if latest else None,
        finished=finished,
        reason="test",
        verb="fresh" if latest is None else "resume",
        framework="numpy",
        framework_version="1",
        about=about or {},
    )
    return writer.commit({"w": leaf(step)} if state is None else state, facts)


def output_with(store: Store, *steps: int, last_finished: bool = False) -> Repository:
    """An output with a checkpoint at each of the steps, on a store that honours conditions."""
    repository = Repository(store)
    if not exists(store):
        _create(repository)  # without the probe, which takes a second on a real server
    repository.log.load()
    writer = repository.claim("test")
    for step in steps:
        commit(writer, step, finished=last_finished and step == steps[-1])
    return repository


def value_of(store: Store, repository: Repository, commit_: Commit) -> float:
    """What `commit` stored by default: the step, read back through every digest."""
    data = read_state(store, repository.manifest(commit_))["w"].data
    return float(data.view("<f4")[0])
