"""Remembered tensors collate with fresh ones, and the memory goes through a real checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import default_collate

import onward
from onward.errors import Unstorable
from onward.learning.memory import Memory
from tests.learning.lessons import Given


def fresh(index: int) -> dict[str, Any]:
    """What a dataset might give."""
    return {
        "image": torch.full((1, 4, 4), index, dtype=torch.uint8),
        "scores": (torch.tensor(index, dtype=torch.float16), np.float32(index)),
        "label": index,
        "weight": index / 3,
        "flag": bool(index % 2),
        "text": "x" * index,
    }


def test_remembered_and_fresh_samples_collate_alike() -> None:
    """The same dtypes, shapes and values as if all were fresh."""
    memory = Memory(10, seed=1)
    memory.offer(Given(0, 30, raw=fresh), increment=1)
    remembered = [memory.sample(slot, tensor=torch.from_numpy) for slot in memory.slots.tolist()]
    numbers = [sample["label"] for sample in remembered]
    mixed = default_collate([*remembered, fresh(40)])
    expected = default_collate([fresh(number) for number in [*numbers, 40]])
    for key in ("image", "label", "weight", "flag"):
        assert mixed[key].dtype == expected[key].dtype
        assert torch.equal(mixed[key], expected[key])
    for ours, theirs in zip(mixed["scores"], expected["scores"], strict=True):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)
    assert mixed["text"] == expected["text"]


def test_a_tensor_in_a_graph_is_kept_without_it() -> None:
    """Its values, not its history."""
    memory = Memory(1)
    weight = torch.ones(2, requires_grad=True)
    memory.offer(Given(0, 1, raw=lambda index: weight * 2), increment=1)
    sample = memory.sample(0, tensor=torch.from_numpy)
    assert sample.tolist() == [2, 2]
    assert not sample.requires_grad


@pytest.mark.parametrize("tensor", [torch.zeros(2, dtype=torch.bfloat16), torch.eye(2).to_sparse()])
def test_a_tensor_that_numpy_cannot_hold_is_refused(tensor: torch.Tensor) -> None:
    """By its path."""
    with pytest.raises(Unstorable, match=r"sample\[0\]"):
        Memory(1).offer(Given(0, 1, raw=lambda index: (tensor,)), increment=1)


def test_the_memory_goes_through_a_real_checkpoint(tmp_path: Path) -> None:
    """Saved and restored, the same samples in the same slots."""

    def opened(memory: Memory) -> Any:
        return onward.open(tmp_path / "out", model=model, optimizer=optimizer, memory=memory)

    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    memory = Memory(10, seed=1)
    slots = memory.offer(Given(0, 30, raw=fresh), increment=1)
    memory.beside("logits").write(slots, np.ones((len(slots), 3), np.float32))
    run = opened(memory)
    for _epoch in run.epochs(1):
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        run.step()
        assert run.save()
        break
    run.close()
    restored = Memory(10, seed=1)
    opened(restored).close()
    assert restored.slots.tolist() == memory.slots.tolist()
    assert restored.seen == 30
    for slot in memory.slots.tolist():
        ours, theirs = (m.sample(slot, tensor=torch.from_numpy) for m in (memory, restored))
        assert repr(ours) == repr(theirs)
    assert restored.beside("logits").outputs.tolist() == [3] * 10
