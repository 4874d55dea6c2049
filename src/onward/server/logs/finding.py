"""Which attempt of a job somebody means, and where its folder is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from onward.jobs.states import TERMINAL_ATTEMPTS
from onward.server.database.tables import Attempt
from onward.server.jobs.requests import find_job
from onward.server.problems import NotFound


@dataclass(frozen=True, slots=True)
class Place:
    """An attempt's folder. `ended`: nothing is written there any more."""

    number: int
    folder: Path
    ended: bool


def find_place(
    session: Session, attempts: Path, job_id: str, number: int | None = None
) -> Place | None:
    """The attempt with this number, by default the newest; None where there was none yet.

    Raises `NotFound` for a job, or a number, that there is not.
    """
    statement = select(Attempt.id, Attempt.number, Attempt.state).where(Attempt.job == job_id)
    if number is not None:
        statement = statement.where(Attempt.number == number)
    found = session.execute(statement.order_by(Attempt.number.desc()).limit(1)).first()
    if found is not None:
        return _place(attempts, *found)
    find_job(session, job_id)
    if number is not None:
        raise NotFound(f"job {job_id} has no attempt {number}")
    return None


def place_after(session: Session, attempts: Path, job_id: str, number: int) -> Place | None:
    """The attempt that came after this one."""
    found = session.execute(
        select(Attempt.id, Attempt.number, Attempt.state)
        .where(Attempt.job == job_id, Attempt.number > number)
        .order_by(Attempt.number)
        .limit(1)
    ).first()
    return _place(attempts, *found) if found is not None else None


def all_places(session: Session, attempts: Path, job_id: str) -> list[Place]:
    """Every attempt, the first one first. Raises `NotFound`."""
    statement = select(Attempt.id, Attempt.number, Attempt.state).where(Attempt.job == job_id)
    found = session.execute(statement.order_by(Attempt.number)).all()
    if not found:
        find_job(session, job_id)
    return [_place(attempts, *row) for row in found]


def _place(attempts: Path, id_: str, number: int, state: str) -> Place:
    return Place(number, attempts / id_, state in TERMINAL_ATTEMPTS)
