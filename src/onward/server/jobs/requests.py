"""What people do to jobs. Each function is a decision within the caller's transaction."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from onward.jobs.states import TERMINAL_JOBS
from onward.server.database.tables import Attempt, Job
from onward.server.jobs.moves import move_job, touch_job
from onward.server.names import new_id, now_s
from onward.server.problems import IllegalMove, NotFound
from onward.server.spec import JobRequest
from onward.server.storages import normalise_request


def submit(
    session: Session, request: JobRequest, *, by: str, parent: str | None = None,
    schedule: str | None = None,
) -> Job:  # fmt: skip
    """A new job, queued. Its code is pinned already.

    Raises `UsageError` for a location that lies in no registered storage.
    """
    request = normalise_request(session, request)
    now = now_s()
    job = Job(
        id=new_id("job"), name=request.name, state="queued", spec=request.document(),
        output=request.output.location, created_at=now, created_by=by, updated_at=now,
        parent=parent, schedule=schedule, wanted="run", version=1, generation=0, retried={},
        fruitless=0, committed=False, progress={}, cause="", reason="",
    )  # fmt: skip
    session.add(job)
    session.flush()
    return job


def find_job(session: Session, job_id: str) -> Job:
    """Raises `NotFound`."""
    job = session.get(Job, job_id)
    if job is None:
        raise no_such_job(job_id)
    return job


def no_such_job(job_id: str) -> NotFound:
    return NotFound(f"there is no job {job_id!r}", do="`onward ps --all` lists them")


def ask(session: Session, job: Job, wanted: str, *, by: str) -> Job:
    """Pause, stop or cancel: at once where nothing runs, else what the scheduler will do next.

    Raises `IllegalMove` for a job that has ended. Asking for what is so already changes nothing.
    """
    if job.state in TERMINAL_JOBS:
        if job.state == "cancelled" and wanted in ("stop", "cancel"):
            return job
        raise IllegalMove(
            f"job {job.id} has {job.state}"
            if job.state != "cancelled"
            else f"{job.id} is cancelled",
            why=f"what has ended cannot {wanted}",
            do="`onward continue` goes on from its output",
        )
    if job.wanted == "cancel" or (job.wanted == "stop" and wanted == "pause"):
        return job  # a weaker wish than before
    if job.state == "running":
        return touch_job(session, job, wanted=wanted) if job.wanted != wanted else job
    if wanted == "pause":
        if job.state == "paused":
            return job
        return move_job(
            session, job, "paused", by=by, reason=f"paused by {by}", wanted="pause", run_at=None
        )
    done = "stopped" if wanted == "stop" else "cancelled"
    return move_job(
        session, job, "cancelled", by=by, reason=f"{done} by {by}", wanted=wanted, run_at=None
    )


def resume(session: Session, job: Job, *, by: str) -> Job:
    """A paused job is queued again; one that waits or runs, and shall, is left as it is.

    Raises `IllegalMove`, also for one that is about to pause: its agent was told.
    """
    if job.state == "paused":
        return move_job(session, job, "queued", by=by, reason=f"resumed by {by}", wanted="run")
    if job.state in ("queued", "running", "backoff") and job.wanted == "run":
        return job
    raise IllegalMove(
        f"job {job.id} is {job.state}",
        why="it is on its way to a stop" if job.state == "running" else "only paused jobs resume",
        do="wait until it is paused" if job.wanted == "pause" else "`onward continue` goes on",
    )


def attempts_of(session: Session, job_id: str) -> list[Attempt]:
    """Newest first."""
    return list(
        session.scalars(
            select(Attempt).where(Attempt.job == job_id).order_by(Attempt.number.desc())
        )
    )
