"""The route of plans: what a job would do."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel

from onward.server.api.call import Caller
from onward.server.planning import plan
from onward.server.spec import JobRequest

router = APIRouter(prefix="/api/v1/plan", tags=["jobs"])


class PlanDocument(BaseModel):
    """What would happen, or the problem that the job would have; and the same job otherwise."""

    plan: dict[str, Any] | None
    """As `onward run --dry-run --json` says."""
    problem: dict[str, Any] | None
    budget: str
    predownload: str
    request: dict[str, Any]
    """The job with every location as it would be stored."""
    command: str
    submit: str
    toml: str
    curl: str


@router.post("", response_model=PlanDocument)
def make(body: JobRequest, call: Caller, request: Request) -> Any:
    """Says what this job would do. Changes nothing, so that it may be asked at every keystroke."""
    call.need("write")
    address = f"{request.url.scheme}://{request.url.netloc}"
    return plan(call.settings, call.database, body, address=address)
