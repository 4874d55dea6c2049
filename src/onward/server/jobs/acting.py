"""Doing by name what is asked of jobs: of one, or of many at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from sqlalchemy.orm import Session

from onward.errors import OnwardError
from onward.server.database import Overtaken
from onward.server.database.tables import Job
from onward.server.jobs import requests
from onward.server.jobs.going_on import Changes, continue_, retry

_TRIES = 3

Action = Literal["pause", "resume", "stop", "cancel", "retry", "continue"]


@dataclass(frozen=True, slots=True)
class Result:
    """What came of it for one job: the job that it is now, or the new one; or why not."""

    id: str
    job: Job | None = None
    error: OnwardError | None = None


def act(
    session: Session, job_id: str, action: Action, *, by: str, changes: Changes | None = None
) -> Job:
    """Does one of the actions; returns the job that it is now, or the new one.

    `changes` are for continue. Raises `NotFound`, `IllegalMove` and `Overtaken`.
    """
    job = requests.find_job(session, job_id)
    if action == "resume":
        return requests.resume(session, job, by=by)
    if action == "retry":
        return retry(session, job, by=by)
    if action == "continue":
        return continue_(session, job, changes or Changes(), by=by)
    return requests.ask(session, job, action, by=by)


def act_on_many(session: Session, jobs: Iterable[str], action: Action, *, by: str) -> list[Result]:
    """The same of each, once. One that cannot does not keep the others from it."""
    return [_tried(session, job_id, action, by) for job_id in dict.fromkeys(jobs)]


def _tried(session: Session, job_id: str, action: Action, by: str) -> Result:
    for left in reversed(range(_TRIES)):
        try:
            with session.begin_nested():
                return Result(job_id, act(session, job_id, action, by=by))
        except OnwardError as error:
            if not (isinstance(error, Overtaken) and left):
                return Result(job_id, error=error)
            session.expire_all()  # it was moved in this very moment: look again
    raise AssertionError("unreachable")
