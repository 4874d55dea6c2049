"""The benchmark of checkpointing measures what it says, and sees a wrong restore."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.checkpointing import restoring, saving, subjects
from benchmarks.checkpointing.report import BEGIN, END, page, replaced
from benchmarks.checkpointing.results import FIGURES, Measured, Results
from benchmarks.checkpointing.scenarios import SCENARIOS, USUAL
from benchmarks.checkpointing.subjects import OURS, Subject
from benchmarks.checkpointing.subjects.torch_save import TorchSave
from benchmarks.checkpointing.targets import verdicts
from benchmarks.checkpointing.training import STEPS_BETWEEN_SAVES
from benchmarks.checkpointing.worker import run

SCALE, SAVES = 0.0005, 4
ALWAYS_THERE = ("torch.save", "dcp", "dcp-overlap", "safetensors", OURS)


def worked(what: str, subject: str, scenario: str, folder: Path, **more: Any) -> dict[str, Any]:
    options = {"scale": SCALE, "saves": SAVES, "last": SAVES - 1, "variant": ""} | more
    return run(
        argparse.Namespace(what=what, subject=subject, scenario=scenario, folder=folder, **options)
    )


def measured(subject: str, scenario: str, folder: Path, repetition: int = 0) -> Measured:
    saved = worked("save", subject, scenario, folder)
    restored = {
        variant: worked("restore", subject, scenario, folder, variant=variant)
        for variant in saved["variants"]
    }
    return Measured(subject, scenario, repetition, saved, restored)


@pytest.mark.parametrize("scenario", USUAL)
@pytest.mark.parametrize("subject", ALWAYS_THERE)
def test_each_library_restores_what_it_saved_and_gives_every_figure(
    subject: str, scenario: str, tmp_path: Path
) -> None:
    """Bit for bit the state at the last save, though training changed it right after."""
    one = measured(subject, scenario, tmp_path / "output")
    assert one.right
    missing = {name for name, read in FIGURES.items() if read(one) is None}
    not_for_all = {"pace", "cold_unverified_s", "warm_unverified_s"}
    assert missing <= not_for_all
    assert ("pace" in missing) != one.saved["asynchronous"]
    assert one.saved["last"] == SAVES - 1
    assert one.saved["stored_bytes"] >= one.saved["first_bytes"] >= one.saved["state_bytes"]


class Late(TorchSave):
    """Takes the state when the loop has gone on: returns at once, and is wrong."""

    def save(self, index: int) -> None:
        self._asked = index

    def wait(self) -> None:
        super().save(self._asked)
        super().wait()


class Forgetful(TorchSave):
    """Restores nothing."""

    def restore(self, index: int) -> None:
        pass


@pytest.mark.parametrize("kind", [Late, Forgetful])
def test_a_library_that_restores_another_state_is_wrong(
    kind: type[Subject], tmp_path: Path
) -> None:
    """Neither a late snapshot nor an empty restore passes for the state at the save."""
    scenario = SCENARIOS["a"]
    saver = kind(scenario.build(SCALE, 1), tmp_path)
    saved = saving.measure(saver, saver.training, SAVES)
    fresh = scenario.build(SCALE, 2)
    fresh.step()
    found = restoring.measure(kind(fresh, tmp_path), fresh, last=saved["last"], variant="")
    assert not Measured("late", "a", 0, saved, {"": found}).right


def test_a_wrong_peer_is_nobodys_measure_and_a_wrong_onward_meets_nothing(tmp_path: Path) -> None:
    """The best peer is the best that is right; our own figures count only when we are right."""
    ours = measured(OURS, "a", tmp_path / "ours")
    peers = [measured(name, "a", tmp_path / name) for name in ("torch.save", "safetensors")]
    peers[0].saved["durable_s"], peers[1].saved["durable_s"] = [1.0], [2.0]
    ours.saved["durable_s"] = [1.5]
    results = Results("machine", "command", 1, SCALE, {}, [], [ours, *peers])

    def durable() -> tuple[str, str]:
        one = next(v for v in verdicts(results) if "durable" in v.what)
        return one.what.rpartition(" / ")[2], one.word

    assert durable() == ("torch.save", "MISSED")
    peers[0].restored[""]["digests"] = ["something else"]
    assert durable() == ("safetensors", "met")
    ours.restored[""]["digests"] = ["something else"]
    assert durable() == ("safetensors", "not measured")


@pytest.mark.parametrize("steps", [STEPS_BETWEEN_SAVES, 4 * STEPS_BETWEEN_SAVES])
def test_about_16_percent_of_the_rows_change_between_saves(steps: int) -> None:
    """Of weights and moments, however long a loop trains while a save is being written."""
    training = SCENARIOS["c"].build(0.02, 1)
    training.step()
    before = [value.clone() for _, value in training.tensors() if value.ndim == 2]
    training.begin_interval(1)
    for _ in range(steps):
        training.step()
    after = [value for _, value in training.tensors() if value.ndim == 2]
    for old, new in zip(before, after, strict=True):
        changed = (old != new).any(dim=1).double().mean().item()
        assert 0.14 <= changed <= 0.18


@pytest.mark.parametrize("scenario", ["a", "d"])
def test_a_dense_step_changes_every_tensor(scenario: str) -> None:
    """So that a save which is not finished before the next step is seen."""
    training = SCENARIOS[scenario].build(SCALE, 1)
    training.step()
    before = [(name, value.clone()) for name, value in training.tensors()]
    training.step()
    for (name, old), (_, new) in zip(before, training.tensors(), strict=True):
        assert not torch.equal(old, new), name


def test_the_page_is_replaced_between_its_marks_and_nowhere_else(tmp_path: Path) -> None:
    """Reporting twice is reporting once; results survive their file."""
    results = Results(
        "machine", "command", 1, SCALE, {}, [], [measured("torch.save", "a", tmp_path / "output")]
    )
    results.write(tmp_path / "results.json")
    assert Results.read(tmp_path / "results.json") == results
    part = page(results)
    once = replaced(f"before\n\n{BEGIN}\nold\n{END}\n\nafter\n", part)
    assert once == f"before\n\n{part}\n\nafter\n"
    assert replaced(once, part) == once
    assert replaced("before\n", part) == f"before\n\n{part}\n"


def test_a_library_that_is_not_installed_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never left out silently."""
    monkeypatch.setitem(subjects._HOMES, "absent", ("absent", "Absent"))
    assert "absent" in worked("save", "absent", "a", tmp_path / "output")["unavailable"]
