"""Freeing what attempts of jobs that ended long ago left on the disk: logs, metrics, copied code.

Nothing is freed by itself: an administrator says how old. What an attempt was asked to do, who had
it and how it ended stay in its folder, and all that the database knows of it stays there; outputs,
pinned code and working copies of outputs are not touched.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select

from onward.engines.base import AGENT, JOB, OUTCOME
from onward.engines.folder import is_held, write_document
from onward.engines.plain_files import read_document
from onward.errors import UsageError
from onward.jobs.states import TERMINAL_ATTEMPTS, TERMINAL_JOBS
from onward.server.database import open_database
from onward.server.database.migrating import migrate
from onward.server.database.tables import Attempt, Job
from onward.server.settings import Settings

CLEANED = "cleaned.json"
SHORTEST_S = 86_400.0
"""Whoever looks at a job the day after finds all of it."""

_STAY = frozenset({JOB, AGENT, OUTCOME, CLEANED})


@dataclass(frozen=True, slots=True)
class Cleaning:
    """Attempts whose folders were cleaned, the bytes that are free, and attempts left as they are
    with why, though old enough."""

    attempts: list[str]
    freed_bytes: int
    left: dict[str, str]


def clean(settings: Settings, older_than_s: float, *, now_s: float, dry_run: bool) -> Cleaning:
    """Cleans the folders of attempts of jobs that ended so long ago. A server may be using them.

    Dying anywhere leaves a folder that is half clean and says so; the next call goes on. Raises
    `UsageError` for less than a day, or where there is no server's database.
    """
    if not older_than_s >= SHORTEST_S:
        raise UsageError("what ended within a day is not cleaned", do="give 1d or more")
    cleaned, left, freed_bytes = [], {}, 0
    for attempt in _old_attempts(settings, now_s - older_than_s):
        folder = settings.attempts / attempt
        found = [path for path in _children(folder) if path.name not in _STAY]
        if not found:
            continue
        why = _why_not(folder)
        if why:
            left[attempt] = why
            continue
        freed_bytes += sum(map(_size_of, found))
        cleaned.append(attempt)
        if not dry_run:
            # First said, then done: a reader that finds no log also finds why.
            write_document(folder / CLEANED, {"at": now_s})
            for path in found:
                _remove(path)
    return Cleaning(cleaned, freed_bytes, left)


def cleaned_at(folder: Path) -> float | None:
    """When the folder of an attempt was cleaned; None if it was not."""
    at = (read_document(folder / CLEANED) or {}).get("at")
    return float(at) if isinstance(at, int | float) and not isinstance(at, bool) else None


def _old_attempts(settings: Settings, before_s: float) -> list[str]:
    if not settings.database and not (settings.folder / "onward.db").is_file():
        raise UsageError(
            f"there is no server in {settings.folder}", do="give its --folder and --database"
        )
    database = open_database(settings.database_url)
    try:
        migrate(database)
        statement = (
            select(Attempt.id)
            .join(Job, Job.id == Attempt.job)
            .where(
                Job.state.in_(sorted(TERMINAL_JOBS)),
                Job.ended_at < before_s,
                Attempt.state.in_(sorted(TERMINAL_ATTEMPTS)),
            )
            .order_by(Attempt.created_at, Attempt.id)
        )
        with database.read() as session:
            return list(session.scalars(statement))
    finally:
        database.close()


def _why_not(folder: Path) -> str:
    """What speaks against it, whatever the database says."""
    if is_held(folder):
        return "its agent lives still"
    if (read_document(folder / OUTCOME) or {}).get("lost"):
        return "it committed what was not pushed, and its log says what"
    return ""


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _size_of(path: Path) -> int:
    """Of what is really on the disk: holes in logs are none."""
    return sum(each.st_blocks * 512 for each in _entries(path))


def _entries(path: Path) -> Iterator[os.stat_result]:
    try:
        found = path.lstat()
        yield found
        if stat.S_ISDIR(found.st_mode):
            for child in path.iterdir():
                yield from _entries(child)
    except (FileNotFoundError, NotADirectoryError):
        return


def _remove(path: Path) -> None:
    """Scripts wrote there: no link is followed (`rmtree` refuses one in the place of a folder)."""
    try:
        if stat.S_ISDIR(path.lstat().st_mode):
            shutil.rmtree(path)
        else:
            path.unlink()
    except FileNotFoundError:
        return
