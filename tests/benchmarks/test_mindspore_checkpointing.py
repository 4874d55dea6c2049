"""The benchmark of saving from MindSpore measures what it says, and sees a wrong restore."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
from benchmarks.checkpointing.report import page, replaced
from benchmarks.checkpointing.results import FIGURES, Measured, Results
from benchmarks.checkpointing.scenarios import SCENARIOS
from benchmarks.checkpointing.subjects import OF_MINDSPORE, OURS
from benchmarks.checkpointing.targets import verdicts
from benchmarks.checkpointing.worker import run

SCALE, SAVES = 0.001, 4


def measured(subject: str, folder: Path) -> Measured:
    def worked(what: str, variant: str = "") -> dict[str, Any]:
        options = {"scale": SCALE, "saves": SAVES, "last": SAVES - 1, "variant": variant}
        asked = {"what": what, "subject": subject, "scenario": "m", "folder": folder}
        return run(argparse.Namespace(**asked, **options))

    saved = worked("save")
    restored = {variant: worked("restore", variant) for variant in saved["variants"]}
    return Measured(subject, "m", 0, saved, restored)


# Not those that fork this process, whose threads are many by now.
@pytest.mark.parametrize("subject", [OURS, *(n for n in OF_MINDSPORE if "process" not in n)])
def test_each_way_restores_what_it_saved_and_gives_every_figure(
    subject: str, tmp_path: Path
) -> None:
    """Bit for bit the state at the last save, though training changed it right after."""
    one = measured(subject, tmp_path / "output")
    assert one.right
    missing = {name for name, read in FIGURES.items() if read(one) is None}
    assert missing <= {"pace", "cold_unverified_s", "warm_unverified_s"}
    assert ("pace" in missing) != one.saved["asynchronous"]
    assert one.saved["stored_bytes"] >= one.saved["first_bytes"] >= one.saved["state_bytes"]


def test_a_step_changes_every_tensor() -> None:
    """So that a save which is not finished before the next step is seen."""
    training = SCENARIOS["m"].build(SCALE, 1)
    training.step()
    before = [(name, array.copy()) for name, array in training.arrays()]
    training.step()
    rate = {"optimizer.learning_rate", "learning_rate"}
    for (name, old), (_, new) in zip(before, training.arrays(), strict=True):
        assert name in rate or (old != new).any(), name


def test_its_part_of_the_page_stands_beside_the_other(tmp_path: Path) -> None:
    """Reporting MindSpore's results leaves PyTorch's table alone, and promises only its own."""
    results = Results("machine", "command", 1, SCALE, {}, [], [measured(OURS, tmp_path / "output")])
    other = "a\n<!-- begin: python -m benchmarks.checkpointing.report -->\nkept\n" \
        "<!-- end: python -m benchmarks.checkpointing.report -->\nb\n"  # fmt: skip
    once = replaced(other, page(results))
    assert once.startswith(other)
    assert replaced(once, page(results)) == once
    assert [v.what.split(" / ")[0] for v in verdicts(results)] == ["stall, (m)", "call, (m)"]
