"""Every strategy passes the resume law: a kill leaves no trace in anything that it keeps."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from onward.repository import open_repository
from onward.stores import open_store

from .killing import differing, final_state, scores
from .learning import INCREMENTS, STEPS, STRATEGIES, run_process

FULL = os.environ.get("ONWARD_TEST_SCALE") == "full"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_kill_in_increment_3_of_5_leaves_no_trace(strategy: str, tmp_path: Path) -> None:
    """Weights, memory, Fisher, teacher, logits and matrix: 0 bits differ from the unkilled run."""
    reference = tmp_path / "reference"
    assert run_process(reference, strategy) == 0
    expected, matrix = final_state(reference), scores(reference)
    assert len(matrix) == INCREMENTS
    for at in (2, 7, STEPS - 1, STEPS) if FULL else (7,):
        killed = tmp_path / f"killed-{at}"
        assert run_process(killed, strategy, kill_at=2 * STEPS + at) == -signal.SIGKILL
        assert open_repository(open_store(killed)).history.latest().increment in (2, 3)
        assert run_process(killed, strategy) == 0
        assert list(differing(expected, final_state(killed))) == []
        assert scores(killed) == matrix
