"""Tensors on an accelerator: fetched during the next passes, and never after they have changed.

No accelerator is needed: every tensor is made one that must be fetched, and the thread that fetches
is held back as a slow copy would be.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import onward
from onward import errors
from onward.frameworks import torch_tensors
from onward.frameworks.base import DistantLeaf, TensorLeaf
from onward.frameworks.torch_sources import Bytes, TensorSource
from onward.repository import open_repository, verify
from onward.stores import open_store
from tests.frameworks.torch_training import same, through_bytes
from tests.training.test_saving import Training, stored


class CopyLane:
    """A lane from the host to the host."""

    def follow(self) -> None:
        return

    def fetch(self, tensor: torch.Tensor) -> Bytes:
        return np.array(tensor.numpy())


@pytest.fixture(autouse=True)
def distant(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes every tensor of the host one that must be fetched."""
    leaf_of = torch_tensors.leaf_of

    def distant_leaf_of(tensor: torch.Tensor, path: str) -> TensorLeaf:
        leaf = leaf_of(tensor, path)
        if not tensor.numel():
            return leaf
        source = TensorSource(tensor.detach(), CopyLane())
        return DistantLeaf(leaf.dtype, leaf.shape, leaf.kind, identity=leaf.identity, source=source)

    monkeypatch.setattr(torch_tensors, "leaf_of", distant_leaf_of)


def held_back(run: onward.Run) -> threading.Event:
    """The saving thread does nothing until this is set."""
    event = threading.Event()
    run._saves.saver._pool.submit(event.wait, 60)
    return event


def saved_slowly(
    output: Path, training: Training, **options: Any
) -> tuple[onward.Run, Any, str, threading.Event]:
    """A run whose second save has been asked for, and the state at that moment."""
    run = training.open(output, **options)
    for number in range(2):
        training.step(number)
        run.step()
        if number == 0:
            run.save()
    before = training.captured()
    event = held_back(run)
    checkpoint = run.save(wait=False)
    assert checkpoint is not None
    return run, before, checkpoint, event


def test_optimizers_wait_for_what_is_not_fetched_yet(tmp_path: Path) -> None:
    """Forward and backward run while parameters wait to be fetched, optimizers do not.

    What a forward pass changes (normalisation, counters) was copied before saving returned.
    """
    training = Training()
    run, before, checkpoint, event = saved_slowly(tmp_path, training)
    seen: list[str] = []
    training.net.register_forward_hook(lambda *_: seen.append(f"forward {event.is_set()}"))
    training.adam.register_step_post_hook(lambda *_: seen.append(f"step {event.is_set()}"))
    timer = threading.Timer(0.1, event.set)
    training.net.out.weight.register_hook(lambda _: timer.start())  # in the backward pass
    training.step(100)
    assert seen == ["forward False", "step True"]
    run.wait()
    assert same(through_bytes(stored(tmp_path, checkpoint)), before)
    run.close()
    assert verify(open_repository(open_store(tmp_path)), every_byte=True).intact


def test_a_parameter_written_elsewhere_is_found_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The torn copy is not stored, the warning says what to do, the next save copies at once."""
    training = Training()
    run, _, checkpoint, event = saved_slowly(tmp_path, training)
    with torch.no_grad():
        training.net.dense.weight.mul_(3)
    event.set()
    run.wait()
    told = capsys.readouterr().err
    assert "step 2 was NOT saved" in told
    assert 'snapshot="eager"' in told
    training.step(2)
    run.step()
    state = training.captured()
    event = held_back(run)
    second = run.save(wait=False)
    with torch.no_grad():
        training.net.dense.weight.mul_(3)
    event.set()
    run.close()
    assert same(through_bytes(stored(tmp_path, second)), state)
    steps = [c.step for c in open_repository(open_store(tmp_path)).history.live()]
    assert steps == [1, 3]
    assert run.checkpoint != checkpoint


def test_eager_snapshots_leave_nothing_for_later(tmp_path: Path) -> None:
    """With `snapshot="eager"` every byte is on the host when saving returns."""
    training = Training()
    run, before, checkpoint, event = saved_slowly(tmp_path, training, snapshot="eager")
    with torch.no_grad():
        for parameter in training.net.parameters():
            parameter.data.fill_(7)
    event.set()
    run.close()
    assert same(through_bytes(stored(tmp_path, checkpoint)), before)


def test_parameters_that_no_known_optimizer_guards_are_copied_at_once(tmp_path: Path) -> None:
    """Only what a given optimizer changes may wait for its step."""
    training = Training()
    run = onward.open(
        tmp_path, net=training.net, adam=training.adam, save_every_seconds=None
    )  # the other optimizer is not known
    training.step(0)
    run.step()
    run.wait()
    before = training.captured()["net"]
    event = held_back(run)
    checkpoint = run.save(wait=False)
    with torch.no_grad():
        training.net.table.weight.data.fill_(7)
    event.set()
    run.close()
    repository = open_repository(open_store(tmp_path))
    manifest = repository.manifest(repository.history.commits[str(checkpoint)])
    table = next(t for t in manifest.tensors if t.path == "net/table.weight")
    from onward.repository.documents import digest_of

    assert table.digest == digest_of(before["table.weight"].data.tobytes())


def test_without_a_staging_copy_everything_is_fetched(tmp_path: Path) -> None:
    training = Training()
    run = training.open(tmp_path, staging=False)
    training.step(0)
    run.step()
    before = training.captured()
    checkpoint = run.save()
    run.close()
    assert same(through_bytes(stored(tmp_path, checkpoint)), before)


def test_snapshot_is_one_of_two_words(tmp_path: Path) -> None:
    with pytest.raises(errors.UsageError, match="snapshot"):
        Training().open(tmp_path, snapshot="sometimes")
