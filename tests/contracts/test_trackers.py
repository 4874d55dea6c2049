"""What every tracker promises: one curve for each series, whatever was told twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from onward.trackers import InMemory, MLflow, Row, Series, TensorBoard, Tracker
from tests.trackers.story import in_mlflow, in_tensorboard, mlflow_runs

SERIES = Series(
    repository="0" * 32, output="/somewhere/out", name="increment-1", increment=1, step=0,
    goes_on_at=0, facts={"verb": "fresh"}, config={"lr": 0.1, "net": {"width": 8}},
)  # fmt: skip


class Place:
    """Where one sort of tracker writes, and how to read it back."""

    def __init__(self, make: Callable[[], Tracker], read: Callable[[], Any]) -> None:
        self.make, self.read = make, read


@pytest.fixture(params=["memory", "tensorboard", "mlflow"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: Any) -> Place:
    match request.param:
        case "memory":
            memory = InMemory()
            return Place(
                lambda: memory,
                lambda: {
                    **{
                        name: {metric: list(curve.items()) for metric, curve in kept.curves.items()}
                        for name, kept in memory.kept.items()
                    },
                    "model": {
                        metric: list(curve.items()) for metric, curve in memory.model.items()
                    },
                },
            )
        case "tensorboard":
            return Place(lambda: TensorBoard(tmp_path), lambda: in_tensorboard(tmp_path))
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = tmp_path.as_uri()
    return Place(lambda: MLflow(tracking_uri=uri), lambda: in_mlflow(uri))


def begun(place: Place, series: Series = SERIES) -> Tracker:
    """A tracker of a process that has just begun."""
    tracker = place.make()
    tracker.check(None)
    tracker.begin(series)
    return tracker


def rows(*steps: int, **values: float) -> list[Row]:
    return [Row(step, values or {"loss": step / 4}, 1_700_000_000.0 + step) for step in steps]


def test_what_a_killed_process_told_too_much_is_drawn_once(place: Place) -> None:
    """Told to step 5, gone on with from step 2: the same values again, in one curve."""
    begun(place).tell(rows(1, 2, 3, 4, 5))
    begun(place, replace(SERIES, step=3, goes_on_at=2)).tell(rows(3, 4, 5, 6))
    assert place.read()["increment-1"]["loss"] == [(step, step / 4) for step in range(1, 7)]


def test_what_was_not_told_in_time_is_told_later(place: Place) -> None:
    """Told to step 2, gone on with from step 5, which remembers 3 to 5."""
    begun(place).tell(rows(1, 2))
    begun(place, replace(SERIES, step=3, goes_on_at=5)).tell(rows(3, 4, 5, 6))
    assert place.read()["increment-1"]["loss"] == [(step, step / 4) for step in range(1, 7)]


def test_metrics_of_one_step_may_come_apart(place: Place) -> None:
    """An evaluation after the step's own metrics, and the last of a life again."""
    tracker = begun(place)
    tracker.tell(rows(4))
    tracker.tell(rows(4, accuracy=0.5))
    again = begun(place, replace(SERIES, step=4, goes_on_at=4))
    again.tell([*rows(4), *rows(4, accuracy=0.5), *rows(8)])
    found = place.read()["increment-1"]
    assert found == {"loss": [(4, 1.0), (8, 2.0)], "accuracy": [(4, 0.5)]}


def test_the_models_own_curves_may_be_told_from_the_start(place: Place) -> None:
    """Each process tells all that the log holds; it is one curve."""
    for steps in ((10,), (10, 20), (10, 20, 30)):
        tracker = begun(place)
        tracker.tell(rows(steps[-1]))
        tracker.tell_model(rows(*steps, accuracy=0.5))
        tracker.end("finished")
    assert place.read()["model"]["accuracy"] == [(10, 0.5), (20, 0.5), (30, 0.5)]


def test_names_and_numbers_of_every_sort(place: Place) -> None:
    """What one tracker cannot call so is called otherwise, but refused by none."""
    names = ["loss", "val/loss", "a//b", "/a", "../a", ".", "größe", "a,b", "x" * 300, "lr:0"]
    tracker = begun(place)
    tracker.tell([Row(1, dict.fromkeys(names, 1.0), 1_700_000_000.0)])
    tracker.note({"checkpoint": "0" * 16, "verdict": "x" * 9000})
    tracker.end("failed")
    assert len(place.read()["increment-1"]) == len(names)


def test_mlflow_sets_the_end_of_what_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer of an output is alone: another increment that still seems to run does not."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    where = Place(lambda: MLflow("mine", tracking_uri=tmp_path.as_uri()), dict)
    begun(where)
    begun(where, replace(SERIES, name="increment-2"))
    begun(where, replace(SERIES, name="increment-3", finished=frozenset({"increment-2"})))
    runs = mlflow_runs(tmp_path.as_uri(), "mine")
    assert {name: run.info.status for name, run in runs.items()} == {
        "increment-1": "KILLED", "increment-2": "FINISHED", "increment-3": "RUNNING",
        "model": "RUNNING",
    }  # fmt: skip
    assert runs["increment-1"].data.params == {"lr": "0.1", "net.width": "8"}
    parent = runs["model"].info.run_id
    assert runs["increment-1"].data.tags["mlflow.parentRunId"] == parent
