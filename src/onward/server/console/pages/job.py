"""One job: what it does now, what happened, its log, its curves, what was asked for."""

from __future__ import annotations

from typing import Any, cast, get_args

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from onward.jobs.states import TERMINAL_JOBS
from onward.server.cleaning import cleaned_at
from onward.server.console.forms import Sent, call_of, once
from onward.server.console.pages.jobs import progress_line, took, wishes
from onward.server.console.rendering import is_partial, language_of, render
from onward.server.console.telling import events_of, timeline
from onward.server.database.tables import Job, Move
from onward.server.jobs import acting, requests
from onward.server.jobs.acting import Action
from onward.server.jobs.writing import as_curl, as_toml
from onward.server.problems import NotFound

_ATTEMPTS_READ = 5
_MOVES_SHOWN = 200

router = APIRouter(include_in_schema=False)


@router.get("/jobs/{job_id}")
def job(request: Request, job_id: str) -> HTMLResponse:
    """The page; its live part alone where htmx asks for it."""
    call, spoken = call_of(request), language_of(request)
    with call.database.read() as session:
        found = requests.find_job(session, job_id)
        attempts = requests.attempts_of(session, job_id)
        moves = list(
            session.scalars(
                select(Move).where(Move.job == job_id).order_by(Move.id.desc()).limit(_MOVES_SHOWN)
            )
        )
        children = list(
            session.scalars(select(Job).where(Job.parent == job_id).order_by(Job.created_at))
        )
        parent = session.get(Job, found.parent) if found.parent else None
    told = [
        (attempt, events_of(call.settings.attempts / attempt.id))
        for attempt in attempts[:_ATTEMPTS_READ]
    ]
    facts: dict[str, Any] = {
        "job": found, "attempts": attempts, "children": children, "parent": parent,
        "timeline": timeline(spoken, moves, told), "ended": found.state in TERMINAL_JOBS,
        "took": took, "progress_line": progress_line(spoken, found.progress),
        "share": share(found), "wishes": wishes(spoken), "actions": actions(found),
    }  # fmt: skip
    if is_partial(request):
        return render(request, "_job_live.html", **facts)
    return render(
        request,
        "job.html",
        toml=as_toml(found.spec),
        curl=as_curl(found.spec, str(request.base_url)),
        cleaned=cleaned_at(call.settings.attempts / attempts[0].id) if attempts else None,
        **facts,
    )


@router.post("/jobs/{job_id}/{action}")
def act(request: Request, job_id: str, action: str, sent: Sent) -> Response:
    """Pause, resume, stop or cancel, then the page again; retry and continue make a new job."""
    call = call_of(request, sent)
    call.need("write")
    if action not in get_args(Action):
        raise NotFound(f"a job cannot {action[:40]!r}")
    wanted = cast("Action", action)

    def effect(session: Session) -> Any:
        return {"id": acting.act(session, job_id, wanted, by=call.principal.name).id}

    answer = once(call, effect, action=f"job.{action}")
    return RedirectResponse(f"/jobs/{answer['id']}", 303)


def actions(job: Job) -> set[str]:
    """What can be asked of a job in this state."""
    if job.state in TERMINAL_JOBS:
        return {"continue", "retry"}
    found = {"stop", "cancel"}
    if job.state == "paused":
        found |= {"resume"}
    elif job.wanted == "run":
        found |= {"pause"}
    if job.wanted == "cancel":
        found = set()
    elif job.wanted == "stop":
        found = {"cancel"}
    return found


def share(job: Job) -> dict[str, int] | None:
    """Batches of the epoch that are done, where the script knows how many there are."""
    batch, batches = job.progress.get("batch"), job.progress.get("batches")
    if isinstance(batch, int) and isinstance(batches, int) and 0 <= batch <= batches and batches:
        return {"batch": batch, "batches": batches}
    return None
