"""What any tracker is told: which series, which steps, and what happens when it fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import onward
from onward.errors import UsageError
from onward.trackers import InMemory, Row
from tests.trackers.story import train


def test_nothing_is_tracked_unless_asked_for(tmp_path: Path) -> None:
    """Without trackers there is no folder, no thread, and nothing in the checkpoint."""
    train(tmp_path, ())
    assert [path.name for path in tmp_path.iterdir()] == ["onward"]


def test_every_nth_step_and_each_evaluation(tmp_path: Path) -> None:
    """A metric of a step is told once in so many steps; an evaluation where it was made."""
    memory = InMemory()
    train(tmp_path, memory, every=4)
    curves = memory.kept["increment-1"].curves
    assert list(curves["loss"]) == [1, 4, 8, 12, 16, 20, 24, 28]
    assert list(curves["val_norm"]) == [10, 20, 30]
    assert list(curves["holdout/fixed"]) == [30]


def test_each_increment_is_a_series_of_one_model(tmp_path: Path) -> None:
    """Steps go on over increments; facts name the checkpoint, its parent and the data."""
    memory = InMemory()
    train(tmp_path, memory)
    last = train(tmp_path, memory, items=60)
    first, second = memory.kept["increment-1"], memory.kept["increment-2"]
    assert (first.series.repository, first.status) == (second.series.repository, "finished")
    assert min(second.curves["loss"]) == first.newest + 1
    assert second.facts["checkpoint"] == last.checkpoint
    assert second.facts["verb"] == "continue"
    assert second.facts["parent"] == first.facts["checkpoint"]
    assert second.facts["data"] == "20 new, 40 known"
    assert second.facts["verdict"]
    assert list(memory.model["holdout/fixed"]) == [30, second.newest]


def stop(path: Path, memory: InMemory, step: int, **options: Any) -> None:
    """Trains until it is asked to stop after `step`."""

    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with onward.open(
        path, model=model, optimizer=optimizer, trackers=memory, track_every_steps=1,
        save_every_seconds=None, **options,
    ) as run:  # fmt: skip
        data = torch.utils.data.TensorDataset(torch.ones(40, 1))
        for _epoch in run.epochs(1):
            for (batch,) in run.loader(data, batch_size=1):
                loss = model(batch).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                if run.global_step + 1 == step:
                    os.kill(os.getpid(), signal.SIGTERM)
                run.step(loss=loss)


def test_stopped_and_gone_on_with_is_no_rewind(tmp_path: Path) -> None:
    """SIGTERM saves first: nothing comes again, and the series was killed only until then."""
    memory = InMemory()
    with pytest.raises(SystemExit):
        stop(tmp_path, memory, 5)
    assert memory.kept["increment-1"].status == "killed"
    stop(tmp_path, memory, -1)
    kept = memory.kept["increment-1"]
    assert list(kept.curves["loss"]) == list(range(1, 41))
    assert (kept.rewinds, kept.status) == ([], "finished")


def test_an_error_in_the_loop_fails_the_series(tmp_path: Path) -> None:
    """What ends with an exception is not shown as running, nor as stopped."""
    memory = InMemory()

    def broken() -> None:
        with onward.open(tmp_path, model=nn.Linear(1, 1), trackers=memory) as run:
            run.step(loss=1.0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    assert memory.kept["increment-1"].status == "failed"


def test_going_on_from_an_older_checkpoint_is_another_series(tmp_path: Path) -> None:
    """What was trained on another path keeps its curve; the new path has its own."""
    memory = InMemory()
    with pytest.raises(SystemExit):
        stop(tmp_path, memory, 20, save_every_steps=8)
    stop(tmp_path, memory, -1, checkpoint="v1")
    assert list(memory.kept["increment-1"].curves["loss"]) == list(range(1, 21))
    assert list(memory.kept["increment-1-from-8"].curves["loss"]) == list(range(9, 41))
    assert memory.kept["increment-1-from-8"].facts["verb"] == "resume"


def test_an_increment_begun_again_is_another_series(tmp_path: Path) -> None:
    """Two increments that went on from the same checkpoint are two series."""
    memory = InMemory()
    train(tmp_path, memory)
    train(tmp_path, memory, items=60)
    finished = list(memory.kept)
    train(tmp_path, memory, items=60, checkpoint="v4")
    assert finished == ["increment-1", "increment-2"]
    assert list(memory.kept) == [*finished, "increment-2-again-1"]


def test_a_branch_is_another_model_that_names_its_origin(tmp_path: Path) -> None:
    """A branch begins its own group, at step 0."""
    memory, other = InMemory(), InMemory()
    parent = train(tmp_path / "one", memory)
    train(tmp_path / "two", other, branch_from=str(tmp_path / "one"))
    branch = other.kept["increment-1"]
    assert branch.facts["branched_from"].endswith(f"one@{parent.checkpoint}")
    assert branch.series.repository != memory.kept["increment-1"].series.repository
    assert min(branch.curves["loss"]) == 1


class Unwilling(InMemory):
    """Fails from the `first` call on that tells something."""

    name = "unwilling"

    def tell(self, rows: Sequence[Row]) -> None:
        raise ConnectionError("nobody answers")


def test_a_tracker_that_fails_is_told_of_once_and_stops_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Training, other trackers and the checkpoint are as if it were not there."""
    memory = InMemory()
    train(tmp_path, [Unwilling(), memory])
    assert list(memory.kept["increment-1"].curves["loss"]) == [1, *range(3, 31, 3)]
    said = capsys.readouterr().err
    assert said.count("nobody answers") == 1
    assert "unwilling was not told everything" in said


def test_what_a_tracker_missed_is_told_by_the_next_process(tmp_path: Path) -> None:
    """A checkpoint remembers what was not told when it was made."""
    deaf = Unwilling()
    with pytest.raises(SystemExit):
        stop(tmp_path, deaf, 20)
    assert deaf.kept["increment-1"].curves == {}
    memory = InMemory()
    stop(tmp_path, memory, -1)
    assert list(memory.kept["increment-1"].curves["loss"]) == list(range(1, 41))


def test_a_loss_added_up_in_place_is_told_as_it_was(tmp_path: Path) -> None:
    """What the loop does to a tensor after a step does not change what is told of the step."""
    memory = InMemory()
    total = torch.zeros(())
    with onward.open(tmp_path, model=nn.Linear(1, 1), trackers=memory, track_every_steps=1) as run:
        for _ in range(5):
            total += 1
            run.step(total=total)
    assert memory.kept["increment-1"].curves["total"] == {1: 1, 2: 2, 3: 3, 4: 4, 5: 5}


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
def test_a_tracker_that_is_not_installed(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the extra, and comes before the output is made."""
    import onward.trackers.names as names

    real = names.find_spec
    monkeypatch.setattr(names, "find_spec", lambda p: None if p == name else real(p))
    with pytest.raises(UsageError) as error:
        train(tmp_path / "out", name)
    assert f"pip install 'onward[{name}]'" in str(error.value)
    assert not (tmp_path / "out").exists()


def test_naming_a_tracker_imports_none() -> None:
    """`onward.trackers` and its protocol are light."""
    code = (
        "import onward.trackers as t, sys; t.InMemory(); t.trackers_of(['tensorboard'])\n"
        "assert not {'tensorboard', 'mlflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_and_doubled_trackers_are_refused(tmp_path: Path) -> None:
    """The names there are stand in the error."""
    with pytest.raises(UsageError, match="wandb"):
        train(tmp_path, "wandb")
    with pytest.raises(UsageError, match="twice"):
        train(tmp_path, ["tensorboard", "tensorboard"])
    with pytest.raises(UsageError, match="track_every_steps"):
        train(tmp_path, "tensorboard", every=0)
