"""Routes that ask something of jobs: to pause, to stop, to go on; of one, or of many at once."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from sqlalchemy.orm import Session

from onward.server.api.call import Call, Caller
from onward.server.api.documents import JobDocument, job_document
from onward.server.api.parameters import JobId
from onward.server.jobs.acting import Action, Result, act, act_on_many
from onward.server.jobs.going_on import Changes
from onward.server.problems import problem_of

router = APIRouter(prefix="/api/v1/jobs", tags=["jobs"])


class Bulk(BaseModel):
    """The same request to several jobs."""

    model_config = ConfigDict(extra="forbid")

    action: Action
    jobs: Annotated[
        list[Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,32}$")]],
        Field(min_length=1, max_length=500),
    ]


class BulkResult(BaseModel):
    """What came of it for one job: the job that it is now, or the new one; or a problem."""

    id: str
    job: JobDocument | None
    problem: dict[str, Any] | None


class BulkResults(BaseModel):
    """One result for each job, in the order in which they were named."""

    results: list[BulkResult]


@router.post("/bulk", response_model=BulkResults)
def bulk(body: Bulk, call: Caller) -> JSONResponse:
    """Asks the same of several jobs. One that cannot does not keep the others from it."""
    call.need("write")

    def effect(session: Session) -> Any:
        found = act_on_many(session, body.jobs, body.action, by=call.principal.name)
        return {"results": [_result(each) for each in found]}

    return call.once(effect, action=f"job.bulk.{body.action}")


@router.post("/{job_id}/pause", response_model=JobDocument)
def pause(job_id: JobId, call: Caller) -> JSONResponse:
    """Saves, and waits until somebody resumes it."""
    return _ask(call, job_id, "pause")


@router.post("/{job_id}/resume", response_model=JobDocument)
def resume(job_id: JobId, call: Caller) -> JSONResponse:
    """Queues a paused job again."""
    return _ask(call, job_id, "resume")


@router.post("/{job_id}/stop", response_model=JobDocument)
def stop(job_id: JobId, call: Caller) -> JSONResponse:
    """Saves, and ends the job; within its grace period, then by force."""
    return _ask(call, job_id, "stop")


@router.post("/{job_id}/cancel", response_model=JobDocument)
def cancel(job_id: JobId, call: Caller) -> JSONResponse:
    """Ends the job without another save. What was committed is pushed still."""
    return _ask(call, job_id, "cancel")


@router.post("/{job_id}/retry", status_code=201, response_model=JobDocument)
def retry_(job_id: JobId, call: Caller) -> JSONResponse:
    """A new job that does the same again. It answers the new job."""
    return _ask(call, job_id, "retry", status=201)


@router.post("/{job_id}/continue", status_code=201, response_model=JobDocument)
def go_on(job_id: JobId, call: Caller, body: Changes | None = None) -> JSONResponse:
    """A new job that goes on in the same output, with what is new. It answers the new job."""
    return _ask(call, job_id, "continue", status=201, changes=body)


def _ask(
    call: Call, job_id: str, action: Action, *, status: int = 200, changes: Changes | None = None
) -> JSONResponse:
    call.need("write")

    def effect(session: Session) -> Any:
        return job_document(act(session, job_id, action, by=call.principal.name, changes=changes))

    return call.once(effect, action=f"job.{action}", status=status)


def _result(result: Result) -> dict[str, Any]:
    return {
        "id": result.id,
        "job": job_document(result.job) if result.job is not None else None,
        "problem": problem_of(result.error) if result.error is not None else None,
    }
