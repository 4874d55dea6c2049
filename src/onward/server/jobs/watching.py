"""Waiting for jobs to change, by many at once, for one small query now and then."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from sqlalchemy import select

from onward.jobs.states import TERMINAL_JOBS
from onward.server.database import Database
from onward.server.database.tables import Job

LOOK_EVERY_S = 0.2
_IN_ONE_QUERY = 400


@dataclass(frozen=True, slots=True)
class Glimpse:
    """A job at one moment."""

    version: int
    state: str
    generation: int
    updated_at: float

    @property
    def ended(self) -> bool:
        return self.state in TERMINAL_JOBS


@dataclass(slots=True)
class _Watched:
    watchers: int = 0
    seen: Glimpse | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    failed: Exception | None = None


class JobWatcher:
    """Looks at the jobs that somebody waits for, and only at those."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._jobs: dict[str, _Watched] = {}
        self._task: asyncio.Task[None] | None = None
        self._limiter: CapacityLimiter | None = None

    async def changed(self, job_id: str, known: Glimpse | None) -> Glimpse:
        """The job as soon as it is not as `known`. Waits for as long as that takes."""
        watched = self._jobs.setdefault(job_id, _Watched())
        watched.watchers += 1
        try:
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._look())
            while watched.seen is None or watched.seen == known:
                if watched.failed is not None:
                    raise watched.failed
                await watched.changed.wait()
            return watched.seen
        finally:
            watched.watchers -= 1
            if not watched.watchers and self._jobs.get(job_id) is watched:
                del self._jobs[job_id]

    async def changed_within(
        self, job_id: str, known: Glimpse | None, timeout_s: float
    ) -> Glimpse | None:
        """The same, or None after that time."""
        try:
            return await asyncio.wait_for(self.changed(job_id, known), timeout_s)
        except TimeoutError:
            return None

    async def _look(self) -> None:
        try:
            await self._look_on()
        except Exception as error:
            # Who waits must hear of it, or would wait for good. The next one to wait looks again.
            waiting, self._jobs = self._jobs, {}
            for watched in waiting.values():
                watched.failed = error
                watched.changed.set()

    async def _look_on(self) -> None:
        self._limiter = self._limiter or CapacityLimiter(1)
        while self._jobs:
            for job_id, found in (
                await run_sync(self._glimpses, list(self._jobs), limiter=self._limiter)
            ).items():
                watched = self._jobs.get(job_id)
                if watched is not None and watched.seen != found:
                    watched.seen = found
                    watched.changed, changed = asyncio.Event(), watched.changed
                    changed.set()
            await asyncio.sleep(LOOK_EVERY_S)

    def _glimpses(self, ids: list[str]) -> dict[str, Glimpse]:
        found: dict[str, Glimpse] = {}
        with self._database.read() as session:
            for start in range(0, len(ids), _IN_ONE_QUERY):
                rows = session.execute(
                    select(Job.id, Job.version, Job.state, Job.generation, Job.updated_at).where(
                        Job.id.in_(ids[start : start + _IN_ONE_QUERY])
                    )
                )
                found.update((row.id, Glimpse(*row[1:])) for row in rows)
        return found
