"""Moving jobs and attempts: the only code that changes a `state`.

A move is one statement guarded by the state and the version that it was decided on. Whoever decides
on an old version is `Overtaken`, changes nothing, and looks again. The move, its entry in the
timeline and the messages about it are in one transaction, the caller's.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import CursorResult, update
from sqlalchemy.orm import Session

from onward.jobs.states import ATTEMPT_MOVES, JOB_MOVES, TERMINAL_ATTEMPTS, TERMINAL_JOBS
from onward.server.database import Overtaken
from onward.server.database.tables import Attempt, Delivery, Job, Move
from onward.server.names import new_id, now_s
from onward.server.problems import IllegalMove


def move_job(
    session: Session, job: Job, after: str, *, by: str, reason: str = "", **facts: Any
) -> Job:
    """Moves a job; `facts` are other columns to set. Returns it as it is now.

    Raises `IllegalMove` where the table has no such move, `Overtaken` if it was moved meanwhile.
    """
    if after not in JOB_MOVES[job.state]:
        raise IllegalMove(
            f"job {job.id} is {job.state}",
            why=f"from there it cannot become {after}",
            do="see its timeline; what has ended stays ended, and `continue` or `retry` goes on",
        )
    before, time = job.state, now_s()
    changed = {"reason": reason, **facts, "state": after}
    if after == "running" and job.started_at is None:
        changed.setdefault("started_at", time)
    if after in TERMINAL_JOBS:
        changed.setdefault("ended_at", time)
    _guarded(session, Job, job, changed, time)
    _note(session, job.id, None, before, after, by=by, reason=reason, at=time)
    _tell(session, job, before, at=time)
    return job


def touch_job(session: Session, job: Job, **facts: Any) -> Job:
    """Changes other columns of a job than its state, guarded in the same way."""
    _guarded(session, Job, job, facts, now_s())
    return job


def move_attempt(
    session: Session, attempt: Attempt, after: str, *, by: str, reason: str = "", **facts: Any
) -> Attempt:
    """Moves an attempt; as `move_job`."""
    if after not in ATTEMPT_MOVES[attempt.state]:
        raise IllegalMove(
            f"attempt {attempt.number} is {attempt.state}", why=f"it cannot become {after}"
        )
    before, time = attempt.state, now_s()
    changed = {**facts, "state": after}
    if reason:
        changed["reason"] = reason
    if after == "leased":
        changed.setdefault("leased_at", time)
    if after == "running":
        changed.setdefault("running_at", time)
    if after in TERMINAL_ATTEMPTS:
        changed.setdefault("ended_at", time)
    _guarded(session, Attempt, attempt, changed, time)
    _note(session, attempt.job, attempt.id, before, after, by=by, reason=reason, at=time)
    return attempt


def touch_attempt(session: Session, attempt: Attempt, **facts: Any) -> Attempt:
    """Changes other columns of an attempt than its state."""
    _guarded(session, Attempt, attempt, facts, now_s())
    return attempt


def tell_job(session: Session, job: str, **facts: Any) -> None:
    """Writes down what was seen of a running job. It decides nothing, so raises no version: whoever
    decides on the job meanwhile is not overtaken by a progress bar."""
    session.execute(
        update(Job).where(Job.id == job).values(**facts, updated_at=now_s()),
        execution_options={"synchronize_session": False},
    )


def tell_queued(session: Session, job: str, reason: str) -> None:
    """What a job waits for, unless it waits no more."""
    session.execute(
        update(Job).where(Job.id == job, Job.state == "queued").values(reason=reason),
        execution_options={"synchronize_session": False},
    )


def tell_attempt(session: Session, attempt: str, **facts: Any) -> None:
    """As `tell_job`, of an attempt."""
    session.execute(
        update(Attempt).where(Attempt.id == attempt).values(**facts),
        execution_options={"synchronize_session": False},
    )


def _guarded(
    session: Session, table: type[Job] | type[Attempt], row: Job | Attempt, changed: dict[str, Any],
    time: float,
) -> None:  # fmt: skip
    session.flush()
    changed = {**changed, "version": row.version + 1}
    if table is Job:
        changed.setdefault("updated_at", time)
    statement = (
        update(table)
        .where(table.id == row.id, table.version == row.version, table.state == row.state)
        .values(**changed)
        .execution_options(synchronize_session=False)
    )
    result = session.execute(statement)
    assert isinstance(result, CursorResult)
    if result.rowcount != 1:
        raise Overtaken(f"{row.id} was moved by somebody else", do="look at it again")
    attached = row in session
    if attached:
        session.refresh(row)
    else:
        for name, value in changed.items():
            setattr(row, name, value)


def _note(
    session: Session, job: str, attempt: str | None, before: str, after: str, *, by: str,
    reason: str, at: float,
) -> None:  # fmt: skip
    session.add(
        Move(at=at, job=job, attempt=attempt, before=before, after=after, by=by, reason=reason)
    )


def _tell(session: Session, job: Job, before: str, *, at: float) -> None:
    """Puts a message for each webhook that the job names into the box of those to be sent."""
    for name in job.spec.get("notify") or []:
        body = {
            "type": f"job.{job.state}",
            "at": at,
            "job": {
                "id": job.id, "name": job.name, "state": job.state, "before": before,
                "reason": job.reason, "cause": job.cause, "output": job.output,
                "generation": job.generation, "progress": job.progress,
            },
        }  # fmt: skip
        session.add(Delivery(id=new_id("msg"), webhook=str(name), body=body, tries=0, next_at=at))
