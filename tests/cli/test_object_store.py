"""The commands on an output in a bucket."""

from __future__ import annotations

from pathlib import Path

import pytest

from onward.repository import open_or_create
from onward.repository.mirror import Mirror
from onward.repository.working import note_pushed
from onward.stores import LocalStore
from onward.training.places import WorkingFolder
from tests.cli.conftest import AsJson, Onward
from tests.cli.outputs import facts, floats
from tests.servers import S3Server

pytestmark = pytest.mark.servers


def test_every_command_works_on_a_bucket(
    onward: Onward,
    as_json: AsJson,
    seaweedfs: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same answers as for a folder; export writes into a bucket too."""
    for name, value in seaweedfs.environment.items():
        monkeypatch.setenv(name, value)
    url = seaweedfs.url("cli/out")
    writer = open_or_create(seaweedfs.store("cli/out")).claim("box")
    first = writer.commit({"model": {"w": floats(1, 2)}}, facts())
    second = writer.commit({"model": {"w": floats(1, 3)}}, facts(parent=first.checkpoint))

    assert as_json("log", url)["total"] == 2
    assert as_json("show", url)["checkpoint"] == second.checkpoint
    assert len(as_json("diff", url, "v1", "v2")["tensors"]["changed"]) == 1
    assert as_json("verify", url, "--every-byte")["intact"]
    waiting = as_json("prune", url, "--keep-last", "1")
    assert (waiting["freed_bytes"], len(waiting["dropped"])) == (0, 1)
    assert waiting["waiting_bytes"] > 0  # an hour, for whoever is reading it
    assert as_json("prune", url, "--grace", "0")["freed_bytes"] == waiting["waiting_bytes"]
    writer.commit({"model": {"w": floats(1, 4)}}, facts(parent=second.checkpoint))
    onward("drop", url, "v2", "--yes", "--grace", "0")
    text = onward("doctor", url).stdout
    assert "two writers are kept apart" in text
    assert "secret" not in text
    exported = seaweedfs.url("cli/exported.safetensors")
    onward("export", url, exported)
    assert seaweedfs.store("cli").size("exported.safetensors") > 8
    assert "exists already" in onward("export", url, exported, code=2).stderr
    onward("export", url, tmp_path / "f.safetensors")
    onward("import", tmp_path / "f.safetensors", seaweedfs.url("cli/imported"))
    assert as_json("log", seaweedfs.url("cli/imported"))["total"] == 1


def test_the_log_of_a_url_tells_what_this_machine_has_not_pushed(
    onward: Onward,
    as_json: AsJson,
    seaweedfs: S3Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second working copy too; what the store has meanwhile is not counted."""
    for name, value in seaweedfs.environment.items():
        monkeypatch.setenv(name, value)
    url = seaweedfs.url("cli/behind")
    store = seaweedfs.store("cli/behind")
    held = [WorkingFolder(url), WorkingFolder(url)]
    mirror = Mirror(LocalStore(held[1].output), store)
    mirror.pull_log()
    writer = mirror.claim("test")
    first = writer.commit({"w": floats(1)}, facts())
    mirror.push()
    note_pushed(mirror.local_store, mirror.local.history.repository, url, None)  # lost: behind
    writer.commit({"w": floats(2)}, facts(parent=first.checkpoint))
    (behind,) = as_json("log", url)["unpushed"]
    assert (behind["folder"], behind["checkpoints"]) == (str(held[1].output), 1)
    mirror.push()
    assert "not pushed" not in onward("log", url).stdout
    for folder in held:
        folder.release()
