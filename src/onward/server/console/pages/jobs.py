"""The list of jobs."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session

from onward.errors import OnwardError
from onward.jobs.states import JOB_MOVES, TERMINAL_JOBS
from onward.server.console.forms import Sent, call_of, local, once
from onward.server.console.rendering import is_partial, language_of, render
from onward.server.database.tables import Job, Storage
from onward.server.jobs import requests
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
        found, following = _listed(session, q=q, state=state, cursor=cursor)
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

    def effect(session: Session) -> Any:
        asked = []
        for job_id in sent.all("job")[:500]:
            try:
                job = requests.find_job(session, job_id)
                if action == "resume":
                    requests.resume(session, job, by=call.principal.name)
                else:
                    requests.ask(session, job, action, by=call.principal.name)
            except OnwardError:
                continue  # the count tells; the list shows each as it is
            asked.append(job_id)
        return {"jobs": asked}

    answer = once(call, effect, action=f"job.bulk.{action}")
    back = local(sent.get("back"))
    return RedirectResponse(f"{back}{'&' if '?' in back else '?'}done={len(answer['jobs'])}", 303)


def first_steps(session: Session) -> dict[str, bool]:
    """What a newcomer has done already."""
    return {
        "storages": bool(session.scalar(select(func.count()).select_from(Storage))),
        "jobs": bool(session.scalar(select(Job.id).limit(1))),
    }


def took(job: Job) -> float | None:
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


def _listed(session: Session, *, q: str, state: str, cursor: str) -> tuple[list[Job], str]:
    statement = select(Job).order_by(Job.created_at.desc(), Job.id.desc()).limit(_PAGE + 1)
    if state == "active":
        statement = statement.where(Job.state.notin_(TERMINAL_JOBS))
    elif state:
        statement = statement.where(Job.state == state)
    if q:
        statement = statement.where(
            or_(
                Job.name.icontains(q, autoescape=True), Job.output.icontains(q, autoescape=True),
                Job.id == q,
            )
        )  # fmt: skip
    time, _, id_ = cursor.partition("~")
    try:
        before = float(time) if cursor else None
    except ValueError:
        before = None
    if before is not None:
        statement = statement.where(
            or_(Job.created_at < before, and_(Job.created_at == before, Job.id < id_))
        )
    rows = list(session.scalars(statement))
    last = rows[_PAGE - 1] if len(rows) > _PAGE else None
    return rows[:_PAGE], f"{last.created_at!r}~{last.id}" if last else ""
