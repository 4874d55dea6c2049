"""In MindSpore, too, a kill leaves no trace in anything that a strategy keeps."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from .killing import differing, final_state, newest, scores
from .mindspore_learning import INCREMENTS, SAMPLED, STEPS, STRATEGIES, run_process

FULL = os.environ.get("ONWARD_TEST_SCALE") == "full"


@pytest.mark.parametrize("strategy", STRATEGIES if FULL else SAMPLED)
def test_a_kill_in_increment_3_of_5_leaves_no_trace(strategy: str, tmp_path: Path) -> None:
    """Weights, memory, Fisher, teacher, logits and matrix: 0 bits differ from the unkilled run."""
    reference = tmp_path / "reference"
    assert run_process(reference, strategy) == 0
    expected, matrix = final_state(reference), scores(reference)
    assert len(matrix) == INCREMENTS
    for at in (1, 3, STEPS - 1, STEPS) if FULL else (3,):
        killed = tmp_path / f"killed-{at}"
        assert run_process(killed, strategy, kill_at=2 * STEPS + at) == -signal.SIGKILL
        assert newest(killed)[1].increment in (2, 3)
        assert run_process(killed, strategy) == 0
        assert list(differing(expected, final_state(killed))) == []
        assert scores(killed) == matrix
