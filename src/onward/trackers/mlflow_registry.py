"""MLflow's registry of models: a checkpoint as a version, found again by its tags."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onward.errors import OnwardError, StoreError, UsageError
from onward.trackers.mlflow import (
    MODEL,
    REPOSITORY,
    SERIES,
    check_reachable,
    client_of,
    end_run,
    title_of,
)

PREFIX = "onward."
"""Of the tags that say which checkpoint a version is."""
CHECKPOINT = PREFIX + "checkpoint"
_NOT_IN_NAMES = re.compile(r"""[/:.%"']""")
_ALIAS = re.compile(r"[A-Za-z0-9_-]{1,255}")
_RESERVED = re.compile(r"latest|v[0-9]+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Registered:
    """What came of it. `new` is False where the checkpoint was registered before."""

    name: str
    version: str
    new: bool
    run: str
    source: str
    aliases: list[str]
    left_out: list[str]
    """Aliases that MLflow does not allow."""


class Registry:
    """Registers checkpoints of one repository where MLflow's environment says."""

    def __init__(self, repository: str, *, experiment: str = "onward") -> None:
        check_reachable("")
        self._repository = repository
        self._experiment = experiment
        self._client = self._asked(client_of, "")

    def version_of(self, name: str, checkpoint: str) -> Any:
        """The version that this checkpoint is, or None."""
        for version in self._asked(self._client.search_model_versions, f"name='{name}'"):
            tags = version.tags
            if (tags.get(REPOSITORY), tags.get(CHECKPOINT)) == (self._repository, checkpoint):
                return version
        return None

    def register(
        self, name: str, folder: Path, *, series: str, tags: Mapping[str, str]
    ) -> tuple[Any, str]:
        """Uploads the folder and makes it a version; returns that, and its run.

        The version is made last: cut off before, the next try uploads the same files again.
        """
        found: tuple[Any, str] = self._asked(self._register, name, folder, series, tags)
        return found

    def set_aliases(
        self, name: str, version: str, aliases: Sequence[str]
    ) -> tuple[list[str], list[str]]:
        """Moves these aliases to a version; returns them, and those that MLflow does not allow."""
        allowed = [a for a in aliases if _ALIAS.fullmatch(a) and not _RESERVED.fullmatch(a)]
        for alias in allowed:
            self._asked(self._client.set_registered_model_alias, name, alias, version)
        return allowed, [alias for alias in aliases if alias not in allowed]

    def _register(
        self, name: str, folder: Path, series: str, tags: Mapping[str, str]
    ) -> tuple[Any, str]:
        from mlflow.exceptions import MlflowException

        run = self._run(series)
        place = f"checkpoints/{tags[CHECKPOINT]}"
        self._client.log_artifacts(run.info.run_id, str(folder), place)
        try:
            self._client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        version = self._client.create_model_version(
            name, f"{run.info.artifact_uri}/{place}", run_id=run.info.run_id, tags=dict(tags)
        )
        return version, str(run.info.run_id)

    def _run(self, series: str) -> Any:
        """The run that trained it if MLflow was told, else one for the model."""
        experiments = [one.experiment_id for one in self._client.search_experiments()]
        where = f"tags.`{REPOSITORY}` = '{self._repository}'"
        runs = self._client.search_runs(experiments, where, max_results=1000)
        known = {run.data.tags.get(SERIES): run for run in runs}
        found = known.get(series) or known.get(MODEL)
        if found is not None:
            return found
        experiment = self._client.get_experiment_by_name(self._experiment)
        id_ = experiment and experiment.experiment_id
        tags = {REPOSITORY: self._repository, SERIES: MODEL}
        run = self._client.create_run(
            id_ or self._client.create_experiment(self._experiment), tags=tags
        )
        end_run(self._client, run.info.run_id, "FINISHED")
        return run

    def _asked(self, call: Any, *arguments: Any) -> Any:
        try:
            return call(*arguments)
        except OnwardError:
            raise
        except Exception as error:  # MLflow lets those of its libraries through, too
            raise StoreError(
                "MLflow did not register the checkpoint",
                why=" ".join(str(error).split())[:500],
                do="run the same command again once MLflow answers: nothing is registered twice",
            ) from error


def model_name(asked: str, output: str) -> str:
    """The registered model's name: what was asked for, else the last part of the output's URL."""
    if not asked:
        return _NOT_IN_NAMES.sub("-", title_of(output)) or "onward"
    if _NOT_IN_NAMES.search(asked):
        raise UsageError(
            f"{asked!r} cannot be a model of MLflow",
            why="its names hold none of / : . % \" '",
            do="give another name",
        )
    return asked


def write_model_file(folder: Path, *, flavor: Mapping[str, Any]) -> None:
    """`MLmodel`, by which MLflow knows a folder as a model: of Onward's own flavour, no pickle."""
    from mlflow.models import Model

    Model(flavors={"onward": dict(flavor)}).save(str(folder / "MLmodel"))
