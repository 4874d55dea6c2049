"""Finding jobs: by filters, a page at a time, always in the order in which they were submitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Row, or_, select
from sqlalchemy.orm import Session

from onward.server.database.tables import Attempt, Job, Move
from onward.server.paging import Order

_SHOWN = (
    Job.id, Job.name, Job.state, Job.wanted, Job.version, Job.generation, Job.output,
    Job.created_at, Job.created_by, Job.updated_at, Job.started_at, Job.ended_at, Job.run_at,
    Job.cause, Job.reason, Job.parent, Job.schedule, Job.progress,
)  # fmt: skip
"""All of a job but what was asked for, which is long and does not change."""


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs; what is empty decides nothing. `text` is in the name or the output, or is the id.
    `output` is a location, or the beginning of one that ends with `*`. `since` and `until` are
    about when they were submitted."""

    states: tuple[str, ...] = ()
    text: str = ""
    name: str = ""
    output: str = ""
    created_by: str = ""
    parent: str = ""
    schedule: str = ""
    since: float | None = None
    until: float | None = None
    oldest_first: bool = False


def list_jobs(
    session: Session, wanted: JobFilter, *, limit: int, cursor: str = ""
) -> tuple[Sequence[Row[Any]], str | None]:
    """A page of rows with the columns of a summary, and where the next page begins.

    Raises `UsageError` for a cursor that this list never gave.
    """
    order = Order(Job.created_at, Job.id, falling=not wanted.oldest_first)
    statement = select(*_SHOWN).where(*_conditions(wanted))
    return order.page(session.execute, statement, limit=limit, cursor=cursor)


def list_attempts(
    session: Session, job_id: str, *, limit: int, cursor: str = ""
) -> tuple[Sequence[Attempt], str | None]:
    """The newest first."""
    statement = select(Attempt).where(Attempt.job == job_id)
    order = Order(Attempt.number, falling=True)
    return order.page(session.scalars, statement, limit=limit, cursor=cursor)


def list_moves(
    session: Session, job_id: str, *, limit: int, cursor: str = ""
) -> tuple[Sequence[Move], str | None]:
    """The oldest first: a story."""
    statement = select(Move).where(Move.job == job_id)
    return Order(Move.id).page(session.scalars, statement, limit=limit, cursor=cursor)


def _conditions(wanted: JobFilter) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if wanted.states:
        found.append(Job.state.in_(wanted.states))
    if wanted.text:
        found.append(
            or_(
                Job.name.icontains(wanted.text, autoescape=True),
                Job.output.icontains(wanted.text, autoescape=True),
                Job.id == wanted.text,
            )
        )
    if wanted.name:
        found.append(Job.name.icontains(wanted.name, autoescape=True))
    if wanted.output.endswith("*"):
        found.append(Job.output.startswith(wanted.output[:-1], autoescape=True))
    elif wanted.output:
        found.append(Job.output == wanted.output)
    for column, value in (
        (Job.created_by, wanted.created_by), (Job.parent, wanted.parent),
        (Job.schedule, wanted.schedule),
    ):  # fmt: skip
        if value:
            found.append(column == value)
    if wanted.since is not None:
        found.append(Job.created_at >= wanted.since)
    if wanted.until is not None:
        found.append(Job.created_at < wanted.until)
    return found
