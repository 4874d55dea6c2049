"""The two threads of schedules: one for the clock, one that looks at locations.

A store that does not answer holds up other watches, and never a tick. Nothing is remembered here:
a server that is started again goes on from the rows.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from pydantic import ValidationError
from sqlalchemy import or_, select
from sqlalchemy.exc import SQLAlchemyError

from onward.errors import OnwardError
from onward.server.database import Database
from onward.server.database.tables import Schedule
from onward.server.jobs import schedules
from onward.server.jobs.translation import data_of
from onward.server.names import now_s
from onward.server.scheduling.fingerprints import fingerprint
from onward.server.settings import Settings
from onward.server.spec import JobRequest
from onward.stores import Store

_log = logging.getLogger("onward.schedules")
_TICK_S = 1.0
_PAUSE_AFTER_FAILURE_S = 2.0

OpenAt = Callable[[str], Store]


class Clock:
    """`start` and `stop` its threads, or call `tick` and `look` yourself.

    `submitted` is called after a job was: the scheduler need not wait for its next look.
    """

    def __init__(
        self, settings: Settings, database: Database, open_at: OpenAt, *,
        submitted: Callable[[], None] = lambda: None, now: Callable[[], float] = now_s,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._database = database
        self._open_at = open_at
        self._submitted = submitted
        self._now = now
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        self._stopping.clear()
        pause_s = min(_TICK_S, self._settings.watch_every_s)
        for name, work in (("onward-clock", self.tick), ("onward-watch", self.look)):
            thread = threading.Thread(
                target=self._work, args=(work, pause_s), name=name, daemon=True
            )
            thread.start()
            self._threads.append(thread)

    def stop(self, timeout_s: float = 10.0) -> None:
        """Ends the threads; one that waits for a store is left alone, as it holds nothing."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(timeout_s)
        self._threads.clear()

    def tick(self) -> None:
        """Submits jobs of all cron schedules that are due."""
        now = self._now()
        due = select(Schedule.id).where(
            Schedule.kind == "cron", Schedule.enabled, Schedule.next_at <= now
        )
        for schedule_id in self._ids(due):
            self._decide(schedule_id, lambda session, id_: schedules.answer_tick(session, id_, now))

    def look(self) -> None:
        """Looks at the locations of all watches whose turn it is."""
        now = self._now()
        due = select(Schedule.id).where(
            Schedule.kind == "watch", Schedule.enabled,
            or_(
                Schedule.looked_at.is_(None),
                Schedule.looked_at <= now - self._settings.watch_every_s,
                Schedule.looked_at > now,  # the clock was set back
            ),
        )  # fmt: skip
        for schedule_id in self._ids(due):
            if self._stopping.is_set():
                return
            self._look_at(schedule_id)

    def _look_at(self, schedule_id: str) -> None:
        with self._database.read() as session:
            schedule = session.get(Schedule, schedule_id)
            if schedule is None:
                return
            spec = schedule.spec
        try:
            request = JobRequest.model_validate(spec)
            found = fingerprint(self._open_at, request.inputs[data_of(request)].location)
        except (OnwardError, ValidationError) as error:
            self._note(schedule_id, error)
            return
        self._decide(
            schedule_id,
            lambda session, id_: schedules.answer_listing(session, id_, found, self._now()),
        )

    def _decide(self, schedule_id: str, decision: Callable[..., object]) -> None:
        try:
            with self._database.write() as session:
                job = decision(session, schedule_id)
        except (OnwardError, ValidationError) as error:
            # Its spec is none any more, or its time zone is gone: told, and tried again.
            self._note(schedule_id, error)
            return
        if job is not None:
            self._submitted()

    def _note(self, schedule_id: str, error: Exception) -> None:
        with self._database.write() as session:
            schedules.note_problem(
                session, schedule_id, f"it could not be looked at: {error}", self._now()
            )

    def _ids(self, due: object) -> list[str]:
        with self._database.read() as session:
            return list(session.scalars(due))  # type: ignore[call-overload]

    def _work(self, work: Callable[[], None], pause_s: float) -> None:
        while not self._stopping.is_set():
            wait_s = pause_s
            try:
                work()
            except SQLAlchemyError:
                _log.exception("the database did not answer; trying again")
                wait_s = _PAUSE_AFTER_FAILURE_S
            except Exception:
                # A bug in what is done for one schedule must not end what is done for all others.
                _log.exception("a look at the schedules failed; trying again")
                wait_s = _PAUSE_AFTER_FAILURE_S
            self._stopping.wait(wait_s)
