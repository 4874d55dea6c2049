"""A training by Lightning killed at any moment ends with the bits of one that was never killed."""

from __future__ import annotations

import os
import random
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from .lightning_scenarios import EPOCHS, SCENARIOS, Scenario, run_process
from .scenarios import Kill, differing, final_state, newest

FULL = os.environ.get("ONWARD_TEST_SCALE") == "full"
STEPS = 12 * EPOCHS


class Trial:
    """Lives of trainings that all write Lightning's own files to the same empty place."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._references: dict[tuple[str, int], dict[str, Any]] = {}

    def lives(self, name: str, scenario: Scenario, *lives: dict[str, Any]) -> list[int]:
        """The exit codes of processes at one output, one after the other."""
        files = self.folder / "files"
        shutil.rmtree(files, ignore_errors=True)
        output = self.output(name)
        return [run_process(output, scenario, files=str(files), **life) for life in lives]

    def output(self, name: str) -> Path:
        return self.folder / name

    def reference(self, scenario: Scenario) -> dict[str, Any]:
        """The final state of the training that was never killed."""
        key = (scenario.name, 0)
        if key not in self._references:
            name = f"reference {len(self._references)}"
            assert self.lives(name, scenario, {}) == [0]
            self._references[key] = final_state(self.output(name))
        return self._references[key]


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    return Trial(tmp_path_factory.mktemp("lightning"))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.name)
def test_random_kills_leave_no_trace(scenario: Scenario, trial: Trial) -> None:
    """Killed at random batches, workers 0 → 2 → 0 between lives: 0 differing bits."""
    expected = trial.reference(scenario)
    chance = random.Random(scenario.name)
    count = 8 if FULL else 3
    lives: list[dict[str, Any]] = [
        {"workers": [0, 2, 0][life % 3], "kill": Kill("step", chance.randint(5, STEPS // 3))}
        for life in range(count)
    ]
    name = f"killed {scenario.name}"
    codes = trial.lives(name, scenario, *lives, {})
    assert set(codes[:-1]) <= {-signal.SIGKILL, 0}
    assert codes[0] == -signal.SIGKILL
    assert list(differing(expected, final_state(trial.output(name)))) == []
    assert resumed(trial.output(name)) >= 2


def resumed(output: Path) -> int:
    """How many processes went on from where another one had been killed, and got further."""
    repository, _ = newest(output)
    commits = list(repository.history.live())
    by_resumed = [c for c in commits if repository.manifest(c).verb == "resume"]
    return len({commit.generation for commit in by_resumed})


EDGES = {
    "before the first batch": [Kill("before-first-batch", 1)],
    "before an epoch's first batch": [Kill("before-first-batch", 2), Kill("step", 1)],
    "in a validation that is due": [Kill("validation", 2), Kill("validation", 1)],
    "at an epoch's last batch": [Kill("step", 12), Kill("before-first-batch", 1)],
    "at epochs' ends": [Kill("epoch-end", 1), Kill("epoch-end", 1), Kill("epoch-end", 1)],
    "when all is trained": [Kill("train-end", 1), Kill("finishing", 1), Kill("finishing", 1)],
}


@pytest.mark.parametrize("edge", EDGES)
def test_kills_at_the_edges_leave_no_trace(edge: str, trial: Trial) -> None:
    """Whatever edge of an epoch, of a validation or of the loops is met: 0 differing bits."""
    # Loops that end within an epoch must not be entered again.
    sampled = SCENARIOS[4] if edge == "when all is trained" else SCENARIOS[3]
    for scenario in SCENARIOS if FULL else [sampled]:
        expected = trial.reference(scenario)
        name = f"{edge} {scenario.name}"
        codes = trial.lives(name, scenario, *({"kill": kill} for kill in EDGES[edge]), {})
        assert codes[0] == -signal.SIGKILL
        assert codes[-1] == 0
        assert list(differing(expected, final_state(trial.output(name)))) == []


def test_kills_within_saves_leave_no_trace(trial: Trial) -> None:
    """Killed before any file operation of opening and saving: 0 differing bits."""
    scenario = SCENARIOS[3]
    expected = trial.reference(scenario)
    for stride in range(6 if FULL else 1):
        # Later in each life, so that progress is made; a different phase in each pass.
        kills = [Kill("file-operation", 90 + 37 * life + 11 * stride) for life in range(6)]
        name = f"within saves {stride}"
        codes = trial.lives(name, scenario, *({"kill": kill} for kill in kills), {})
        assert codes[:3] == [-signal.SIGKILL] * 3
        assert list(differing(expected, final_state(trial.output(name)))) == []


def test_sigterm_saves_and_ends_with_75(trial: Trial) -> None:
    """SIGTERM among accumulated gradients: saved at the next step, status 75, 0 differing bits."""
    scenario = SCENARIOS[1]
    expected = trial.reference(scenario)
    stop = {"stop_at": 7 * 8}
    codes = trial.lives("terminated", scenario, stop)
    assert codes == [75]
    _, latest = newest(trial.output("terminated"))
    assert latest.reason == "SIGTERM"
    assert latest.step == 3  # nine batches, three for each step
    assert trial.lives("terminated", scenario, {}) == [0]
    assert list(differing(expected, final_state(trial.output("terminated")))) == []


@pytest.mark.parametrize("scenario", SCENARIOS if FULL else SCENARIOS[3:4], ids=lambda s: s.name)
def test_an_increment_killed_on_grown_data_leaves_no_trace(
    scenario: Scenario, trial: Trial
) -> None:
    """Increment 2 has a budget of its own; killed and resumed, it ends with the same bits."""
    lives: dict[str, list[dict[str, Any]]] = {
        "grown reference": [{}, {"items": 144}],
        "grown killed": [
            {},
            {"items": 144, "kill": Kill("step", 7), "workers": 2},
            {"items": 144, "kill": Kill("validation", 2)},
            {"items": 144},
        ],
    }
    states = []
    for name, each in lives.items():
        name = f"{name} {scenario.name}"
        assert trial.lives(name, scenario, *each)[-1] == 0
        states.append(final_state(trial.output(name)))
        repository, latest = newest(trial.output(name))
        first = next(commit for commit in repository.history.live() if commit.finished)
        assert (latest.increment, latest.finished) == (2, True)
        assert latest.step - first.step >= first.step
    assert list(differing(*states)) == []
