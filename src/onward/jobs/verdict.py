"""What the end of a script means for the job."""

from __future__ import annotations

import signal

from onward.jobs.outcome import Attempt
from onward.jobs.stopping import StopSignals

ORDERLY = (0, 75, 130)
"""Exit statuses of scripts that ended as they meant to: their files are whole."""

NOT_RETRIED = (0, 2, 75, 130)
"""Exit statuses after which another attempt makes no sense: done, wrong arguments, stopped."""


def verdict(attempt: Attempt, signals: StopSignals) -> tuple[int, str]:
    """The exit code of `onward run` and, unless all is well, a sentence."""
    status, wanted = attempt.exit_status, signals.exit_code
    if status == 0:
        return 0, ""
    if 130 in (wanted, status):
        return 130, "stopped by Ctrl-C"
    if status == 75:
        return 75, "stopped safely; the same command goes on"
    if wanted and attempt.saves:
        return 75, f"stopped by {signals.name}; the same command goes on from what was saved"
    if wanted:
        return 1, (
            f"stopped by {signals.name}; the script ended with {ending(attempt)} and saved nothing "
            "on the way"
        )
    if status == 2:
        return 2, "the script refused its arguments or configuration (exit status 2)"
    return 1, f"the script ended with {ending(attempt)}"


def ending(attempt: Attempt) -> str:
    """Such as `exit status 3` or `SIGKILL`."""
    status = attempt.exit_status
    if status is not None and status < 0:
        try:
            return signal.Signals(-status).name
        except ValueError:
            return f"signal {-status}"
    return f"exit status {status}"
