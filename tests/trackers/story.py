"""A training whose metrics are tracked, in a process that may be killed; and what trackers show."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

import onward

ROOT = Path(__file__).parent.parent.parent

Curves = dict[str, dict[str, list[tuple[int, float]]]]
"""Of each run by its name: of each metric, the values in the order of the tracker."""


def train(
    output: str | Path,
    trackers: Any,
    *,
    items: int = 40,
    kill_at: int = -1,
    told: bool = False,
    every: int = 3,
    rate: float = 0.1,
    **options: Any,
) -> onward.Run:
    """Three epochs of ten steps for 40 items, saved every seven; an evaluation after each epoch.

    Killed after the step `kill_at`; with `told`, once trackers know all that came before.
    """
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    values = torch.randn(200, 3, generator=torch.Generator().manual_seed(1))
    data = torch.utils.data.TensorDataset(values[:items], (values.sum(1) > 0).long()[:items])
    options = {
        "save_every_steps": 7, "save_every_epoch": False, "save_every_seconds": None,
        "track_every_steps": every, "config": {"lr": rate}, **options,
    }  # fmt: skip
    run = onward.open(output, model=model, optimizer=optimizer, trackers=trackers, **options)
    loader = run.loader(data, batch_size=4)
    run.scoring(lambda batch: model(batch[0]).argmax(1) == batch[1])
    run.holdout("fixed", torch.utils.data.TensorDataset(values[150:], (values.sum(1) > 0)[150:]))
    for _epoch in run.epochs(3):
        for inputs, labels in loader:
            loss = nn.functional.cross_entropy(model(inputs), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.step(loss=loss, rate=optimizer.param_groups[0]["lr"])
            if run.global_step == kill_at:
                run.wait()
                if told:
                    assert run._tracking.flush(30.0)
                os.kill(os.getpid(), signal.SIGKILL)
        run.evaluate(lambda: {"norm": float(model.weight.detach().norm())}, name="val")
    run.finish()
    return run


def in_process(output: Path, *arguments: str, environment: dict[str, str] | None = None) -> int:
    """Runs `train` in a process of its own; returns its exit status."""
    command = [sys.executable, "-m", "tests.trackers.story", str(output), *arguments]
    variables = {**os.environ, **(environment or {})}
    found = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)
    if found.returncode not in (0, -signal.SIGKILL):
        raise AssertionError(found.stderr)
    return found.returncode


def in_tensorboard(folder: Path) -> Curves:
    """Read as TensorBoard reads it."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found: Curves = {}
    for run in sorted(path for path in folder.iterdir() if path.is_dir()):
        events = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
        found[run.name] = {
            tag: [(event.step, event.value) for event in events.Scalars(tag)]
            for tag in events.Tags()["scalars"]
        }
    return found


def mlflow_runs(uri: str, experiment: str = "onward") -> dict[str, Any]:
    """Every run by its name."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    runs = client.search_runs([found.experiment_id])
    named = {run.data.tags["onward.series"]: run for run in runs}
    assert len(named) == len(runs)  # no run twice
    return named


def in_mlflow(uri: str, experiment: str = "onward") -> Curves:
    """Read by MLflow's own client."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    return {
        name: {
            metric: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, metric)]
            for metric in run.data.metrics
        }
        for name, run in mlflow_runs(uri, experiment).items()
    }


if __name__ == "__main__":
    place, names, kill_at, told, count = sys.argv[1:]
    train(place, names.split(","), kill_at=int(kill_at), told=told == "told", items=int(count))
