"""Schedules: jobs by the clock, or when data has arrived. *New job* makes and changes them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from onward.errors import OnwardError, UsageError
from onward.server.console.forms import Sent, call_of, once
from onward.server.console.rendering import render
from onward.server.database.tables import Schedule
from onward.server.jobs import schedules
from onward.server.names import now_s
from onward.server.problems import NotFound, status_of
from onward.server.scheduling.cron import checked_cron, next_ticks, zone_of

_MOST, _TIMES = 200, 3
_DONE = ("made", "changed", "done")

router = APIRouter(include_in_schema=False)


@router.get("/schedules")
def listed(request: Request, done: str = "") -> HTMLResponse:
    """All of them, newest first."""
    return _page(request, done=done if done in _DONE else "")


@router.get("/schedules/times")
def times(request: Request, cron: str = "", timezone: str = "") -> HTMLResponse:
    """When a cron expression is due next, before anybody saves it."""
    call_of(request).need("read")
    found: list[tuple[str, float]] = []
    problem: OnwardError | None = None
    if cron.strip():
        try:
            zone = zone_of(timezone.strip() or "UTC")
            ticks = next_ticks(checked_cron(cron), zone, now_s(), _TIMES)
            # As the clock on the wall shows it there; the browser adds its own.
            found = [
                (f"{datetime.fromtimestamp(at, zone):%Y-%m-%d %H:%M}", at) for at in ticks
            ]  # fmt: skip
        except UsageError as error:
            problem = error
    return render(
        request, "_times.html", times=found, problem=problem, zone=timezone.strip() or "UTC"
    )


@router.post("/schedules/{schedule_id}/{action}")
def change(request: Request, schedule_id: str, action: str, sent: Sent) -> Response:
    """`enable`, `disable`, `delete`, or `run`: a job at once."""
    call = call_of(request, sent)
    call.need("write")
    if action not in ("enable", "disable", "delete", "run"):
        raise NotFound(f"a schedule cannot {action[:40]!r}")

    def effect(session: Session) -> Any:
        if action == "run":
            return {"id": schedules.run_now(session, schedule_id, by=call.principal.name).id}
        change = {
            "enable": schedules.enable, "disable": schedules.disable, "delete": schedules.delete,
        }[action]  # fmt: skip
        return {"id": change(session, schedule_id).id}

    try:
        answer = once(call, effect, action=f"schedule.{action}")
    except OnwardError as error:
        if status_of(error) != 409:
            raise
        return _page(request, status=409, error=error)
    if action == "run":
        return RedirectResponse(f"/jobs/{answer['id']}", 303)
    return RedirectResponse("/schedules?done=done", 303)


def _page(
    request: Request, *, done: str = "", status: int = 200, error: OnwardError | None = None
) -> HTMLResponse:
    call = call_of(request)
    call.need("read")
    request.state.here = "/schedules"
    with call.database.read() as session:
        found = list(
            session.scalars(
                select(Schedule)
                .order_by(Schedule.created_at.desc(), Schedule.id.desc())
                .limit(_MOST)
            )
        )
    return render(request, "schedules.html", status=status, schedules=found, done=done, error=error)
