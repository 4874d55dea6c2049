"""`onward doctor`: what is right, what is not, and what would mend it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from onward.cli import doctor as doctor_file
from onward.repository import open_or_create, open_repository
from onward.repository.mirror import Mirror
from onward.stores import LocalStore, MemoryStore
from tests.cli.conftest import AsJson, Onward
from tests.cli.outputs import Output, facts, floats


def status(found: Any) -> dict[str, str]:
    return {check["name"]: check["status"] for check in found["checks"]}


def test_a_sound_machine_and_output(onward: Onward, as_json: AsJson, output: Output) -> None:
    """Versions without importing anything heavy, space, the probe, the state."""
    output.chain(2)
    text = onward("doctor", output.url).stdout
    found = as_json("doctor", output.url)
    assert found["ok"] is True
    assert {"python", "onward", "numpy", "torch", "ONWARD_HOME", "output", "writing", "state"} <= (
        status(found).keys()
    )
    assert "two writers are kept apart" in text
    assert "2 checkpoints; last claimed by box pid 1" in text
    assert not list((output.folder / "onward" / "probe").iterdir())


def test_a_place_that_is_no_output_yet_stays_untouched(onward: Onward, tmp_path: Path) -> None:
    text = onward("doctor", tmp_path / "new").stdout
    assert "the first run makes it one" in text
    assert not (tmp_path / "new").exists()


def test_damage_is_a_problem(onward: Onward, output: Output) -> None:
    (commit,) = output.chain(1)
    (pack,) = output.repository.manifest(commit).packs
    output.file("packs", f"{pack}.safetensors").unlink()
    text = onward("doctor", output.url, code=1).stdout
    assert "problem  state: 1 thing damaged" in text
    assert "onward verify" in text


def test_a_broken_log_is_a_problem(as_json: AsJson, output: Output) -> None:
    output.file("log", f"{1:020d}.json").write_bytes(b"{}")
    found = as_json("doctor", output.url, code=1)
    assert status(found)["output"] == "problem"


def test_leftovers_are_no_problem(onward: Onward, output: Output) -> None:
    output.chain(1)
    output.file("packs", f"{'b' * 32}.safetensors").write_bytes(b"x")
    assert "1 leftover" in onward("doctor", output.url).stdout


def test_a_mistyped_url_is_a_problem(onward: Onward) -> None:
    text = onward("doctor", "s3:/bucket/x", code=1).stdout
    assert "did you mean s3://bucket/x" in text


def test_a_store_that_keeps_no_writers_apart_is_a_warning(
    onward: Onward, output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_file, "honours_create", lambda store: False)
    text = onward("doctor", output.url).stdout
    assert "warn     writing" in text
    assert "--single-writer" in text


def test_missing_packages_are_named(onward: Onward, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a framework training is impossible here, but looking at outputs is not."""
    present = doctor_file._installed
    versions = {"torch": "", "mindspore": "", "obstore": "", "rich": ""}
    monkeypatch.setattr(doctor_file, "_installed", lambda name: versions.get(name, present(name)))
    text = onward("doctor", code=1).stdout
    assert "warn     torch or mindspore: neither is installed" in text
    assert "problem  rich: not installed" in text
    assert "ok       obstore" in text
    assert "problem  obstore" in onward("doctor", "s3://bucket/x", code=1).stdout
    versions.update(torch="2.5.1+cpu", rich="13.0")
    assert "2.5.1+cpu is too old" in onward("doctor", code=1).stdout


def test_a_mindspore_that_fails_with_its_numpy_is_a_problem(
    onward: Onward, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MindSpore alone is enough to train; NumPy 2 beside it is named, with what to do."""
    present = doctor_file._installed
    versions = {"torch": "", "mindspore": "2.10.0", "numpy": "1.26.4"}
    monkeypatch.setattr(doctor_file, "_installed", lambda name: versions.get(name, present(name)))
    text = onward("doctor").stdout
    assert "ok       mindspore: 2.10.0" in text
    assert "neither" not in text
    versions["numpy"] = "2.4.6"
    text = onward("doctor", code=1).stdout
    assert "problem  numpy for mindspore: 2.4.6" in text
    assert "pip install 'numpy<2'" in text


def test_what_was_not_pushed_is_found(
    onward: Onward, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A working copy that holds more than its output says so; without OUTPUT it is only counted."""
    remote = MemoryStore()
    open_or_create(remote)
    copy = tmp_path / "home" / "outputs" / "name-0123" / "output"
    mirror = Mirror(LocalStore(copy), remote)
    mirror.pull_log()
    mirror.claim("box").commit({"model": {"w": floats(1)}}, facts())
    monkeypatch.setattr(doctor_file, "open_store", lambda url, **options: remote)

    assert "1 working copy" in onward("doctor").stdout
    assert "holds 1 checkpoint that the output lacks" in onward("doctor", "s3://bucket/x").stdout
    mirror.push()
    assert "everything is pushed" in onward("doctor", "s3://bucket/x").stdout
    assert len(open_repository(remote).history.live()) == 1
