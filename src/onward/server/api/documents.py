"""Rows as documents of the API."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from onward.server.database.tables import Attempt, Job, Move


class _Document(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class AttemptDocument(_Document):
    """One try at a job. Times are seconds since 1970."""

    id: str
    job: str
    number: int
    state: str
    engine: str
    host: str
    pid: int
    created_at: float
    leased_at: float | None
    running_at: float | None
    ended_at: float | None
    asked: str
    asked_why: str
    exit_status: int | None
    cause: str
    reason: str
    verb: str
    checkpoint: str
    step: int | None
    saves: int
    outcome: dict[str, Any]


class JobSummary(_Document):
    """A job in a list: all but what was asked for. Times are seconds since 1970."""

    id: str
    name: str
    state: str
    wanted: str
    version: int
    generation: int
    output: str
    created_at: float
    created_by: str
    updated_at: float
    started_at: float | None
    ended_at: float | None
    run_at: float | None
    cause: str
    reason: str
    parent: str | None
    schedule: str | None
    progress: dict[str, Any]


class JobDocument(JobSummary):
    """A job as it is. Times are seconds since 1970."""

    spec: dict[str, Any]
    retried: dict[str, Any]
    fruitless: int
    committed: bool


class MoveDocument(_Document):
    """A change of state of a job, or of one of its attempts."""

    id: int
    at: float
    job: str
    attempt: str | None
    before: str
    after: str
    by: str
    reason: str


class JobPage(BaseModel):
    """A page of jobs. `next` is the cursor of the following page; null on the last one."""

    items: list[JobSummary]
    next: str | None


class AttemptPage(BaseModel):
    """A page of attempts, the newest first."""

    items: list[AttemptDocument]
    next: str | None


class MovePage(BaseModel):
    """A page of moves, the oldest first."""

    items: list[MoveDocument]
    next: str | None


JOB_COLUMNS = tuple(JobDocument.model_fields)
_ATTEMPT = tuple(AttemptDocument.model_fields)
_MOVE = tuple(MoveDocument.model_fields)


# Rows hold plain values of these types already: reading them again as models would cost more than
# the request does otherwise.


def job_document(job: Job) -> dict[str, Any]:
    return {name: getattr(job, name) for name in JOB_COLUMNS}


def attempt_document(attempt: Attempt) -> dict[str, Any]:
    return {name: getattr(attempt, name) for name in _ATTEMPT}


def move_document(move: Move) -> dict[str, Any]:
    return {name: getattr(move, name) for name in _MOVE}
