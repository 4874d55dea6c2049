"""Why an attempt ended as it did: one of `jobs.states.CAUSES`, or '' where nothing went wrong."""

from __future__ import annotations

import signal
from pathlib import Path

from onward.errors import Fenced, Indeterminate, JobError, OnwardError, RepositoryError, StoreError
from onward.jobs.outcome import Outcome


def cause_of(outcome: Outcome, *, asked: str, out_of_memory: bool) -> str:
    """`asked` is what was asked of the agent; `out_of_memory`: the kernel ended something of it."""
    if isinstance(outcome.error, Fenced):
        return "fenced"
    if outcome.error is not None and not _is_of_script(outcome.error):
        return "infrastructure"
    if outcome.exit_code == 0:
        return ""
    status = outcome.attempts[-1].exit_status if outcome.attempts else None
    if not asked and (outcome.exit_code in (75, 130) or status in (75, 130)):
        return "preemption"
    if asked:
        return ""
    if out_of_memory and status != 0:
        return "out-of-memory"
    return "crash"


def ended_by_kernel(outcome: Outcome) -> bool:
    """Whether the script ended as one that the kernel kills."""
    return bool(outcome.attempts) and outcome.attempts[-1].exit_status == -signal.SIGKILL


def kernel_kills() -> int:
    """How many processes of this machine the kernel ended because memory ran out; 0 if unknown."""
    try:
        text = Path("/proc/vmstat").read_text()
    except OSError:
        return 0
    for line in text.splitlines():
        name, _, count = line.partition(" ")
        if name == "oom_kill":
            return int(count)
    return 0


def _is_of_script(error: OnwardError) -> bool:
    """Whether trying again as it is would end in the same way, however the machines feel."""
    if isinstance(error, (StoreError, Indeterminate, JobError)):
        return False
    return not isinstance(error, RepositoryError) or error.exit_code == 2
