"""Which queued jobs start now: the oldest first, one for each output, while there are slots."""

from __future__ import annotations

from sqlalchemy import func, select

from onward.server.database import Database, Overtaken
from onward.server.database.tables import Attempt, Job
from onward.server.jobs.moves import move_job, tell_queued
from onward.server.names import new_id, now_s
from onward.server.settings import Settings

_LOOKED_AT = 200


def start_queued(settings: Settings, database: Database, engine: str) -> None:
    """Starts what may start, and says of the others what they wait for."""
    with database.read() as session:
        if session.scalar(select(Job.id).where(Job.state == "queued").limit(1)) is None:
            return
        rows = session.scalars(select(Job).where(Job.state == "running"))
        running = {job.output: job.id for job in rows}
        oldest = select(Job).where(Job.state == "queued").order_by(Job.created_at, Job.id)
        # Not only the oldest: a thousand that wait for one output must not hold up another one.
        free = list(session.scalars(oldest.where(Job.output.not_in(running)).limit(_LOOKED_AT)))
        blocked = list(session.scalars(oldest.where(Job.output.in_(running)).limit(_LOOKED_AT)))
        taken = session.scalar(select(func.count()).where(Job.state == "running")) or 0
    said: dict[str, str] = {}
    for job in free:
        if taken >= settings.slots:
            said[job.id] = f"waits for a free slot: {taken} of {settings.slots} are taken"
        elif job.output in running:
            blocked.append(job)
        elif _start(database, job, engine):
            running[job.output] = job.id
            taken += 1
    for job in blocked:
        said[job.id] = f"waits for {running[job.output]}, which trains the same output"
    before = {job.id: job.reason for job in (*free, *blocked)}
    said = {job: reason for job, reason in said.items() if before[job] != reason}
    if said:
        with database.write() as session:
            for waiting, reason in said.items():
                tell_queued(session, waiting, reason)


def _start(database: Database, job: Job, engine: str) -> bool:
    """The job runs from here on: whoever finds its attempt starts the agent."""
    number = job.generation + 1
    try:
        with database.write() as session:
            move_job(session, job, "running", by="scheduler", generation=number, cause="")
            session.add(
                Attempt(
                    id=new_id("att"), job=job.id, number=number, state="created", version=1,
                    engine=engine, host="", pid=0, created_at=now_s(), asked="", asked_why="",
                    cause="", reason="", verb="", checkpoint="", saves=0, offset=0, outcome={},
                )
            )  # fmt: skip
    except Overtaken:
        return False
    return True
