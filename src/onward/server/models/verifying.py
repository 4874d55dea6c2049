"""Reading every byte of a checkpoint, which may take hours: asked for, done by a thread, shown.

The wish is a row before anything is read. A server that dies leaves it `running`, and the next one
reads again: looking changes nothing, so that twice is the same as once.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from onward.errors import OnwardError, Unreachable
from onward.facts.damage import PROGRESS
from onward.facts.outputs import find
from onward.server.database import Database
from onward.server.database.tables import Verification
from onward.server.models.catalog import find_model
from onward.server.models.outputs import ask_about, opened
from onward.server.names import new_id, now_s
from onward.server.problems import NotFound, TooMany, problem_of
from onward.server.settings import Settings

UNDER_WAY = ("waiting", "running")
_LOOK_EVERY_S = 0.5
_NOTE_EVERY_S = 1.0
_LONGEST_S = 7 * 86400.0
_SILENCE_S = 3600.0
"""Nothing new was read for so long: the store does not answer. Putting together what was read may
take minutes, too."""
_PAUSE_AFTER_FAILURE_S = 5.0

_log = logging.getLogger(__name__)


def checkpoint_of(settings: Settings, database: Database, model: str, name: str) -> tuple[str, str]:
    """The id of the checkpoint that a name means, and its output. Raises `UnknownCheckpoint`."""
    with database.read() as session:
        location = find_model(session, model).location
    with opened(settings, database, location) as repository:
        return find(repository.history, name).checkpoint, location


def ask(session: Session, model: str, checkpoint: str, *, by: str) -> Verification:
    """Asks for a checkpoint to be read. The one that is under way, if there is one."""
    of_this = (Verification.model == model, Verification.checkpoint == checkpoint)
    present = session.scalar(
        select(Verification)
        .where(*of_this, Verification.state.in_(UNDER_WAY))
        .order_by(Verification.created_at)
        .limit(1)
    )
    if present is not None:
        return present
    session.execute(delete(Verification).where(*of_this))
    row = Verification(
        id=new_id("ver"), model=model, checkpoint=checkpoint, state="waiting", created_at=now_s(),
        created_by=by, started_at=None, ended_at=None, read_bytes=0, all_bytes=0, findings={},
        problem={},
    )  # fmt: skip
    session.add(row)
    session.flush()
    return row


def find_verification(session: Session, model: str, id_: str) -> Verification:
    """Raises `NotFound`, also for one whose place a newer one took."""
    row = session.get(Verification, id_)
    if row is None or row.model != model:
        raise NotFound(
            f"there is no verification {id_!r} of this model",
            why="the newest of each checkpoint is kept",
            do="ask for a new one",
        )
    return row


def newest_of(session: Session, model: str, checkpoint: str) -> Verification | None:
    """Of one checkpoint, by its id."""
    return session.scalar(
        select(Verification)
        .where(Verification.model == model, Verification.checkpoint == checkpoint)
        .order_by(Verification.created_at.desc())
        .limit(1)
    )


def document(row: Verification) -> dict[str, Any]:
    """As plain JSON values."""
    return {
        "id": row.id, "model": row.model, "checkpoint": row.checkpoint, "state": row.state,
        "created_at": row.created_at, "created_by": row.created_by, "started_at": row.started_at,
        "ended_at": row.ended_at, "read_bytes": row.read_bytes, "all_bytes": row.all_bytes,
        "findings": row.findings or None, "problem": row.problem or None,
    }  # fmt: skip


class Verifier:
    """Reads one checkpoint at a time. `start` and `stop` its thread, or call `read_next`."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="onward-verifier", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Breaks off what is read; the next server reads it again."""
        self._stopping.set()
        self._thread.join(5.0)

    def read_next(self) -> bool:
        """Reads the checkpoint that waits longest; False if none waits."""
        waiting = (
            select(Verification)
            .where(Verification.state.in_(UNDER_WAY))
            .order_by(Verification.created_at, Verification.id)
            .limit(1)
        )
        with self._database.read() as session:
            row = session.scalar(waiting)
        if row is None:
            return False
        self._note(row.id, state="running", started_at=now_s(), read_bytes=0, all_bytes=0)
        try:
            findings = self._findings(row)
        except (_Stopped, TooMany):
            return False  # it stays as it is
        except OnwardError as error:
            self._note(row.id, state="failed", ended_at=now_s(), problem=problem_of(error))
        else:
            self._note(
                row.id, state="ended", ended_at=now_s(), findings=findings,
                read_bytes=findings["bytes_read"], all_bytes=findings["bytes_read"],
            )  # fmt: skip
        return True

    def _findings(self, row: Verification) -> dict[str, Any]:
        with self._database.read() as session:
            location = find_model(session, row.model).location
        answer: dict[str, Any] = ask_about(
            self._settings, self._database, location, "damage_in_every_byte",
            checkpoint=row.checkpoint, timeout_s=_LONGEST_S,
            watch=_Watch(self._stopping, partial(self._note, row.id)),
        )  # fmt: skip
        return {**answer, "output": location}

    def _note(self, id_: str, **values: Any) -> None:
        with self._database.write() as session:
            session.execute(
                update(Verification)
                .where(Verification.id == id_, Verification.state.in_(UNDER_WAY))
                .values(**values)
            )

    def _run(self) -> None:
        while not self._stopping.is_set():
            wait_s = _LOOK_EVERY_S
            try:
                if self.read_next():
                    wait_s = 0.0
            except (OnwardError, SQLAlchemyError, OSError) as error:
                _log.warning("a checkpoint could not be verified; trying again: %s", error)
                wait_s = _PAUSE_AFTER_FAILURE_S
            self._stopping.wait(wait_s)


class _Stopped(Exception):
    """The server ends."""


class _Watch:
    """Follows a child that reads; notes how far it is, and raises where it should end."""

    def __init__(self, stopping: threading.Event, note: Callable[..., None]) -> None:
        self._stopping = stopping
        self._note = note
        self._read_bytes = -1
        self._heard_s = self._noted_s = time.monotonic()

    def __call__(self, folder: Path) -> None:
        if self._stopping.is_set():
            raise _Stopped
        now_s = time.monotonic()
        try:
            told = json.loads((folder / PROGRESS).read_text())
        except FileNotFoundError:
            told = {"read_bytes": -1}
        if told["read_bytes"] != self._read_bytes:
            self._heard_s = now_s
            if self._read_bytes < 0 or now_s >= self._noted_s + _NOTE_EVERY_S:
                self._read_bytes, self._noted_s = told["read_bytes"], now_s
                self._note(read_bytes=told["read_bytes"], all_bytes=told["all_bytes"])
        elif now_s > self._heard_s + _SILENCE_S:
            raise Unreachable(
                f"nothing could be read for {_SILENCE_S:g} seconds",
                why="the store answers no more, or very slowly", do="ask again later",
            )  # fmt: skip
