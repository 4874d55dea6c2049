"""Rows as documents of the API."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from onward.server.database.tables import Attempt, Job


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


class JobDocument(_Document):
    """A job as it is. Times are seconds since 1970."""

    id: str
    name: str
    state: str
    wanted: str
    version: int
    generation: int
    output: str
    spec: dict[str, Any]
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
    retried: dict[str, Any]
    fruitless: int
    committed: bool
    progress: dict[str, Any]


def job_document(job: Job) -> dict[str, Any]:
    return JobDocument.model_validate(job).model_dump(mode="json")


def attempt_document(attempt: Attempt) -> dict[str, Any]:
    return AttemptDocument.model_validate(attempt).model_dump(mode="json")
