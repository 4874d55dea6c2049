"""Routes of schedules: jobs by the clock, or when a location has something new."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, StringConstraints
from sqlalchemy import select

from onward.server.api.call import Caller
from onward.server.api.documents import JobDocument, job_document
from onward.server.api.parameters import Cursor, Limit
from onward.server.database.tables import Schedule
from onward.server.jobs import schedules
from onward.server.jobs.submitting import prepared
from onward.server.paging import Order
from onward.server.spec import JobRequest, Name

router = APIRouter(prefix="/api/v1/schedules", tags=["schedules"])

ScheduleId = Annotated[str, Path(pattern=r"^[a-z0-9-]{1,32}$", examples=["sch-7k2m9qxw4t8vzc"])]


class ScheduleChange(BaseModel):
    """What a schedule does and when: `cron` with an expression and a time zone, or `watch`."""

    model_config = ConfigDict(extra="forbid")

    name: Name
    kind: Literal["cron", "watch"]
    cron: Annotated[str, StringConstraints(max_length=200, pattern=r"^[A-Za-z0-9*/,@ -]*$")] = ""
    """Minute, hour, day of the month, month, weekday; or @hourly, @daily, @weekly, @monthly."""
    timezone: Annotated[str, StringConstraints(max_length=64, pattern=r"^[A-Za-z0-9_+/-]+$")] = (
        "UTC"
    )
    job: JobRequest


class ScheduleRequest(ScheduleChange):
    """A new schedule."""

    enabled: bool = True


class ScheduleDocument(BaseModel):
    """A schedule as it is. Times are seconds since 1970."""

    id: str
    name: str
    kind: str
    cron: str
    timezone: str
    job: dict[str, Any]
    enabled: bool
    version: int
    created_at: float
    created_by: str
    next_at: float | None
    looked_at: float | None
    last_job: str | None
    reason: str


class SchedulePage(BaseModel):
    """A page of schedules, newest first."""

    items: list[ScheduleDocument]
    next: str | None


@router.post("", status_code=201, response_model=ScheduleDocument)
def create(body: ScheduleRequest, call: Caller) -> JSONResponse:
    """Makes a schedule. The code of its job is pinned now, so that every job runs the same."""
    call.need("write")
    again = call.answered()
    if again is not None:
        return again
    request = prepared(call.settings, call.database, body.job, by=call.principal.name)

    def effect(session: Any) -> Any:
        return schedules.document(
            schedules.create(
                session, body.name, body.kind, request, by=call.principal.name, cron=body.cron,
                timezone=body.timezone, enabled=body.enabled,
            )
        )  # fmt: skip

    return call.once(effect, action="schedule.create", status=201)


@router.get("", response_model=SchedulePage)
def listed(call: Caller, limit: Limit = 50, cursor: Cursor = "") -> Any:
    """All schedules, newest first."""
    call.need("read")
    order = Order(Schedule.created_at, Schedule.id, falling=True)
    with call.database.read() as session:
        rows, following = order.page(session.scalars, select(Schedule), limit=limit, cursor=cursor)
    return {"items": [schedules.document(row) for row in rows], "next": following}


@router.get("/{schedule_id}", response_model=ScheduleDocument)
def show(schedule_id: ScheduleId, call: Caller) -> Any:
    """A schedule as it is."""
    call.need("read")
    with call.database.read() as session:
        return schedules.document(schedules.find_schedule(session, schedule_id))


@router.put("/{schedule_id}", response_model=ScheduleDocument)
def change(schedule_id: ScheduleId, body: ScheduleChange, call: Caller) -> JSONResponse:
    """What it does and when, as a whole. Its code is pinned anew; on or off it stays."""
    call.need("write")
    again = call.answered()
    if again is not None:
        return again
    with call.database.read() as session:
        schedules.find_schedule(session, schedule_id)
    request = prepared(call.settings, call.database, body.job, by=call.principal.name)

    def effect(session: Any) -> Any:
        return schedules.document(
            schedules.change(
                session, schedule_id, body.name, body.kind, request, cron=body.cron,
                timezone=body.timezone,
            )
        )  # fmt: skip

    return call.once(effect, action="schedule.change")


@router.post("/{schedule_id}/enable", response_model=ScheduleDocument)
def enable(schedule_id: ScheduleId, call: Caller) -> JSONResponse:
    """From now on it submits jobs; what was missed is not made up for."""
    call.need("write")
    return call.once(
        lambda session: schedules.document(schedules.enable(session, schedule_id)),
        action="schedule.enable",
    )


@router.post("/{schedule_id}/disable", response_model=ScheduleDocument)
def disable(schedule_id: ScheduleId, call: Caller) -> JSONResponse:
    """It submits no more jobs; those that it submitted go on."""
    call.need("write")
    return call.once(
        lambda session: schedules.document(schedules.disable(session, schedule_id)),
        action="schedule.disable",
    )


@router.post("/{schedule_id}/run", status_code=201, response_model=JobDocument)
def run(schedule_id: ScheduleId, call: Caller) -> JSONResponse:
    """Submits a job of it at once."""
    call.need("write")
    return call.once(
        lambda session: job_document(
            schedules.run_now(session, schedule_id, by=call.principal.name)
        ),
        action="schedule.run", status=201,
    )  # fmt: skip


@router.delete("/{schedule_id}", response_model=ScheduleDocument)
def delete(schedule_id: ScheduleId, call: Caller) -> JSONResponse:
    """Forgets a schedule. Its jobs stay."""
    call.need("write")
    return call.once(
        lambda session: schedules.document(schedules.delete(session, schedule_id)),
        action="schedule.delete",
    )
