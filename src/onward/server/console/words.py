"""Words that come from data rather than from templates, so that they are translated too."""

from __future__ import annotations

from onward.jobs.states import ATTEMPT_MOVES, CAUSES, JOB_MOVES

TONES = {
    "queued": "wait", "running": "live", "backoff": "warn", "paused": "wait", "succeeded": "good",
    "failed": "bad", "cancelled": "off", "created": "wait", "leased": "wait", "exited": "off",
    "preempted": "warn", "out-of-memory": "bad", "lost": "bad", "fenced": "bad",
    "better": "good", "no change": "off", "worse within noise": "warn", "regression": "bad",
    "insufficient": "warn",
}  # fmt: skip
"""The colour of a state or a verdict; it is never the only sign, the word stands beside it."""

VERBS = ("auto", "fresh", "resume", "continue", "branch")
SCOPES = ("read", "write", "admin")
PREDOWNLOADS = ("no", "latest", "all")
UNITS = ("d", "h", "min", "s")

WORDS = sorted(
    {*JOB_MOVES, *ATTEMPT_MOVES, *CAUSES, *TONES, *VERBS, *SCOPES, *PREDOWNLOADS, *UNITS}
)
"""Messages that `word()` says."""
