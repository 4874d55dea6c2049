"""A training killed at any moment and resumed ends with the bits of one that was never killed."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest

from onward.repository import open_repository, verify
from onward.stores import open_store

from .scenarios import (
    EPOCHS,
    SCENARIOS,
    Kill,
    Scenario,
    differing,
    final_state,
    newest,
    processes,
    run_process,
)

FULL = os.environ.get("ONWARD_TEST_SCALE") == "full"
STEPS = 12 * EPOCHS


@pytest.fixture(scope="session")
def references(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    return {}


def reference(
    scenario: Scenario, references: dict[str, dict[str, object]], folder: Path
) -> dict[str, object]:
    if scenario.name not in references:
        assert run_process(folder / "reference", scenario) == 0
        references[scenario.name] = final_state(folder / "reference")
    return references[scenario.name]


def finish(output: Path, scenario: Scenario, *, workers: list[int], first: int = 0) -> None:
    assert run_process(output, scenario, workers=workers[first % len(workers)]) == 0


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.name)
def test_random_kills_leave_no_trace(
    scenario: Scenario, references: dict[str, dict[str, object]], tmp_path: Path
) -> None:
    """Killed at random steps, workers 0 → 2 → 0 between kills: 0 differing bits."""
    expected = reference(scenario, references, tmp_path)
    chance = random.Random(scenario.name)
    output, workers, lives = tmp_path / "killed", [0, 2, 0], 12 if FULL else 4
    for life in range(lives):
        kill = Kill("step", chance.randint(1, STEPS // 3))
        code = run_process(output, scenario, workers=workers[life % 3], kill=kill)
        if code == 0:
            break
        assert code == -signal.SIGKILL
    else:
        finish(output, scenario, workers=workers, first=lives)
    assert list(differing(expected, final_state(output))) == []


@pytest.mark.parametrize(
    "kills",
    [
        [Kill("before-first-batch", 1)],
        [Kill("step", 4), Kill("step", 2)],
        [Kill("step", 12), Kill("before-first-batch", 1)],
        [Kill("epoch-end", 1), Kill("epoch-end", 1), Kill("epoch-end", 1)],
        [Kill("step", 7), Kill("epoch-end", 1), Kill("before-first-batch", 2), Kill("step", 1)],
    ],
    ids=["before the first batch", "twice within an epoch", "at an epoch's last step",
         "exactly at epochs' ends", "a mixture"],
)  # fmt: skip
@pytest.mark.parametrize(
    "scenario", [SCENARIOS[0], SCENARIOS[3], SCENARIOS[4]], ids=lambda s: s.name
)
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
    finish(output, scenario, workers=[0])
    assert list(differing(expected, final_state(output))) == []


def test_kills_within_saves_leave_no_trace(
    references: dict[str, dict[str, object]], tmp_path: Path
) -> None:
    """Killed before any file operation of opening and saving: 0 differing bits."""
    scenario = SCENARIOS[0]
    expected = reference(scenario, references, tmp_path)
    for stride in range(6 if FULL else 2):
        output, lives, code = tmp_path / f"killed-{stride}", 0, -signal.SIGKILL
        while code == -signal.SIGKILL and lives < 40:
            # Later in each life, so that progress is made; a different phase in each pass.
            kill = Kill("file-operation", 60 + 17 * lives + 5 * stride)
            code = run_process(output, scenario, kill=kill)
            lives += 1
        if code != 0:
            finish(output, scenario, workers=[0])
        assert lives > 3
        assert list(differing(expected, final_state(output))) == []


def test_a_finished_model_learns_more_data_with_its_own_budget(tmp_path: Path) -> None:
    """Run again on more data it trains that increment's epochs at a learning rate above zero."""
    scenario = SCENARIOS[0]
    assert run_process(tmp_path / "out", scenario) == 0
    assert run_process(tmp_path / "out", scenario, items=144) == 0
    repository, latest = newest(tmp_path / "out")
    first = next(c for c in repository.history.live() if c.finished)
    assert (latest.increment, latest.finished) == (2, True)
    # 48 new items and as many replayed, in batches of 8, 3 epochs.
    assert latest.step - first.step == 12 * EPOCHS
    before, after = repository.manifest(first), repository.manifest(latest)
    weights = {t.path: t.digest for t in before.tensors if t.path.startswith("model/")}
    moved = [t for t in after.tensors if t.path in weights and t.digest != weights[t.path]]
    assert len(moved) == len(weights)


def test_an_increment_killed_on_grown_data_leaves_no_trace(tmp_path: Path) -> None:
    """Increment 2, killed and resumed while even more data arrives, learns what it began with."""
    scenario = SCENARIOS[0]
    for name in ("reference", "killed"):
        assert run_process(tmp_path / name, scenario) == 0
    assert run_process(tmp_path / "reference", scenario, items=144) == 0
    kill = Kill("step", 17)
    assert run_process(tmp_path / "killed", scenario, items=144, kill=kill) == -signal.SIGKILL
    assert run_process(tmp_path / "killed", scenario, items=160) == 0
    one, two = final_state(tmp_path / "reference"), final_state(tmp_path / "killed")
    one["state"]["onward"]["loaders"]["loaders"]["loader0"].pop("items")
    two["state"]["onward"]["loaders"]["loaders"]["loader0"].pop("items")
    assert list(differing(one, two)) == []


def test_no_acknowledged_checkpoint_is_lost_by_300_kills(tmp_path: Path) -> None:
    """SIGKILL at 300 random times: every checkpoint whose save returned is there and intact."""
    output, told = tmp_path / "out", tmp_path / "acknowledged"
    told.touch()
    chance = random.Random(300)
    for kills in range(1, 301):
        process = processes().Process(
            target=train_for_ever, args=(str(output), str(told)), daemon=False
        )
        process.start()
        # Some lives end before their first save, most after a few; all at a random moment.
        wanted = _lines(told) + chance.choice([0, 0, 1, 1, 2, 3])
        while _lines(told) < wanted and process.exitcode is None:
            process.join(0.005)
        process.join(chance.uniform(0.0, 0.05 if wanted else 0.5))
        assert process.exitcode is None, "the training ended by itself"
        process.kill()
        process.join()
        if kills % 25 == 0:
            _check_acknowledged(output, told)
    assert _check_acknowledged(output, told) > 200
    findings = verify(open_repository(open_store(output)), every_byte=True)
    assert findings.intact


def _lines(told: Path) -> int:
    return told.read_bytes().count(b"\n")


def _check_acknowledged(output: Path, told: Path) -> int:
    wanted = told.read_text().split()
    commits = open_repository(open_store(output)).history.commits if wanted else {}
    assert [id_ for id_ in wanted if id_ not in commits] == []
    return len(wanted)


def train_for_ever(output: str, told: str) -> None:
    from .scenarios import train

    train(output, SCENARIOS[0], acknowledge=told, epochs=1_000_000)
