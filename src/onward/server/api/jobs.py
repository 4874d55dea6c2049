"""Routes of jobs."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from onward.server.api.call import Caller
from onward.server.api.documents import JobDocument, job_document
from onward.server.jobs import requests
from onward.server.spec import JobRequest

router = APIRouter(prefix="/api/v1/jobs", tags=["jobs"])


@router.post("", status_code=201, response_model=JobDocument)
def submit(body: JobRequest, call: Caller) -> JSONResponse:
    """Submits a job."""
    call.need("write")

    def effect(session: Any) -> Any:
        return job_document(requests.submit(session, body, by=call.principal.name))

    return call.once(effect, action="job.submit", status=201)


@router.get("/{job_id}", response_model=JobDocument)
def show(job_id: str, call: Caller) -> Any:
    """A job as it is."""
    with call.database.read() as session:
        return job_document(requests.find_job(session, job_id))
