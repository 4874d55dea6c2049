"""A MindSpore training killed at any moment ends with the bits of one that was never killed."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest

from .killing import Kill, differing, final_state, newest
from .mindspore_scenarios import EPOCHS, SCENARIOS, Scenario, run_process, write_images

FULL = os.environ.get("ONWARD_TEST_SCALE") == "full"
SAMPLED = SCENARIOS if FULL else [scenario for scenario in SCENARIOS if scenario.sampled]
BY_FUNCTION, BY_GRAPH, BY_MODEL = SCENARIOS[:3]


class Lives:
    """Processes at outputs of their own, and what each scenario ends with undisturbed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._expected: dict[str, dict[str, object]] = {}
        write_images(folder)

    def expected(self, scenario: Scenario) -> dict[str, object]:
        """The bits of a run that was never killed."""
        if scenario.name not in self._expected:
            output = self._folder / f"reference-{SCENARIOS.index(scenario)}"
            assert self.live(output, scenario) == 0
            self._expected[scenario.name] = final_state(output)
        return self._expected[scenario.name]

    def live(self, output: Path, scenario: Scenario, **options: object) -> int:
        """One process to its end; its exit code."""
        return run_process(output, scenario, images=str(self._folder), **options)


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory) -> Lives:
    return Lives(tmp_path_factory.mktemp("lives"))


@pytest.mark.parametrize("scenario", SAMPLED, ids=lambda s: s.name)
def test_random_kills_leave_no_trace(scenario: Scenario, lives: Lives, tmp_path: Path) -> None:
    """Killed at random steps, workers 0 → 2 → 0 between kills: 0 differing bits."""
    expected = lives.expected(scenario)
    chance = random.Random(scenario.name)
    output, workers, count = tmp_path / "killed", [0, 2, 0], 12 if FULL else 2
    steps = scenario.batches * scenario.epochs
    for life in range(count):
        kill = Kill("step", chance.randint(1, steps // 3))
        code = lives.live(output, scenario, workers=workers[life % 3], kill=kill)
        if code == 0:
            break
        assert code == -signal.SIGKILL
    else:
        assert lives.live(output, scenario, workers=workers[count % 3]) == 0
    assert list(differing(expected, final_state(output))) == []


EDGES = {
    "before the first batch": [Kill("before-first-batch", 1)],
    "twice within an epoch": [Kill("step", 4), Kill("step", 2)],
    "at an epoch's last step": [Kill("step", 9), Kill("before-first-batch", 1)],
    "exactly at epochs' ends": [Kill("epoch-end", 1), Kill("epoch-end", 1), Kill("epoch-end", 1)],
    "stopped by SIGTERM": [Kill("step", 5, signal.SIGTERM), Kill("epoch-end", 1, signal.SIGTERM)],
    "a mixture": [
        Kill("step", 7), Kill("epoch-end", 1), Kill("before-first-batch", 2), Kill("step", 1),
    ],
}  # fmt: skip


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize(
    "scenario",
    [BY_FUNCTION, BY_GRAPH, BY_MODEL, *SCENARIOS[3:6]] if FULL else [BY_FUNCTION, BY_MODEL],
    ids=lambda s: s.name,
)
def test_kills_at_the_edges_leave_no_trace(
    edge: str, scenario: Scenario, lives: Lives, tmp_path: Path
) -> None:
    """Whatever edge of an epoch the kill meets, and asked to stop there: 0 differing bits."""
    expected = lives.expected(scenario)
    output = tmp_path / "killed"
    for kill in EDGES[edge]:
        wanted = 75 if kill.by == signal.SIGTERM else -signal.SIGKILL
        assert lives.live(output, scenario, kill=kill) == wanted
    assert lives.live(output, scenario) == 0
    assert list(differing(expected, final_state(output))) == []


@pytest.mark.parametrize(
    "scenario", [BY_FUNCTION, BY_GRAPH, BY_MODEL] if FULL else [BY_FUNCTION], ids=lambda s: s.name
)
def test_kills_within_saves_leave_no_trace(
    scenario: Scenario, lives: Lives, tmp_path: Path
) -> None:
    """Killed before any file operation of opening and saving: 0 differing bits."""
    expected = lives.expected(scenario)
    for stride in range(6 if FULL else 1):
        output, count, code = tmp_path / f"killed-{stride}", 0, -signal.SIGKILL
        while code == -signal.SIGKILL and count < 40:
            # Later in each life, so that progress is made; a different phase in each pass.
            kill = Kill("file-operation", 60 + (17 if FULL else 41) * count + 5 * stride)
            code = lives.live(output, scenario, kill=kill)
            count += 1
        if code != 0:
            assert lives.live(output, scenario) == 0
        assert count > 3
        assert list(differing(expected, final_state(output))) == []


@pytest.mark.parametrize(
    "scenario", [BY_FUNCTION, BY_GRAPH] if FULL else [BY_FUNCTION], ids=lambda s: s.name
)
def test_an_increment_killed_on_grown_data_leaves_no_trace(
    scenario: Scenario, lives: Lives, tmp_path: Path
) -> None:
    """Increment 2, killed and resumed while even more data arrives, learns what it began with."""
    for name in ("reference", "killed"):
        assert lives.live(tmp_path / name, scenario) == 0
    assert lives.live(tmp_path / "reference", scenario, items=104) == 0
    kill = Kill("step", 14)
    assert lives.live(tmp_path / "killed", scenario, items=104, kill=kill) == -signal.SIGKILL
    assert lives.live(tmp_path / "killed", scenario, items=120) == 0
    one, two = final_state(tmp_path / "reference"), final_state(tmp_path / "killed")
    for state in (one, two):
        loader = state["state"]["onward"]["loaders"]["loaders"]["loader0"]
        assert loader.pop("items") == (104 if state is one else 120)
    assert list(differing(one, two)) == []
    repository, latest = newest(tmp_path / "reference")
    first = next(commit for commit in repository.history.live() if commit.finished)
    assert (latest.increment, latest.finished) == (2, True)
    # 36 new items and as many replayed, in batches of 8, 3 epochs.
    assert latest.step - first.step == 9 * EPOCHS
