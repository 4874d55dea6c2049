"""Finding jobs: by filters, a page at a time, always in the order in which they were submitted."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Row, and_, or_, select
from sqlalchemy.orm import Session

from onward.errors import UsageError
from onward.server.database.tables import Attempt, Job, Move

LARGEST_PAGE = 500

T = TypeVar("T")

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
    statement = select(*_SHOWN).where(*_conditions(wanted))
    if wanted.oldest_first:
        statement = statement.order_by(Job.created_at, Job.id)
    else:
        statement = statement.order_by(Job.created_at.desc(), Job.id.desc())
    if cursor:
        time, last = read_cursor(cursor, float, str)
        # A bound on the first column alone lets the index find the place.
        if wanted.oldest_first:
            beyond = and_(Job.created_at >= time, or_(Job.created_at > time, Job.id > last))
        else:
            beyond = and_(Job.created_at <= time, or_(Job.created_at < time, Job.id < last))
        statement = statement.where(beyond)
    rows = session.execute(statement.limit(limit + 1)).all()
    return _page(rows, limit, lambda row: (row.created_at, row.id))


def list_attempts(
    session: Session, job_id: str, *, limit: int, cursor: str = ""
) -> tuple[Sequence[Attempt], str | None]:
    """The newest first."""
    statement = select(Attempt).where(Attempt.job == job_id)
    if cursor:
        (before,) = read_cursor(cursor, int)
        statement = statement.where(Attempt.number < before)
    rows = session.scalars(statement.order_by(Attempt.number.desc()).limit(limit + 1)).all()
    return _page(rows, limit, lambda attempt: (attempt.number,))


def list_moves(
    session: Session, job_id: str, *, limit: int, cursor: str = ""
) -> tuple[Sequence[Move], str | None]:
    """The oldest first: a story."""
    statement = select(Move).where(Move.job == job_id)
    if cursor:
        (after,) = read_cursor(cursor, int)
        statement = statement.where(Move.id > after)
    rows = session.scalars(statement.order_by(Move.id).limit(limit + 1)).all()
    return _page(rows, limit, lambda move: (move.id,))


def write_cursor(*values: float | int | str) -> str:
    """Values as text that means nothing to anybody else."""
    text = "\n".join(repr(v) if isinstance(v, float) else str(v) for v in values)
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def read_cursor(cursor: str, *kinds: type) -> tuple[Any, ...]:
    """The values again. Raises `UsageError` for a text that is no cursor of these kinds."""
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        parts = text.split("\n")
        found = tuple(kind(part) for kind, part in zip(kinds, parts, strict=True))
        if (
            write_cursor(*found) != cursor
            or "\0" in text
            or any(isinstance(value, int) and abs(value) >= 2**63 for value in found)
        ):
            raise ValueError(cursor)
        return found
    except (ValueError, binascii.Error) as error:
        raise UsageError(
            "the cursor is none that this list gave",
            do="use `next` of the page before, with the same filters, or leave it away",
        ) from error


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


def _page(rows: Sequence[T], limit: int, place: Any) -> tuple[Sequence[T], str | None]:
    if len(rows) <= limit:
        return rows, None
    return rows[:limit], write_cursor(*place(rows[limit - 1]))
