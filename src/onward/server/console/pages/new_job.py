"""The form of a new job or of a schedule, and the plan beneath it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from onward.errors import OnwardError
from onward.server import planning
from onward.server.console.forms import Sent, call_of, once
from onward.server.console.job_form import INPUTS, JobForm
from onward.server.console.rendering import language_of, render
from onward.server.console.schedule_form import is_later, read_schedule, values_of
from onward.server.database.tables import Secret, Storage, Webhook
from onward.server.jobs import requests, schedules
from onward.server.jobs.submitting import prepared
from onward.server.problems import NotFound, status_of

_PREFILLED = {
    "output": "output_location", "data": "input_location_1", "checkpoint": "predownload_checkpoint",
    "verb": "verb", "branch_from": "branch_from", "code": "code", "name": "name",
    "start": "start",
}  # fmt: skip
"""Parameter of the address → field: links of other pages begin a form with these."""

router = APIRouter(include_in_schema=False)


@router.get("/jobs/new")
def new(request: Request) -> HTMLResponse:
    """An empty form, one that a link began, one like an earlier job (`?like=job-…`), or one that
    changes a schedule (`?schedule=sch-…`)."""
    call, spoken = call_of(request), language_of(request)
    call.need("write")
    like, schedule_id = (request.query_params.get(name) for name in ("like", "schedule"))
    given = {
        field: request.query_params[name]
        for name, field in _PREFILLED.items()
        if name in request.query_params
    }
    if "predownload_checkpoint" in given:
        given["predownload"] = "checkpoint"
    if like or schedule_id:
        with call.database.read() as session:
            if schedule_id:
                schedule = schedules.find_schedule(session, schedule_id)
                form = JobForm.of(spoken, schedule.spec)
                form.values |= values_of(schedule)
            else:
                form = JobForm.of(spoken, requests.find_job(session, like or "").spec)
        form.values |= given
    else:
        form = JobForm.empty(spoken, given)
    return _page(request, form)


@router.post("/jobs/new")
def submit(request: Request, sent: Sent) -> Response:
    """Submits the job or keeps the schedule; else the form again, what is wrong at its field."""
    call, spoken = call_of(request, sent), language_of(request)
    call.need("write")
    form = JobForm.sent(spoken, sent)
    asked = form.request()
    later = read_schedule(form, asked) if asked is not None and is_later(form) else None
    if asked is None or form.errors:
        return _page(request, form, status=422)
    by, schedule_id = call.principal.name, form.value("schedule")
    try:
        again = call.answered()
        job = asked if again is not None else prepared(call.settings, call.database, asked, by=by)

        def effect(session: Session) -> Any:
            if later is None:
                return {"id": requests.submit(session, job, by=by).id}
            name, kind, cron, zone = later.name, later.kind, later.cron, later.timezone
            if schedule_id:
                found = schedules.change(
                    session, schedule_id, name, kind, job, cron=cron, timezone=zone
                )
            else:
                found = schedules.create(session, name, kind, job, by=by, cron=cron, timezone=zone)
            return {"id": found.id}

        what = "schedule.change" if schedule_id else "schedule.create"
        answer = once(call, effect, action="job.submit" if later is None else what)
    except OnwardError as error:
        if isinstance(error, NotFound) or status_of(error) >= 500:
            raise
        return _page(request, form, status=status_of(error), error=error)
    if later is None:
        return RedirectResponse(f"/jobs/{answer['id']}", 303)
    done = "changed" if schedule_id else "made"
    return RedirectResponse(f"/schedules?done={done}#{answer['id']}", 303)


@router.post("/jobs/new/plan")
def plan(request: Request, sent: Sent) -> HTMLResponse:
    """What the job would do, and the same job as text."""
    call, spoken = call_of(request), language_of(request)
    call.need("write")
    form = JobForm.sent(spoken, sent)
    asked = form.request()
    if asked is None:
        return render(request, "_plan.html", wrong=len(form.errors))
    found = planning.plan(
        call.settings, call.database, asked, address=str(request.base_url).rstrip("/")
    )
    shown = {name: found[name] for name in ("plan", "problem", "budget", "command", "toml", "curl")}
    return render(request, "_plan.html", wrong=0, **shown)


def _page(
    request: Request, form: JobForm, *, status: int = 200, error: OnwardError | None = None
) -> HTMLResponse:
    call = call_of(request)
    with call.database.read() as session:
        known: dict[str, Any] = {
            "storages": list(session.scalars(select(Storage.alias).order_by(Storage.alias))),
            "secrets": list(session.scalars(select(Secret.name).order_by(Secret.name))),
            "webhooks": list(session.scalars(select(Webhook.name).order_by(Webhook.name))),
        }
    environment = {"environment", "secrets", "notify"}
    first = {"name", "code", "revision", "script", "arguments", "output_location", "verb", ""}
    return render(
        request, "new_job.html", status=status, form=form, inputs=INPUTS, error=error,
        parent="", later=is_later(form), opened={
            "environment": bool(environment & form.errors.keys()),
            "run": bool(form.errors.keys() - environment - first),
        }, **known,
    )  # fmt: skip
