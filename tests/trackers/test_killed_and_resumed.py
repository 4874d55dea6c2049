"""Trackers show one curve, however often training was killed."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.trackers.story import Curves, in_mlflow, in_process, in_tensorboard, mlflow_runs, train

BOTH = ["tensorboard", "mlflow"]


def environment(folder: Path) -> dict[str, str]:
    return {"MLFLOW_ALLOW_FILE_STORE": "true", "MLFLOW_TRACKING_URI": (folder / "ml").as_uri()}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Curves:
    """Two increments without a break, as TensorBoard shows them."""
    folder = tmp_path_factory.mktemp("unbroken")
    train(folder, "tensorboard")
    train(folder, "tensorboard", items=60)
    return in_tensorboard(folder / "tensorboard")


@pytest.fixture
def _file_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")


def test_an_unbroken_life_is_one_axis(unbroken: Curves) -> None:
    """A run for each increment, steps of the whole life, and the model's own curves beside."""
    assert list(unbroken) == ["increment-1", "increment-2", "model"]
    first, second = unbroken["increment-1"], unbroken["increment-2"]
    assert [step for step, _ in first["loss"]] == [1, *range(3, 31, 3)]
    steps = [step for step, _ in second["loss"]]
    assert steps == sorted(set(steps))
    assert steps[0] == 31
    assert [step for step, _ in first["val_norm"]] == [10, 20, 30]
    assert [step for step, _ in unbroken["model"]["holdout/fixed"]] == [30, steps[-1]]


@pytest.mark.usefixtures("_file_store")
@pytest.mark.parametrize("told", ["told", "untold"])
def test_killed_between_saves_and_gone_on_with(tmp_path: Path, unbroken: Curves, told: str) -> None:
    """Killed before the first save, in an increment and in the next, ahead of the checkpoint or
    behind: the same points as without a break, none twice, none missing, in both trackers.
    """
    variables = environment(tmp_path)
    out = tmp_path / "out"
    for kill_at, items in ((5, 40), (12, 40), (-1, 40), (44, 60), (-1, 60)):
        status = in_process(
            out, BOTH, environment=variables, kill_at=kill_at, told=told == "told", items=items
        )
        assert status == (0 if kill_at < 0 else -signal.SIGKILL)
    assert in_tensorboard(out / "tensorboard") == unbroken
    found = in_mlflow(variables["MLFLOW_TRACKING_URI"])
    assert found.keys() == unbroken.keys()
    for name, curves in unbroken.items():
        assert {m: [step for step, _ in points] for m, points in found[name].items()} == {
            m: [step for step, _ in points] for m, points in curves.items()
        }
        for metric, points in curves.items():
            values = [value for _, value in found[name][metric]]
            assert values == pytest.approx([value for _, value in points])
    runs = mlflow_runs(variables["MLFLOW_TRACKING_URI"])
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    if told == "told":
        rewinds = json.loads(runs["increment-1"].data.tags["onward.rewinds"])
        assert [(r["told"], r["back_to"]) for r in rewinds] == [(3, 0), (12, 7)]
