"""`onward export --mlflow`: checkpoints in MLflow's registry, once each, under their aliases."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from onward.cli.commands import main
from onward.repository import open_repository
from onward.stores import open_store
from tests.trackers.story import mlflow_runs, train


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An MLflow without a server, which it allows on request."""
    place = (tmp_path / "ml").as_uri()
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", place)
    return place


@pytest.fixture
def onward() -> Callable[..., Result]:
    def call(*arguments: object) -> Result:
        return CliRunner().invoke(main, [str(argument) for argument in arguments])

    return call


def client(uri: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def test_a_checkpoint_becomes_a_version_with_its_alias(
    tmp_path: Path, uri: str, onward: Callable[..., Result]
) -> None:
    """The version names repository, checkpoint, step and manifest, and holds the weights."""
    from safetensors.numpy import load_file

    run = train(tmp_path / "out", "mlflow")
    assert onward("export", tmp_path / "out", "champion", "--mlflow", "shop").exit_code == 0
    version = client(uri).get_model_version_by_alias("shop", "champion")
    history = open_repository(open_store(tmp_path / "out")).history
    commit = history.commits[run.checkpoint or ""]
    assert version.tags["onward.repository"] == history.repository
    assert version.tags["onward.checkpoint"] == commit.checkpoint
    assert version.tags["onward.step"] == "30"
    assert version.tags["onward.manifest"] == commit.manifest.digest
    assert version.run_id == mlflow_runs(uri)["increment-1"].info.run_id
    folder = Path(version.source.removeprefix("file://"))
    assert sorted(path.name for path in folder.iterdir()) == ["MLmodel", "model.safetensors"]
    assert set(load_file(folder / "model.safetensors")) == {"weight", "bias"}


def test_registered_twice_is_one_version(
    tmp_path: Path, uri: str, onward: Callable[..., Result]
) -> None:
    """The second time only the aliases move, which they do also between versions."""
    out = tmp_path / "out"
    train(out, ())
    first = json.loads(onward("export", out, "v1", "--mlflow", "--json").output)
    assert (first["model"], first["version"], first["new"], first["aliases"]) == (
        "out", "1", True, []
    )  # fmt: skip
    for name in ("stable", "V7", "with.dot"):
        assert onward("alias", out, name, "v1").exit_code == 0
    again = json.loads(onward("export", out, "v1", "--mlflow", "--json").output)
    assert (again["version"], again["new"], again["aliases"]) == ("1", False, ["stable"])
    assert again["aliases_left_out"] == ["V7", "with.dot"]
    assert onward("alias", out, "stable", "v2").exit_code == 0
    assert "version 2 of out, called stable" in onward("export", out, "v2", "--mlflow").output
    assert str(client(uri).get_model_version_by_alias("out", "stable").version) == "2"
    assert len(client(uri).search_model_versions("name='out'")) == 2


def test_what_cannot_be_meant(tmp_path: Path, uri: str, onward: Callable[..., Result]) -> None:
    """A file beside the registry, a name that MLflow refuses, and nothing at all."""
    out = tmp_path / "out"
    train(out, ())
    for arguments in (
        ("v1", tmp_path / "file", "--mlflow"), ("--mlflow", "a/b"), ("--force", "--mlflow"), (),
    ):  # fmt: skip
        assert onward("export", out, *arguments).exit_code == 2
    assert client(uri).search_registered_models() == []


def test_no_server_to_register_at(
    tmp_path: Path, onward: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An MLflow that cannot be used is an error of ours, with what to do."""
    out = tmp_path / "out"
    train(out, ())
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "ml").as_uri())
    found = onward("export", out, "--mlflow")
    assert found.exit_code == 1
    assert "MLflow did not register the checkpoint" in found.output
