"""`onward export --mlflow`: a checkpoint as a version of a model in MLflow's registry."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from onward import _version
from onward.cli.options import write_json
from onward.cli.text import clean
from onward.facts.outputs import Found
from onward.learning.rounds import rounds
from onward.trackers.mlflow import REPOSITORY
from onward.trackers.mlflow_registry import (
    PREFIX,
    Registered,
    Registry,
    model_name,
    write_model_file,
)
from onward.training.tracked import name_of_series

_FILE = "model.safetensors"


def register(found: Found, asked: str, export: Callable[[Path], Any]) -> Registered:
    """Registers a checkpoint with its aliases; `export` writes its weights to a file.

    A checkpoint that is a version already gets no second one, but the aliases that it has now.
    """
    history, commit = found.repository.history, found.commit
    output = found.repository.store.url
    name = model_name(asked, output)
    registry = Registry(history.repository)
    version = registry.version_of(name, commit.checkpoint)
    new = version is None
    if version is None:
        facts = {
            "checkpoint": commit.checkpoint,
            "version": f"v{history.versions()[commit.checkpoint]}",
            "step": str(commit.step),
            "epoch": str(commit.epoch),
            "increment": str(commit.increment),
            "finished": str(commit.finished).lower(),
            "manifest": history.manifest_place(commit).digest,
            "output": output,
        }
        with tempfile.TemporaryDirectory(prefix="onward-mlflow-") as place:
            folder = Path(place)
            export(folder / _FILE)
            write_model_file(
                folder,
                flavor={
                    "weights": _FILE,
                    "framework": found.manifest.framework.name,
                    "repository": history.repository,
                    "made_by": f"onward {_version.__version__}",
                    **facts,
                },
            )
            tags = {f"{PREFIX}{key}": value for key, value in facts.items()}
            version, _ = registry.register(
                name,
                folder,
                series=name_of_series(rounds(history), commit.increment, commit, of_tip=True),
                tags={**tags, REPOSITORY: history.repository},
            )
    set_, left_out = registry.set_aliases(
        name, version.version, history.names_of(commit.checkpoint)
    )
    return Registered(
        name, str(version.version), new, str(version.run_id), str(version.source), set_, left_out
    )


def say(found: Found, done: Registered, *, as_json: bool) -> None:
    """What came of it, for people or programs."""
    if as_json:
        write_json(
            {
                "model": done.name,
                "version": done.version,
                "new": done.new,
                "aliases": done.aliases,
                "aliases_left_out": done.left_out,
                "run": done.run,
                "source": done.source,
                "checkpoint": found.commit.checkpoint,
                "step": found.commit.step,
            }
        )
        return
    how = "registered as" if done.new else "is already"
    called = f", called {', '.join(map(clean, done.aliases))}" if done.aliases else ""
    click.echo(f"{found.label} {how} version {done.version} of {clean(done.name)}{called}")
    if done.left_out:
        names = ", ".join(map(clean, done.left_out))
        click.echo(f"left out: {names} (no alias that MLflow allows)")
