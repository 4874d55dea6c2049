"""MLflow: a parent run for each model, and below it a run for each increment.

A run is found again by its tags, so that a process that was killed before its first save leaves
no second one behind. What MLflow was told cannot be taken back, and a step told twice is drawn
twice: a process that goes on from an older step tells only what is new, and notes the rewind.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from onward.errors import UsageError
from onward.trackers.base import Row, Series, Status, flat
from onward.trackers.names import need

REPOSITORY = "onward.repository"
SERIES = "onward.series"
MODEL = "model"
"""The value of the tag `SERIES` of the parent run."""

_STATUS = {"finished": "FINISHED", "killed": "KILLED", "failed": "FAILED"}
_PARENT_RUN = "mlflow.parentRunId"
_BATCH = 1000
_PARAMS = 100
_LONGEST_VALUE = 6000
_LONGEST_NAME = 250
_REWINDS_KEPT = 20
_NOT_IN_NAMES = re.compile(r"[^\w\-. /:]")


class MLflow:
    """Runs in an experiment; by default the one that MLflow's environment names, else `onward`.

    `tracking_uri` is the server's, by default `MLFLOW_TRACKING_URI`.
    """

    name = "mlflow"

    def __init__(self, experiment: str = "", *, tracking_uri: str = "") -> None:
        self.experiment = experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME", "")
        self.tracking_uri = tracking_uri
        self._client: Any = None
        self._model = ""
        self._run = ""
        self._newest: dict[str, int] | None = None
        self._newest_of_model: dict[str, int] | None = None

    def check(self, folder: Path | None) -> None:
        check_reachable(self.tracking_uri)

    def begin(self, series: Series) -> None:
        self._client = self._client or client_of(self.tracking_uri)
        experiment = self._experiment_id()
        where = f"tags.`{REPOSITORY}` = '{series.repository}'"
        runs = self._client.search_runs([experiment], filter_string=where, max_results=1000)
        known = {run.data.tags.get(SERIES, ""): run for run in runs}
        shared = {
            REPOSITORY: series.repository,
            "onward.output": series.output,
            "mlflow.source.name": os.path.basename(sys.argv[0] or "python"),
        }
        title = title_of(series.output) or series.repository[:8]
        self._model = self._take(known.get(MODEL), experiment, title, {**shared, SERIES: MODEL})
        mine = known.get(series.name)
        tags = {**shared, SERIES: series.name, _PARENT_RUN: self._model}
        self._run = self._take(mine, experiment, series.name, tags)
        self._newest = self._newest_of_model = None
        for name, run in known.items():
            # The writer of an output is alone: what still seems to run was killed.
            if name not in (MODEL, series.name) and run.info.status == "RUNNING":
                ended = "FINISHED" if name in series.finished else "KILLED"
                end_run(self._client, run.info.run_id, ended)
        if mine is not None:
            self._note_rewind(mine, series)
        self.note(series.facts)
        self._log_params(series, mine)

    def tell(self, rows: Sequence[Row]) -> None:
        if self._newest is None:
            self._newest = self._told(self._run)
        try:
            self._log(self._run, rows, self._newest)
        except Exception:
            self._newest = None  # some of it may have arrived
            raise

    def tell_model(self, rows: Sequence[Row]) -> None:
        if self._newest_of_model is None:
            self._newest_of_model = self._told(self._model)
        try:
            self._log(self._model, rows, self._newest_of_model)
        except Exception:
            self._newest_of_model = None
            raise

    def note(self, facts: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        tags = [RunTag(f"onward.{name}", text[:_LONGEST_VALUE]) for name, text in facts.items()]
        if tags:
            self._client.log_batch(self._run, tags=tags)

    def end(self, status: Status) -> None:
        for run in (self._run, self._model):
            end_run(self._client, run, _STATUS[status])

    def _experiment_id(self) -> str:
        named = os.environ.get("MLFLOW_EXPERIMENT_ID", "")
        if named and not self.experiment:
            return named
        name = self.experiment or "onward"
        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self._client.create_experiment(name))
            except Exception:
                found = self._client.get_experiment_by_name(name)  # somebody else was quicker
                if found is None:
                    raise
        return str(found.experiment_id)

    def _take(self, found: Any, experiment: str, name: str, tags: Mapping[str, str]) -> str:
        """The run found, running again, or a new one."""
        if found is None:
            run = self._client.create_run(experiment, run_name=name, tags=dict(tags))
            return str(run.info.run_id)
        self._client.update_run(found.info.run_id, status="RUNNING")
        return str(found.info.run_id)

    def _note_rewind(self, run: Any, series: Series) -> None:
        self._newest = self._told(self._run)
        told = max(self._newest.values(), default=-1)
        if told <= series.goes_on_at:
            return
        earlier = json.loads(run.data.tags.get("onward.rewinds", "[]"))
        rewind = {"told": told, "back_to": series.goes_on_at, "time": round(time.time())}
        kept = json.dumps([*earlier, rewind][-_REWINDS_KEPT:])
        self._client.set_tag(self._run, "onward.rewinds", kept)

    def _log_params(self, series: Series, run: Any) -> None:
        from mlflow.entities import Param

        there = run.data.params if run is not None else {}
        new = [
            Param(_name(name), text[:_LONGEST_VALUE])
            for name, text in flat(series.config)
            if _name(name) not in there  # a param cannot change; the log has every configuration
        ]
        for start in range(0, len(new), _PARAMS):
            self._client.log_batch(self._run, params=new[start : start + _PARAMS])

    def _told(self, run_id: str) -> dict[str, int]:
        """The newest step of each metric that the run has."""
        names = self._client.get_run(run_id).data.metrics
        return {
            name: max(metric.step for metric in self._client.get_metric_history(run_id, name))
            for name in names
        }

    def _log(self, run_id: str, rows: Iterable[Row], newest: dict[str, int]) -> None:
        from mlflow.entities import Metric

        new = [
            Metric(_name(name), value, round(row.time_s * 1000), row.step)
            for row in rows
            for name, value in row.values.items()
            if row.step > newest.get(_name(name), -1)
        ]
        for start in range(0, len(new), _BATCH):
            some = new[start : start + _BATCH]
            self._client.log_batch(run_id, metrics=some)
            newest.update({metric.key: metric.step for metric in some})


def check_reachable(tracking_uri: str) -> None:
    """Raises `UsageError` where MLflow is not installed, or has no place to write to."""
    need("mlflow", extra="mlflow", what="MLflow")
    elsewhere = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or "mlflow" in sys.modules
    if not elsewhere and find_spec("sqlalchemy") is None:
        raise UsageError(
            "MLflow has no server to write to",
            why="MLFLOW_TRACKING_URI is not set, and mlflow-skinny has no database of its own",
            do="set it to the server's address, such as http://localhost:5000, "
            "or pip install mlflow",
        )


def client_of(tracking_uri: str) -> Any:
    """MLflow's own client; imported only now, as that takes seconds."""
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=tracking_uri or None)


def end_run(client: Any, run: str, status: str) -> None:
    """Sets a run's status and its end, without MLflow's lines in the script's own output."""
    quiet = "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"
    before = os.environ.get(quiet)
    os.environ[quiet] = "true"
    try:
        client.set_terminated(run, status)
    finally:
        if before is None:
            os.environ.pop(quiet, None)
        else:
            os.environ[quiet] = before


def title_of(output: str) -> str:
    """The last part of an output's URL or path."""
    place = output.partition("?")[0] if "://" in output else output
    return place.rstrip("/").rpartition("/")[2]


def _name(name: str) -> str:
    """`name` as MLflow allows it: one that it refuses would be refused again for ever."""
    allowed = _NOT_IN_NAMES.sub("_", name)[:_LONGEST_NAME]
    if posixpath.normpath(allowed) != allowed or allowed[0] in "/.":
        allowed = "_" + allowed.replace("/", "_")
    return allowed
