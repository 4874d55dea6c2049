"""The list of jobs."""

from __future__ import annotations

from typing import Any, cast
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from sqlalchemy import Row, func, select
from sqlalchemy.orm import Session

from onward.jobs.states import JOB_MOVES, TERMINAL_JOBS
from onward.server.console.forms import Sent, call_of, local, once
from onward.server.console.rendering import is_partial, language_of, render
from onward.server.database.tables import Job, Storage
from onward.server.jobs.acting import Action, act_on_many
from onward.server.jobs.listing import JobFilter, list_jobs
from onward.server.names import now_s
from onward.server.problems import NotFound

_PAGE = 50

router = APIRouter(include_in_schema=False)


@router.get("/jobs")
def jobs(request: Request, q: str = "", state: str = "", cursor: str = "") -> HTMLResponse:
    """The newest first, a page at a time; the list alone where htmx asks for it."""
    call = call_of(request)
    q, spoken = q.strip()[:200], language_of(request)
    with call.database.read() as session:
        found, following = list_jobs(
            session, JobFilter(states=_states(state), text=q), limit=_PAGE, cursor=cursor
        )
        steps = first_steps(session)

    def address(cursor: str) -> str:
        asked = {"q": q, "state": state, "cursor": cursor}
        query = urlencode({name: value for name, value in asked.items() if value})
        return "/jobs" + (f"?{query}" if query else "")

    done = request.query_params.get("done", "")
    return render(
        request,
        "_jobs.html" if is_partial(request) else "jobs.html",
        jobs=found,
        states=list(JOB_MOVES),
        asked={"q": q, "state": state, "cursor": cursor},
        next=address(following) if following else "",
        first=address(""),
        first_steps=steps,
        notice=spoken.tn("{n} jobs were asked.", int(done)) if done.isdecimal() else "",
        took=took,
        progress_line=lambda job: progress_line(spoken, job.progress),
        wishes=wishes(spoken),
    )


@router.post("/jobs/many")
def many(request: Request, sent: Sent) -> Response:
    """The same wish for several jobs. One that cannot is passed over; the others go on."""
    call = call_of(request, sent)
    call.need("write")
    action = sent.get("action")
    if action not in ("pause", "resume", "stop", "cancel"):
        raise NotFound(f"jobs cannot {action[:40]!r}")
    wanted = cast("Action", action)

    def effect(session: Session) -> Any:
        jobs = sent.all("job")[:500]
        found = act_on_many(session, jobs, wanted, by=call.principal.name)
        # The count tells of those that cannot; the list shows each as it is.
        return {"jobs": [each.id for each in found if each.error is None]}

    answer = once(call, effect, action=f"job.bulk.{action}")
    back = local(sent.get("back"))
    return RedirectResponse(f"{back}{'&' if '?' in back else '?'}done={len(answer['jobs'])}", 303)


def first_steps(session: Session) -> dict[str, bool]:
    """What a newcomer has done already."""
    return {
        "storages": bool(session.scalar(select(func.count()).select_from(Storage))),
        "jobs": bool(session.scalar(select(Job.id).limit(1))),
    }


def took(job: Job | Row[Any]) -> float | None:
    """Seconds from its first attempt to its end, or until now."""
    return None if job.started_at is None else (job.ended_at or now_s()) - job.started_at


def progress_line(spoken: Any, progress: dict[str, Any]) -> str:
    """Where training is, in a few words."""
    parts = []
    step, epoch = progress.get("step"), progress.get("epoch")
    if isinstance(step, int):
        parts.append(spoken.t("step {step}", step=spoken.number(step)))
    if isinstance(epoch, int):
        parts.append(spoken.t("epoch {epoch}", epoch=epoch + 1))
    metrics = progress.get("metrics")
    for name, value in list((metrics if isinstance(metrics, dict) else {}).items())[:2]:
        if isinstance(value, int | float):
            parts.append(f"{name} {spoken.number(float(value))}")
    return " · ".join(parts)


def wishes(spoken: Any) -> dict[str, str]:
    """What a running job is about to do."""
    return {
        "pause": spoken.t("about to pause"),
        "stop": spoken.t("about to stop"),
        "cancel": spoken.t("about to be cancelled"),
    }


def _states(asked: str) -> tuple[str, ...]:
    if asked == "active":
        return tuple(state for state in JOB_MOVES if state not in TERMINAL_JOBS)
    return (asked,) if asked else ()
