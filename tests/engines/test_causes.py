"""Why an attempt ended, from how its job ended."""

from __future__ import annotations

import pytest

from onward.engines.causes import cause_of
from onward.errors import (
    DataChanged,
    Fenced,
    Indeterminate,
    NotAnOutput,
    OnwardError,
    TransferFailed,
    Unreachable,
    UsageError,
)
from onward.jobs.outcome import Attempt, Outcome


def outcome(exit_code: int, status: int | None = None, error: OnwardError | None = None) -> Outcome:
    found = Outcome("", exit_code=exit_code, error=error)
    if status is not None:
        found.attempts.append(Attempt(1, "fresh", "", None, 1, exit_status=status))
    return found


@pytest.mark.parametrize(
    ("ended", "asked", "out_of_memory", "cause"),
    [
        (outcome(0, 0), "", False, ""),
        (outcome(1, 3), "", False, "crash"),
        (outcome(1, -9), "", True, "out-of-memory"),
        (outcome(1, 1), "", True, "out-of-memory"),  # a worker of it was ended
        (outcome(0, 0), "", True, ""),
        (outcome(1, -9), "", False, "crash"),
        (outcome(75, 75), "", False, "preemption"),
        (outcome(130, 130), "", False, "preemption"),
        (outcome(75, 75), "stop", False, ""),
        (outcome(1, -9), "kill", False, ""),
        (outcome(75), "stop", False, ""),  # before there was a script
        (outcome(1, 0, Fenced("another")), "", False, "fenced"),
        (outcome(1, -9, Fenced("another")), "stop", False, "fenced"),
        (outcome(1, 0, Unreachable("away")), "", False, "infrastructure"),
        (outcome(1, None, Indeterminate("who knows")), "", False, "infrastructure"),
        (outcome(1, None, TransferFailed("broken off")), "kill", False, "infrastructure"),
        (outcome(2, None, UsageError("wrong")), "", False, "crash"),
        (outcome(2, None, NotAnOutput("none")), "", False, "crash"),
        (outcome(1, None, DataChanged("other data")), "", False, "crash"),
    ],
)
def test_cause(ended: Outcome, asked: str, out_of_memory: bool, cause: str) -> None:
    assert cause_of(ended, asked=asked, out_of_memory=out_of_memory) == cause
