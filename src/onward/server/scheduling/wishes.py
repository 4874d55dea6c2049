"""What an attempt should be asked for: because somebody wants it, or because it takes too long."""

from __future__ import annotations

from dataclasses import dataclass

from onward.engines.folder import strength
from onward.server.database.tables import Attempt, Job
from onward.server.spec import JobRequest

_BY_PEOPLE = {"pause": "stop", "stop": "stop", "cancel": "kill"}


@dataclass(frozen=True, slots=True)
class Wish:
    """A request to leave for an agent, and why."""

    what: str
    why: str


def wish_for(job: Job, attempt: Attempt, *, heard_at: float, now_s: float) -> Wish | None:
    """None where the attempt goes on, or was asked already."""
    wish = _wish(job, attempt, heard_at=heard_at, now_s=now_s)
    if wish is None or strength(wish.what) < strength(attempt.asked):
        return None
    if wish.what == attempt.asked and wish.why == attempt.asked_why:
        return None
    return wish


def _wish(job: Job, attempt: Attempt, *, heard_at: float, now_s: float) -> Wish | None:
    if job.wanted in _BY_PEOPLE:
        return Wish(_BY_PEOPLE[job.wanted], job.wanted)
    if attempt.asked_why in ("hang", "timeout") or attempt.running_at is None:
        return None
    request = JobRequest.model_validate(job.spec)
    if request.timeout_s and now_s >= attempt.running_at + request.timeout_s:
        return Wish("stop", "timeout")
    heard_at = max(heard_at, attempt.running_at)
    if request.hang_minutes and now_s >= heard_at + request.hang_minutes * 60:
        return Wish("stop", "hang")
    return None
