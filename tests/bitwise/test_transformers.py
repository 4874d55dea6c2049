"""A `Trainer` killed at any moment and resumed ends with the bits of one that was never killed."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest

from .scenarios import Kill, differing, newest
from .transformers_scenarios import BATCHES, ITEMS, SCENARIOS, Scenario, bits, run_process

FULL = os.environ.get("ONWARD_TEST_SCALE") == "full"


@pytest.fixture(scope="session")
def references() -> dict[str, dict[str, object]]:
    return {}


def reference(
    scenario: Scenario, references: dict[str, dict[str, object]], folder: Path
) -> dict[str, object]:
    if scenario.name not in references:
        assert run_process(folder / "reference", scenario) == 0
        references[scenario.name] = bits(folder / "reference")
    return references[scenario.name]


@pytest.mark.filterwarnings("ignore:going on at batch")
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.name)
def test_random_kills_leave_no_trace(
    scenario: Scenario, references: dict[str, dict[str, object]], tmp_path: Path
) -> None:
    """Killed at random moments, workers 0 → 2 → 0 between kills: 0 differing bits."""
    expected = reference(scenario, references, tmp_path)
    chance = random.Random(scenario.name)
    output, lives = tmp_path / "killed", 12 if FULL else 2
    for life in range(lives + 1):
        events = ["step", "step-begin", "evaluation"]
        event = chance.choice(events if scenario.evaluates else events[:2])
        # Two workers divide a stream between them: its order is theirs.
        workers = 0 if scenario.stream else [0, 2, 0][life % 3]
        at = chance.randint(1, scenario.steps // (12 if event == "evaluation" else 3))
        kill = Kill(event, at) if life < lives else Kill()
        code = run_process(output, scenario, workers=workers, kill=kill)
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert list(differing(expected, bits(output))) == []


@pytest.mark.parametrize(
    "kills",
    [
        [Kill("before-first-batch", 1)],
        [Kill("step", 3), Kill("step-begin", 1)],
        [Kill("epoch-end", 1), Kill("before-first-batch", 2), Kill("epoch-end", 1)],
        [Kill("step", BATCHES), Kill("step-begin", 2), Kill("before-first-batch", 1)],
    ],
    ids=["before the first batch", "twice within an epoch", "at epochs' ends", "a mixture"],
)
@pytest.mark.parametrize("scenario", SCENARIOS if FULL else SCENARIOS[1:2], ids=lambda s: s.name)
def test_kills_at_the_edges_leave_no_trace(
    kills: list[Kill],
    scenario: Scenario,
    references: dict[str, dict[str, object]],
    tmp_path: Path,
) -> None:
    """Whatever edge of an epoch the kill meets: 0 differing bits."""
    expected = reference(scenario, references, tmp_path)
    output = tmp_path / "killed"
    for kill in kills:
        assert run_process(output, scenario, kill=kill) == -signal.SIGKILL
    assert run_process(output, scenario) == 0
    assert list(differing(expected, bits(output))) == []


@pytest.mark.parametrize(
    "scenario", SCENARIOS[:4] if FULL else SCENARIOS[2:4], ids=lambda s: s.name
)
def test_a_kill_after_every_save_leaves_no_trace(
    scenario: Scenario, references: dict[str, dict[str, object]], tmp_path: Path
) -> None:
    """Saved at every step and killed there, the last one of an epoch included: 0 differing bits."""
    expected = reference(scenario, references, tmp_path)
    # Without staging a step waits until it is stored: where each life begins is no chance.
    output, every_step = tmp_path / "killed", {"save_every_steps": 1, "staging": False}
    kill, lives = Kill("step", 2 if FULL else 9), 0
    while run_process(output, scenario, kill=kill, options=every_step) == -signal.SIGKILL:
        lives += 1
        assert lives < 40
    assert lives >= 1
    assert list(differing(expected, bits(output))) == []


def test_kills_within_saves_leave_no_trace(
    references: dict[str, dict[str, object]], tmp_path: Path
) -> None:
    """Killed before any file operation of opening and saving: 0 differing bits."""
    scenario = SCENARIOS[1]
    expected = reference(scenario, references, tmp_path)
    for stride in range(6 if FULL else 1):
        output, lives, code = tmp_path / f"killed-{stride}", 0, -signal.SIGKILL
        while code == -signal.SIGKILL and lives < 40:
            kill = Kill("file-operation", 90 + 40 * lives + 5 * stride)
            code = run_process(output, scenario, kill=kill)
            lives += 1
        assert code == 0
        assert lives > 2
        assert list(differing(expected, bits(output))) == []


@pytest.mark.parametrize(
    "scenario", SCENARIOS[:2] if FULL else SCENARIOS[1:2], ids=lambda s: s.name
)
def test_sigterm_saves_and_leaves_no_trace(
    scenario: Scenario, references: dict[str, dict[str, object]], tmp_path: Path
) -> None:
    """Asked to stop, it ends with status 75 at that very step; resumed: 0 differing bits."""
    expected = reference(scenario, references, tmp_path)
    output = tmp_path / "stopped"
    for step in (4, 10):
        assert run_process(output, scenario, terminate_at=step) == 75
        _, latest = newest(output)
        assert (latest.step, latest.finished) == (step, False)
    assert run_process(output, scenario) == 0
    assert list(differing(expected, bits(output))) == []


@pytest.mark.parametrize("scenario", SCENARIOS[:2] if FULL else SCENARIOS[:1], ids=lambda s: s.name)
def test_a_killed_second_increment_leaves_no_trace(scenario: Scenario, tmp_path: Path) -> None:
    """On more data it trains that increment's own budget, killed or not: 0 differing bits."""
    more = ITEMS + 20
    for name in ("reference", "killed"):
        assert run_process(tmp_path / name, scenario) == 0
        repository, first = newest(tmp_path / name)
        assert (first.increment, first.step) == (1, scenario.steps)
    assert run_process(tmp_path / "reference", scenario, items=more) == 0
    kill = Kill("step", 7)
    code = run_process(tmp_path / "killed", scenario, items=more, workers=2, kill=kill)
    assert code == -signal.SIGKILL
    assert run_process(tmp_path / "killed", scenario, items=more) == 0
    one, two = bits(tmp_path / "reference"), bits(tmp_path / "killed")
    assert list(differing(one, two)) == []
    _, second = newest(tmp_path / "reference")
    assert (second.increment, second.finished) == (2, True)
    # 20 new items and as many old ones, in batches of 4, 3 epochs.
    accumulate = scenario.arguments.get("gradient_accumulation_steps", 1)
    assert second.step - first.step == 3 * 10 // accumulate
    before = repository.manifest(first)
    after = newest(tmp_path / "reference")[0].manifest(second)
    weights = {t.path: t.digest for t in before.tensors if t.path.startswith("model/")}
    moved = [t for t in after.tensors if t.path in weights and t.digest != weights[t.path]]
    assert len(moved) == len(weights)


def test_a_killed_increment_with_a_replay_memory_leaves_no_trace(tmp_path: Path) -> None:
    """Memory, its draws and the mix are as in the run that was not killed: 0 differing bits."""
    scenario, memory = SCENARIOS[1], {"memory": 20}
    for name in ("reference", "killed"):
        assert run_process(tmp_path / name, scenario, **memory) == 0
    more = {"items": ITEMS + 20, **memory}
    assert run_process(tmp_path / "reference", scenario, **more) == 0
    for kill in [Kill("step", 5), Kill("epoch-end", 1)] if FULL else [Kill("step", 7)]:
        code = run_process(tmp_path / "killed", scenario, workers=2, kill=kill, **more)
        assert code == -signal.SIGKILL
    assert run_process(tmp_path / "killed", scenario, **more) == 0
    assert list(differing(bits(tmp_path / "reference"), bits(tmp_path / "killed"))) == []
