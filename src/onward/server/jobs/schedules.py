"""Schedules: jobs that are submitted by the clock, or when a location has something new.

Each function is a decision within the caller's transaction. That a tick or a listing was answered
and the job that answers it are one transaction, so that a server which dies anywhere submits it
once: before, it is still due; after, it is done.
"""

from __future__ import annotations

from typing import Any, Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from onward.errors import UsageError
from onward.jobs.states import TERMINAL_JOBS
from onward.server.database.tables import Job, Schedule
from onward.server.jobs import requests
from onward.server.jobs.translation import data_of
from onward.server.names import new_id, now_s
from onward.server.problems import IllegalMove, NotFound
from onward.server.scheduling.cron import checked_cron, next_tick, zone_of
from onward.server.spec import JobRequest

Kind = Literal["cron", "watch"]


_AGAIN_S = 60.0
"""After a tick that could not be answered."""


def create(
    session: Session, name: str, kind: Kind, request: JobRequest, *, by: str, cron: str = "",
    timezone: str = "UTC", enabled: bool = True,
) -> Schedule:  # fmt: skip
    """A new schedule. Locations of the job are resolved and its code is pinned already.

    Raises `UsageError` for a cron expression that is none, a watch without data, or a job that
    could only be done once.
    """
    cron, next_at = _checked(kind, request, cron, timezone)
    schedule = Schedule(
        id=new_id("sch"), name=name, kind=kind, cron=cron, timezone=timezone,
        spec=request.document(), enabled=enabled, version=1, created_at=now_s(), created_by=by,
        next_at=next_at, looked_at=None, seen="", pending="", last_job=None, reason="",
    )  # fmt: skip
    session.add(schedule)
    session.flush()
    return schedule


def change(
    session: Session, schedule_id: str, name: str, kind: Kind, request: JobRequest, *,
    cron: str = "", timezone: str = "UTC",
) -> Schedule:  # fmt: skip
    """What a schedule does and when; on or off it stays, and jobs that it submitted go on.

    What was due before and is not answered yet counts only if the times are the same still. A
    watch with other inputs takes what it finds for new. Raises as `create` does.
    """
    schedule = find_schedule(session, schedule_id, lock=True)
    cron, next_at = _checked(kind, request, cron, timezone)
    if (schedule.kind, schedule.cron, schedule.timezone) != (kind, cron, timezone):
        schedule.next_at = next_at
    spec = request.document()
    if kind != schedule.kind or spec.get("inputs") != schedule.spec.get("inputs"):
        schedule.seen, schedule.pending, schedule.looked_at = "", "", None
    schedule.name, schedule.kind, schedule.cron, schedule.timezone = name, kind, cron, timezone
    schedule.spec = spec
    schedule.reason = ""
    schedule.version += 1
    return schedule


def find_schedule(session: Session, schedule_id: str, *, lock: bool = False) -> Schedule:
    """Raises `NotFound`."""
    found = session.get(Schedule, schedule_id, with_for_update=lock or None)
    if found is None:
        raise NotFound(f"there is no schedule {schedule_id!r}", do="list /api/v1/schedules")
    return found


def enable(session: Session, schedule_id: str) -> Schedule:
    """From now on; what was missed while it was disabled is not made up for."""
    schedule = find_schedule(session, schedule_id, lock=True)
    if not schedule.enabled:
        schedule.enabled = True
        schedule.version += 1
        schedule.reason = ""
        if schedule.kind == "cron":
            schedule.next_at = next_tick(schedule.cron, zone_of(schedule.timezone), now_s())
    return schedule


def disable(session: Session, schedule_id: str) -> Schedule:
    """Jobs that it submitted go on."""
    schedule = find_schedule(session, schedule_id, lock=True)
    if schedule.enabled:
        schedule.enabled = False
        schedule.version += 1
        schedule.pending = ""
        schedule.reason = ""
    return schedule


def delete(session: Session, schedule_id: str) -> Schedule:
    """Its jobs stay, and go on."""
    schedule = find_schedule(session, schedule_id, lock=True)
    session.delete(schedule)
    return schedule


def run_now(session: Session, schedule_id: str, *, by: str) -> Job:
    """A job at once, beside its times. Raises `IllegalMove` while one of its jobs is going."""
    schedule = find_schedule(session, schedule_id, lock=True)
    going = going_job(session, schedule)
    if going is not None:
        raise IllegalMove(
            f"job {going} of this schedule is still going", do="wait for it, or cancel it"
        )
    return _submit(session, schedule, by=by)


def going_job(session: Session, schedule: Schedule) -> str | None:
    """A job of this schedule that has not ended."""
    return session.scalar(
        select(Job.id)
        .where(Job.schedule == schedule.id, Job.state.not_in(sorted(TERMINAL_JOBS)))
        .limit(1)
    )


def answer_tick(session: Session, schedule_id: str, now: float) -> Job | None:
    """Submits the job of a tick that is due; however many were missed, one job.

    While a job of the schedule is going, the tick stays due.
    """
    schedule = session.get(Schedule, schedule_id, with_for_update=True)
    if schedule is None or not schedule.enabled or schedule.next_at is None:
        return None
    if schedule.next_at > now:
        return None
    going = going_job(session, schedule)
    if going is not None:
        _say(schedule, f"due, and waits for job {going}")
        return None
    # The next one is counted from now: what was missed meanwhile is this one.
    schedule.next_at = next_tick(schedule.cron, zone_of(schedule.timezone), now)
    return _submit(session, schedule, by=f"schedule {schedule.name}")


def answer_listing(session: Session, schedule_id: str, found: str, now: float) -> Job | None:
    """Submits a job if the location holds something new, and held it at the last look too.

    `found` is a fingerprint. What changed since the last look may still be on its way.
    """
    schedule = session.get(Schedule, schedule_id, with_for_update=True)
    if schedule is None or not schedule.enabled:
        return None
    schedule.looked_at = now
    if not found:
        schedule.pending = ""
        _say(schedule, "there is nothing at the location yet")
    elif found == schedule.seen:
        schedule.pending = ""
        _say(schedule, "nothing new")
    elif found != schedule.pending:
        schedule.pending = found
        _say(schedule, "there is something new; a job is submitted once it does not change")
    else:
        going = going_job(session, schedule)
        if going is not None:
            _say(schedule, f"there is something new, which waits for job {going}")
            return None
        schedule.seen, schedule.pending = found, ""
        return _submit(session, schedule, by=f"schedule {schedule.name}")
    return None


def note_problem(session: Session, schedule_id: str, problem: str, now: float) -> None:
    """It could not be looked at; it is tried again."""
    schedule = session.get(Schedule, schedule_id, with_for_update=True)
    if schedule is not None:
        schedule.looked_at = now
        if schedule.next_at is not None:
            schedule.next_at = max(schedule.next_at, now + _AGAIN_S)
        _say(schedule, problem)


def document(schedule: Schedule) -> dict[str, Any]:
    """As plain JSON values."""
    return {
        "id": schedule.id, "name": schedule.name, "kind": schedule.kind, "cron": schedule.cron,
        "timezone": schedule.timezone, "job": schedule.spec, "enabled": schedule.enabled,
        "version": schedule.version, "created_at": schedule.created_at,
        "created_by": schedule.created_by, "next_at": schedule.next_at,
        "looked_at": schedule.looked_at, "last_job": schedule.last_job,
        "reason": schedule.reason,
    }  # fmt: skip


def _checked(
    kind: Kind, request: JobRequest, cron: str, timezone: str
) -> tuple[str, float | None]:  # fmt: skip
    """The cron expression in its one form, and when it is due next."""
    if request.verb not in ("auto", "continue"):
        raise UsageError(
            f"a schedule cannot {request.verb} every time",
            why="after the first job there is a finished increment",
            do="leave the verb to Onward (auto), or use continue",
        )
    if request.output.predownload not in ("latest", "all", "no"):
        raise UsageError(
            f"a schedule cannot go on from {request.output.predownload} every time",
            do="use predownload latest",
        )
    if kind == "cron":
        cron = checked_cron(cron)
        return cron, next_tick(cron, zone_of(timezone), now_s())
    if cron:
        raise UsageError("a watch has no cron expression", do="leave it away, or use kind cron")
    if not data_of(request):
        raise UsageError(
            "a watch needs data to look at",
            why="the job has no input called data_url, and not exactly one input",
            do="give it the input data_url",
        )
    return "", None


def _submit(session: Session, schedule: Schedule, *, by: str) -> Job:
    request = JobRequest.model_validate(schedule.spec)
    job = requests.submit(session, request, by=by, parent=None, schedule=schedule.id)
    schedule.last_job = job.id
    schedule.version += 1
    schedule.reason = f"submitted job {job.id}"
    return job


def _say(schedule: Schedule, reason: str) -> None:
    if schedule.reason != reason:
        schedule.reason = reason
