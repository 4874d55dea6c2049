"""Routes of jobs: submitting, finding, and seeing them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse, Response

from onward.server.api.answers import json_answer
from onward.server.api.call import Caller
from onward.server.api.documents import (
    AttemptPage,
    JobDocument,
    JobPage,
    MovePage,
    attempt_document,
    job_document,
    move_document,
)
from onward.server.api.parameters import Cursor, JobId, Limit, Time, Word
from onward.server.jobs import listing, requests
from onward.server.jobs.submitting import prepared
from onward.server.spec import JobRequest

router = APIRouter(prefix="/api/v1/jobs", tags=["jobs"])

State = Literal["queued", "running", "backoff", "paused", "succeeded", "failed", "cancelled"]


@router.post("", status_code=201, response_model=JobDocument)
def submit(body: JobRequest, call: Caller) -> JSONResponse:
    """Submits a job. Its code is read now, and stored; what it names must exist."""
    call.need("write")
    again = call.answered()
    if again is not None:
        return again
    request = prepared(call.settings, call.database, body, by=call.principal.name)

    def effect(session: Any) -> Any:
        return job_document(requests.submit(session, request, by=call.principal.name))

    return call.once(effect, action="job.submit", status=201)


@router.get("", response_model=JobPage)
def listed(
    call: Caller,
    state: Annotated[list[State], Query(max_length=7, description="Any of these.")] = [],  # noqa: B006
    name: Annotated[Word, Query(description="What the name contains.")] = "",
    output: Annotated[Word, Query(description="A location; one that ends with * begins so.")] = "",
    created_by: Word = "",
    parent: Word = "",
    schedule: Word = "",
    since: Time = None,
    until: Time = None,
    order: Literal["newest", "oldest"] = "newest",
    limit: Limit = 50,
    cursor: Cursor = "",
) -> Response:
    """Jobs that fit all filters, by the time at which they were submitted."""
    call.need("read")
    wanted = listing.JobFilter(
        states=tuple(state), name=name, output=output, created_by=created_by, parent=parent,
        schedule=schedule, since=since, until=until, oldest_first=order == "oldest",
    )  # fmt: skip
    with call.database.read() as session:
        rows, following = listing.list_jobs(session, wanted, limit=limit, cursor=cursor)
        return json_answer({"items": [row._asdict() for row in rows], "next": following})


@router.get("/{job_id}", response_model=JobDocument)
def show(job_id: JobId, call: Caller) -> Response:
    """A job as it is."""
    call.need("read")
    with call.database.read() as session:
        return json_answer(job_document(requests.find_job(session, job_id)))


@router.get("/{job_id}/attempts", response_model=AttemptPage)
def attempts(job_id: JobId, call: Caller, limit: Limit = 50, cursor: Cursor = "") -> Response:
    """The tries at a job, the newest first."""
    call.need("read")
    with call.database.read() as session:
        requests.find_job(session, job_id)
        rows, following = listing.list_attempts(session, job_id, limit=limit, cursor=cursor)
        return json_answer({"items": [attempt_document(row) for row in rows], "next": following})


@router.get("/{job_id}/moves", response_model=MovePage)
def moves(job_id: JobId, call: Caller, limit: Limit = 50, cursor: Cursor = "") -> Response:
    """Every change of state of a job and its attempts, the oldest first, with who and why."""
    call.need("read")
    with call.database.read() as session:
        requests.find_job(session, job_id)
        rows, following = listing.list_moves(session, job_id, limit=limit, cursor=cursor)
        return json_answer({"items": [move_document(row) for row in rows], "next": following})
