"""A training whose metrics are tracked, in a process that may be killed; and what trackers show."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import torch
from torch import nn

import onward

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


def in_process(
    output: Path, trackers: list[str], *, environment: dict[str, str], **how: Any
) -> int:
    """Runs `train` in a process of its own; returns its exit status, negative for a signal."""
    context = multiprocessing.get_context("forkserver")  # imports cost once, not in each process
    context.set_forkserver_preload(
        ["torch", "torch._dynamo", "mlflow", "onward.training.session", "onward.data.torch"]
    )
    process = context.Process(
        target=_train_in, args=(environment, str(output), trackers), kwargs=how
    )
    process.start()
    process.join(120)
    assert process.exitcode is not None, "the process hangs"
    return process.exitcode


def _train_in(environment: dict[str, str], output: str, trackers: list[str], **how: Any) -> None:
    os.environ.update(environment)
    train(output, trackers, **how)


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
