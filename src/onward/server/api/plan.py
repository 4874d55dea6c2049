"""The route of plans: what a job would do."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel

from onward.server.api.call import Caller
from onward.server.planning import plan
from onward.server.spec import JobRequest

router = APIRouter(prefix="/api/v1/plan", tags=["jobs"])


# Written again, beside the classes that `Plan.document` is made of (`jobs/plan.py`): those need
# NumPy, and a server starts without. A test holds the two to each other.


class DifferenceDocument(BaseModel):
    """How the data differs from what the checkpoint that is gone on from has learned."""

    unit: str
    """`items`, or `files` where only those could be compared."""
    added: int
    changed: int
    removed: int
    known: int
    unsure: int
    """Files under a known name and size that only fetching tells about."""
    held_out: int
    new_bytes: int
    names: dict[str, list[str]]
    """The first few of what is added, changed and removed."""


class DataFactsDocument(BaseModel):
    """Data as it is now; `new` is null where only fetching or reading it would tell."""

    url: str
    path: str
    items: int
    size_bytes: int
    fetch_items: int
    fetch_bytes: int
    new: bool | None
    difference: DifferenceDocument | None


class TrainingDocument(BaseModel):
    """How much would be trained; null is what nobody can tell before."""

    items: int | None
    epoch: int | None
    """Batches of an epoch."""
    batches: int | None
    seconds: float | None
    budget: str
    exact: bool
    rest: bool
    """Whether it is what an unfinished increment has left."""


class PlanFacts(BaseModel):
    """As `onward run --dry-run --json` says."""

    exit_code: int
    output: str
    verb: str
    why: str
    increment: int
    checkpoint: dict[str, Any] | None
    origin: dict[str, str] | None
    rejected: list[dict[str, Any]]
    unpushed: list[str]
    tensors: int
    restore_bytes: int
    fetch_bytes: int
    free_bytes: int | None
    fits: bool
    files: dict[str, Any] | None
    data: DataFactsDocument | None
    inputs: dict[str, DataFactsDocument]
    batches: dict[str, int]
    training: TrainingDocument | None
    nothing_new: str | None
    command: list[str]


class PlanDocument(BaseModel):
    """What would happen, or the problem that the job would have; and the same job otherwise."""

    plan: PlanFacts | None
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
