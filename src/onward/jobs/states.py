"""The states of jobs and attempts, and every move between them that is legal.

A *job* is what was asked for; an *attempt* is one try at it. A job waits while it is `queued`, in
`backoff` (a failed attempt is tried again later) or `paused` (saved; somebody will resume it).
"""

from __future__ import annotations

from collections.abc import Mapping

JOB_MOVES: Mapping[str, frozenset[str]] = {
    "queued": frozenset({"running", "paused", "failed", "cancelled"}),
    "running": frozenset({"backoff", "paused", "succeeded", "failed", "cancelled"}),
    "backoff": frozenset({"queued", "paused", "failed", "cancelled"}),
    "paused": frozenset({"queued", "cancelled"}),
    "succeeded": frozenset(),
    "failed": frozenset(),
    "cancelled": frozenset(),
}
"""From each state of a job to those that may follow. States without a move are terminal."""

ATTEMPT_MOVES: Mapping[str, frozenset[str]] = {
    "created": frozenset({"leased", "lost"}),
    "leased": frozenset({"running", "exited", "lost"}),
    "running": frozenset({"exited", "preempted", "out-of-memory", "lost", "fenced"}),
    "exited": frozenset(),
    "preempted": frozenset(),
    "out-of-memory": frozenset(),
    "lost": frozenset(),
    "fenced": frozenset(),
}
"""`leased`: an engine was, or is about to be, told to start it. The rest says how it went."""

TERMINAL_JOBS = frozenset(state for state, moves in JOB_MOVES.items() if not moves)
TERMINAL_ATTEMPTS = frozenset(state for state, moves in ATTEMPT_MOVES.items() if not moves)

WANTED = ("run", "pause", "stop", "cancel")
"""What people want of a job. `stop` saves first; `cancel` does not. Both end as `cancelled`."""

CAUSES = ("crash", "out-of-memory", "hang", "timeout", "infrastructure", "preemption", "fenced")
"""Why an attempt did not do what was asked. All but the last may be tried again."""
