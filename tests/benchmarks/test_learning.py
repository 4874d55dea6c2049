"""The benchmark of learning computes what it says, resumes, and needs no data to be tested."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from benchmarks.learning import ours, reference, results, running, scenarios, table, targets
from benchmarks.learning.figures import values
from benchmarks.learning.reference import NEW_ONLY, RETRAIN, STALE, References
from benchmarks.learning.results import Line
from benchmarks.learning.scenarios import Items, Scenario, Stage, accuracy
from benchmarks.learning.statistics import mean
from benchmarks.learning.targets import Target
from torch import nn
from torch.nn.functional import cross_entropy

CLASSES = 4


def blobs(seed: int, classes: range) -> Items:
    """Forty points around each of some corners of a square."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.tensor([c for c in classes for _ in range(40)])
    corners = torch.stack([targets % 2, targets // 2], dim=1).float() * 4 - 2
    return Items(corners + 0.3 * torch.randn(len(targets), 2, generator=generator), targets)


def square(*, sequence: bool = False) -> Scenario:
    """Two corners of a square, then the other two."""
    parts = (range(2), range(2, CLASSES))
    return Scenario(
        name="split-mnist" if sequence else "fashion-classes",
        title="corners",
        stages=tuple(Stage(blobs(1, c), blobs(2, c), {"classes": c.stop}) for c in parts),
        make_model=lambda size: nn.Linear(2, size["classes"]),
        loss=cross_entropy,
        score=accuracy,
        unit="accuracy %",
        batch_size=16,
        peak_rate=0.1,
        retrain_steps=100,
        stage_steps=(50, 50) if sequence else (),
        shares=(0.2,),
    )


def line(method: str, score: float, *, seed: int = 0, share: float = 1.0, old: float = 0.0) -> Line:
    metrics = {"score": score, "holdout 1": old}
    return Line("fashion-classes", method, share, seed, metrics, steps=10, seconds=1.0)


def test_each_reference_method_gives_the_same_twice() -> None:
    """Deterministic per seed: whatever ran before it, and in whichever process."""
    together = References(square(), seed=3)
    for method, share in reference.planned(square()):
        alone = References(square(), seed=3).run(method, share)
        assert together.run(method, share).metrics == alone.metrics
    other = References(square(), seed=4).run(STALE, 0.0)
    assert other.steps == 0


def test_new_classes_are_forgotten_or_unknown_without_the_other_half() -> None:
    """The scenario tells methods apart: a full retrain knows all, the simple ones only half."""
    references = References(square(), seed=0)
    assert references.run(RETRAIN, 1.0).metrics["score"] > 97
    stale = references.run(STALE, 0.0).metrics
    assert stale["holdout 1"] > 97
    assert stale["holdout 2"] == 0
    new_only = references.run(NEW_ONLY, 0.2).metrics
    assert new_only["holdout 2"] > 97
    assert new_only["holdout 1"] < stale["holdout 1"]


def test_a_sequence_is_learned_by_all_that_is_planned_for_it() -> None:
    """Every method makes the same steps, and its score is the mean over the stages."""
    scenario = square(sequence=True)
    for method, share in reference.planned(scenario):
        done = References(scenario, seed=1).run(method, share)
        assert done.steps == 100
        holdouts = [done.metrics["holdout 1"], done.metrics["holdout 2"]]
        assert done.metrics["score"] == pytest.approx(sum(holdouts) / 2)


def test_a_grown_model_says_what_it_said() -> None:
    """Growth keeps the outputs of the classes that were there."""
    small, large = nn.Linear(2, 2), nn.Linear(2, 4)
    inputs = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    before = small(inputs)
    assert torch.equal(reference.grown(small, large)(inputs)[:, :2], before)


def test_batches_are_full_and_meet_each_item_equally_often() -> None:
    """Epoch after epoch without a seam, the same for the same seed."""
    drawn = torch.stack(list(reference.batches(10, steps=15, batch_size=4, seed=5)))
    assert torch.equal(drawn.flatten().bincount(), torch.full((10,), 6))
    again = torch.stack(list(reference.batches(10, steps=15, batch_size=4, seed=5)))
    assert torch.equal(drawn, again)


def test_the_schedule_warms_up_and_ends_near_zero() -> None:
    """5 % up to the peak, then down, never a step without learning."""
    rates = [reference.schedule(step, 100) for step in range(100)]
    assert rates[4] == rates[5] == 1
    assert rates[:5] == sorted(rates[:5])
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert 0 < rates[-1] < 0.001


def test_the_bounds_are_students() -> None:
    """Five values: 2.776 standard errors to each side; one value says nothing of its spread."""
    found = mean([1.0, 2.0, 3.0, 4.0, 5.0])
    assert found.value == 3
    assert found.half_width == pytest.approx(2.776 * math.sqrt(2.5 / 5))
    assert math.isnan(mean([1.0]).half_width)


def test_the_share_of_a_retrain_is_taken_seed_by_seed() -> None:
    """Paired: a seed without its retrain is left out, and lines in any order are fine."""
    lines = [line(RETRAIN, 80.0, seed=1), line(RETRAIN, 50.0), line("a", 40.0, share=0.1)]
    lines += [line("a", 40.0, seed=1, share=0.1), line("a", 1.0, seed=2, share=0.1)]
    assert values(lines, "a", share=0.1, figure="of retrain") == [80.0, 50.0]
    assert values(lines, "a", share=0.1, figure="score") == [40.0, 40.0, 1.0]
    assert values(lines, "b", share=0.1, figure="score") == []


def test_errors_and_accuracies_forget_in_opposite_directions() -> None:
    """Excess forgetting is positive where the method is worse than the retrain."""
    lines = [line(RETRAIN, 90.0, old=90.0), line("a", 88.0, old=88.0)]
    assert values(lines, "a", share=1.0, figure="excess forgetting") == [2.0]
    lines = [
        Line("movielens-window", method, 1.0, 0, {"score": 1.0, "holdout 1": old}, 1, 1.0)
        for method, old in ((RETRAIN, 1.0), ("a", 1.02))
    ]
    assert values(lines, "a", share=1.0, figure="excess forgetting") == [pytest.approx(2.0)]


def test_a_verdict_looks_at_the_whole_interval() -> None:
    """A mean on the right side whose interval is not is said to be just that."""
    target = Target("fashion-classes", "a", 0.1, "score", low=90.0)
    assert target.verdict(mean([91.0, 91.1])) != "MISSED"
    assert target.verdict(mean([91.0, 91.1, 91.05])) == "met"
    assert target.verdict(mean([89.0, 92.0, 91.0])) == "met by the mean"
    assert target.verdict(mean([89.0, 89.1, 89.2])) == "MISSED"


def test_every_target_is_about_something_that_is_run() -> None:
    """No promise names a scenario, or a strategy of ours, that does not exist."""
    assert {target.scenario for target in targets.TARGETS} == set(scenarios.SCENARIOS)
    strategies = {
        (scenario, running.ONWARD + strategy, share)
        for scenario, planned in ours.STRATEGIES.items()
        for strategy, share in planned
    }
    for target in targets.TARGETS:
        if target.method.startswith(running.ONWARD):
            assert (target.scenario, target.method, target.share) in strategies


def test_results_torn_by_a_kill_are_mended(tmp_path: Path) -> None:
    """Whole lines stay; half of one is cut off, and the next line is whole."""
    file = tmp_path / "results.jsonl"
    results.append(file, line("a", 1.0))
    with file.open("a") as opened:
        opened.write('{"scenario": "fashion')
    assert [found.method for found in results.read(file)] == ["a"]
    results.mend(file)
    results.append(file, line("b", 2.0))
    assert [found.method for found in results.read(file)] == ["a", "b"]


def test_a_run_that_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has a line is not measured again; what has none is."""
    monkeypatch.setattr(running, "load", lambda name: square())
    monkeypatch.setattr(ours, "planned", lambda scenario: [])
    file = tmp_path / "results.jsonl"
    planned = len(reference.planned(square()))
    assert running.run_all("fashion-classes", 0, file) == planned
    assert running.run_all("fashion-classes", 0, file) == 0
    kept = file.read_text().splitlines(keepends=True)
    file.write_text("".join(kept[1:]))
    assert running.run_all("fashion-classes", 0, file) == 1
    assert sorted(found.key for found in results.read(file)) == sorted(
        results.Line(**found).key for found in map(__import__("json").loads, kept)
    )


def test_the_page_is_replaced_between_its_marks(tmp_path: Path) -> None:
    """Written twice, it stands there once, and what is around it stays."""
    lines = [line(RETRAIN, 90.0), line("onward: uniform", 89.0, share=0.1)]
    part = table.page(lines, titles={"fashion-classes": "Classes"}, heading="seen")
    assert "| onward: uniform | 10% | 10 | 89.00 | 98.89 |" in part
    assert "| fashion-classes | onward: uniform, 10% | of retrain | ≥ 98 | 98.89 | 1 |" in part
    file = tmp_path / "page.md"
    file.write_text(f"before\n\n{table.BEGIN}\nold\n{table.END}\n\nafter\n")
    table.write(file, part)
    table.write(file, part)
    assert file.read_text() == f"before\n\n{part}\n\nafter\n"


def test_the_command_says_what_can_be_asked() -> None:
    """`--help` names every scenario, and loads neither torch's work nor data."""
    command = [sys.executable, "-m", "benchmarks.learning", "--help"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert all(name in said for name in scenarios.SCENARIOS)
