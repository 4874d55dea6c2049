"""What is done for one attempt that is under way, from its creation to its end."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from sqlalchemy import select

from onward.engines import Engine, Sighting
from onward.errors import JobError, OnwardError
from onward.server.database import Database
from onward.server.database.tables import Attempt, Job
from onward.server.jobs.moves import (
    move_attempt,
    move_job,
    tell_attempt,
    tell_job,
    touch_attempt,
)
from onward.server.names import now_s
from onward.server.scheduling.endings import Ending, ended, turn, vanished
from onward.server.scheduling.events import News, read_news
from onward.server.scheduling.launching import LAST_PUSH_S, places_of, prepare
from onward.server.scheduling.wishes import wish_for
from onward.server.settings import Settings
from onward.server.spec import JobRequest

BY = "scheduler"
_START_AGAIN_S = 10.0
_NOBODY_CAME_S = 120.0
_SLACK_S = 30.0
_SILENT_S = 120.0
_TELL_EVERY_S = 1.0
_log = logging.getLogger("onward.scheduling")


class Care:
    """Looks at an attempt and does the next thing for it. All times in here may be forgotten."""

    def __init__(self, settings: Settings, database: Database, engine: Engine) -> None:
        self._settings = settings
        self._database = database
        self._engine = engine
        self._started_s: dict[str, float] = {}
        self._told_s: dict[str, float] = {}
        self._leftover_s: dict[str, float] = {}
        self._alive: dict[str, tuple[float, float]] = {}

    def take(self, attempt_id: str) -> None:
        """Raises `Overtaken` where somebody decides at the same time: look again."""
        with self._database.read() as session:
            attempt = session.get(Attempt, attempt_id)
            job = session.get(Job, attempt.job) if attempt is not None else None
        if attempt is None or job is None:
            return
        if attempt.state == "created":
            if job.wanted != "run":
                self._conclude(job, attempt, Ending("lost", "", "it was not started"), None)
                return
            with self._database.write() as session:
                move_attempt(session, attempt, "leased", by=BY)
        sighting = self._engine.look(self._folder(attempt))
        match sighting.state:
            case "absent":
                self._absent(job, attempt)
            case "running":
                self._running(job, attempt, sighting)
            case "ended":
                self._ended(job, attempt, sighting)
            case "gone":
                self._gone(job, attempt, sighting)

    # Nobody has it yet.

    def _absent(self, job: Job, attempt: Attempt) -> None:
        folder = self._folder(attempt)
        if job.wanted != "run":
            self._engine.destroy(folder)  # whoever comes late finds it taken
            return
        now = time.monotonic()
        if now < self._started_s.get(attempt.id, -_START_AGAIN_S) + _START_AGAIN_S:
            return
        if attempt.leased_at is not None and now_s() > attempt.leased_at + _NOBODY_CAME_S:
            self._engine.destroy(folder)
            return
        try:
            with self._database.read() as session:
                places = places_of(session, JobRequest.model_validate(job.spec))
            self._engine.start(prepare(self._settings, job, attempt, places))
            self._started_s[attempt.id] = now
        except (OnwardError, OSError, ValidationError) as error:
            if folder.is_dir():
                # A start before this one may have brought an agent after all.
                self._engine.destroy(folder)
                if self._engine.look(folder).pid:
                    return
            again = isinstance(error, (JobError, OSError))
            ending = Ending("lost", "infrastructure", f"it could not be started: {_line(error)}")
            self._conclude(job, attempt, replace(ending, can_retry=again), None)

    # Its agent lives.

    def _running(self, job: Job, attempt: Attempt, sighting: Sighting) -> None:
        if attempt.state == "leased":
            with self._database.write() as session:
                self._seen(session, attempt, sighting)
        self._tell(job, attempt, sighting)
        wish = wish_for(job, attempt, heard_at=sighting.heard_at, now_s=now_s())
        if wish is not None:
            with self._database.write() as session:
                stronger = wish.what != attempt.asked
                touch_attempt(
                    session, attempt, asked=wish.what, asked_why=wish.why,
                    asked_at=now_s() if stronger else attempt.asked_at,
                )  # fmt: skip
        if attempt.asked:
            self._engine.ask(self._folder(attempt), attempt.asked)
            request = JobRequest.model_validate(job.spec)
            grace_s = request.grace_s if attempt.asked == "stop" else 0.0
            if now_s() > (attempt.asked_at or 0.0) + grace_s + LAST_PUSH_S + _SLACK_S:
                self._engine.destroy(self._folder(attempt))
        if self._is_silent(attempt, sighting):
            _log.warning("the agent of %s does not react: it is ended", attempt.id)
            self._engine.destroy(self._folder(attempt))

    def _is_silent(self, attempt: Attempt, sighting: Sighting) -> bool:
        """Whether its agent has shown no life for long, while this machine was awake."""
        now = time.monotonic()
        seen, since_s = self._alive.get(attempt.id, (-1.0, now))
        if seen != sighting.alive_at:
            self._alive[attempt.id] = (sighting.alive_at, now)
            return False
        return now > since_s + _SILENT_S

    def _tell(self, job: Job, attempt: Attempt, sighting: Sighting) -> None:
        now = time.monotonic()
        if now < self._told_s.get(attempt.id, 0.0) + _TELL_EVERY_S:
            return
        news = read_news(self._folder(attempt), attempt.offset)
        if not news and news.offset == attempt.offset and sighting.heard_at == attempt.heard_at:
            return
        self._told_s[attempt.id] = now
        with self._database.write() as session:
            self._write_news(session, job, attempt, news, heard_at=sighting.heard_at)

    def _write_news(
        self, session: Any, job: Job, attempt: Attempt, news: News, *, heard_at: float
    ) -> None:
        facts = {**news.attempt, "offset": news.offset, "saves": attempt.saves + news.saves}
        if heard_at:
            facts["heard_at"] = heard_at
        tell_attempt(session, attempt.id, **facts)
        for name, value in facts.items():
            setattr(attempt, name, value)
        if news:
            progress = {**job.progress, **news.progress}
            if news.claims:
                progress["claims"] = [*job.progress.get("claims", []), *news.claims]
            told = {"progress": progress, "committed": job.committed or news.saves > 0}
            tell_job(session, job.id, **told)
            for name, value in told.items():
                setattr(job, name, value)

    def _seen(self, session: Any, attempt: Attempt, sighting: Sighting) -> None:
        move_attempt(session, attempt, "running", by=BY, host=sighting.host, pid=sighting.pid)

    # It has ended.

    def _ended(self, job: Job, attempt: Attempt, sighting: Sighting) -> None:
        self._read_rest(job, attempt)
        self._conclude(job, attempt, ended(attempt, sighting.outcome or {}), sighting)

    def _gone(self, job: Job, attempt: Attempt, sighting: Sighting) -> None:
        if sighting.leftover:
            now = time.monotonic()
            since_s = self._leftover_s.setdefault(attempt.id, now)
            grace_s = JobRequest.model_validate(job.spec).grace_s
            if job.wanted == "cancel" or now > since_s + grace_s:
                self._engine.destroy(self._folder(attempt))
            return
        self._read_rest(job, attempt)
        reason = "its agent is gone without an outcome"
        if not sighting.pid:
            reason = "no agent came for it" if job.wanted == "run" else "it was not started"
        self._conclude(job, attempt, vanished(attempt, reason), sighting)

    def _read_rest(self, job: Job, attempt: Attempt) -> None:
        while True:
            news = read_news(self._folder(attempt), attempt.offset)
            if news.offset == attempt.offset:
                return
            with self._database.write() as session:
                self._write_news(session, job, attempt, news, heard_at=0.0)

    def _conclude(
        self, job: Job, attempt: Attempt, ending: Ending, sighting: Sighting | None
    ) -> None:
        """The end of the attempt and what it means for the job, in one transaction."""
        with self._database.write() as session:
            # As it is now: a wish that came meanwhile counts.
            job = session.get_one(Job, job.id, with_for_update=True)
            earlier = list(
                session.scalars(
                    select(Attempt)
                    .where(Attempt.job == job.id, Attempt.number < attempt.number)
                    .order_by(Attempt.number.desc())
                    .limit(10)
                )
            )
            if attempt.state == "leased" and sighting is not None and sighting.pid:
                self._seen(session, attempt, sighting)
            move_attempt(
                session, attempt, ending.state, by=BY, reason=ending.reason, cause=ending.cause,
                exit_status=ending.exit_status, saves=ending.saves,
                outcome={**ending.outcome, "lost": list(ending.lost)},
            )  # fmt: skip
            step = turn(job, attempt, ending, self._settings, now_s=now_s(), earlier=earlier)
            move_job(session, job, step.state, by=BY, reason=step.reason, **step.facts)
        for memory in (self._started_s, self._told_s, self._leftover_s, self._alive):
            memory.pop(attempt.id, None)

    def _folder(self, attempt: Attempt) -> Path:
        return self._settings.attempts / attempt.id


def _line(error: BaseException) -> str:
    if isinstance(error, ValidationError):
        return "this version of the server cannot read what was asked for; submit it again"
    if isinstance(error, OnwardError):
        return error.sentence()
    return f"{type(error).__name__}: {error}"
