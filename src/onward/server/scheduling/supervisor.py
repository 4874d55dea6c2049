"""The scheduler's thread: looks at everything that is under way, and does what comes next.

It remembers nothing that it could not find again in the database and in attempt folders, so that it
may end between any two lines, and the next server goes on. What it is about to do is written down
before it is done; doing it twice changes nothing.
"""

from __future__ import annotations

import logging
import threading
import time

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from onward.engines import Engine
from onward.jobs.states import TERMINAL_ATTEMPTS
from onward.server.database import Database, Overtaken
from onward.server.database.tables import Attempt, Job
from onward.server.jobs.moves import move_job
from onward.server.names import now_s
from onward.server.scheduling.care import Care
from onward.server.scheduling.launching import check_user
from onward.server.scheduling.starting import start_queued
from onward.server.settings import Settings

BY = "scheduler"
_PAUSE_AFTER_FAILURE_S = 2.0
_COMPLAIN_EVERY_S = 60.0
_log = logging.getLogger("onward.scheduling")


class Supervisor:
    """One for each database. `start` and `stop` its thread, or call `tick` yourself."""

    def __init__(self, settings: Settings, database: Database, engine: Engine) -> None:
        self.settings = settings
        self.database = database
        self.engine = engine
        self._care = Care(settings, database, engine)
        self._stopping = threading.Event()
        self._woken = threading.Event()
        self._thread: threading.Thread | None = None
        self._complain_s: dict[str, float] = {}

    def start(self) -> None:
        """Raises `UsageError` where jobs cannot run as the user that was chosen for them."""
        check_user(self.settings)
        self._stopping.clear()
        self._thread = threading.Thread(target=self._work, name="onward-scheduler", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 30.0) -> None:
        """Ends the thread. Agents go on without a server."""
        self._stopping.set()
        self._woken.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def wake(self) -> None:
        """There is something to do: do not wait for the next tick."""
        self._woken.set()

    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def tick(self) -> None:
        """One look at everything."""
        self._requeue()
        for attempt in self._under_way():
            try:
                self._care.take(attempt)
            except Overtaken:
                continue  # somebody decided meanwhile: the next look sees what
            except SQLAlchemyError:
                raise
            except Exception:
                # What is wrong with one job must not keep all others waiting.
                if time.monotonic() >= self._complain_s.get(attempt, 0.0):
                    self._complain_s[attempt] = time.monotonic() + _COMPLAIN_EVERY_S
                    _log.exception("attempt %s could not be looked after; trying again", attempt)
        start_queued(self.settings, self.database, self.engine.name)

    def _work(self) -> None:
        while not self._stopping.is_set():
            pause_s = self.settings.tick_s
            try:
                self.tick()
            except SQLAlchemyError:
                _log.exception("the database did not answer; trying again")
                pause_s = _PAUSE_AFTER_FAILURE_S
            except Exception:
                _log.exception("a look at the jobs failed; trying again")
                pause_s = _PAUSE_AFTER_FAILURE_S
            self._woken.wait(pause_s)
            self._woken.clear()

    def _under_way(self) -> list[str]:
        with self.database.read() as session:
            return list(
                session.scalars(
                    select(Attempt.id)
                    .where(Attempt.state.not_in(TERMINAL_ATTEMPTS))
                    .order_by(Attempt.created_at)
                )
            )

    def _requeue(self) -> None:
        """Jobs whose backoff is over wait for a slot again."""
        due = select(Job).where(Job.state == "backoff", Job.run_at <= now_s())
        with self.database.read() as session:
            jobs = list(session.scalars(due.limit(1000)))
        for job in jobs:
            try:
                with self.database.write() as session:
                    move_job(session, job, "queued", by=BY, reason="its time has come", run_at=None)
            except Overtaken:
                continue
