"""Streams of a job: its log, its events, its metrics, itself; over all of its attempts.

A stream ends by an event `end` when there will be nothing more. Each message that has a place is
named by it, so that whoever comes back with `Last-Event-ID` goes on from there.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from anyio import CancelScope, CapacityLimiter
from anyio.to_thread import run_sync

from onward.engines.base import OUTCOME
from onward.errors import OnwardError
from onward.jobs.states import TERMINAL_ATTEMPTS
from onward.server.database import Database
from onward.server.database.tables import Attempt
from onward.server.jobs.watching import Glimpse, JobWatcher
from onward.server.logs import following
from onward.server.logs.finding import Place, find_place, place_after
from onward.server.logs.following import Followed
from onward.server.logs.messages import message, reader_of, start_of
from onward.server.problems import problem_of

_ID = re.compile(r"^([0-9]{1,9}):([0-9]{1,18})$")


class Streams:
    """Every stream of this process, and what they share."""

    def __init__(self, database: Database, attempts: Path) -> None:
        self.jobs = JobWatcher(database)
        self._database = database
        self._attempts = attempts
        self._limiter: CapacityLimiter | None = None
        self._followed: dict[tuple[str, Path], Followed] = {}
        self.open: set[CancelScope] = set()
        """Answers that are being streamed."""
        self.closed = False

    async def close(self) -> None:
        """Ends every stream. Clients may come back to the next server."""
        self.closed = True
        for scope in list(self.open):
            scope.cancel()

    async def follow(
        self, kind: str, job_id: str, *, attempt: int | None = None, offset: int = 0,
        tail: int | None = None, last_id: str = "",
    ) -> AsyncIterator[bytes]:  # fmt: skip
        """`log`, `events` or `metrics` of a job, from the newest attempt on, or of one attempt.

        `tail` begins with so many last lines. Raises `NotFound` before the first message.
        """
        number = attempt
        if (match := _ID.match(last_id)) is not None:
            number, offset, tail = int(match[1]), int(match[2]), None
        place = await self._find(job_id, number)
        return self._told(self._follow(kind, job_id, place, offset, tail, only=attempt is not None))

    async def _told(self, source: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        try:
            async for data in source:
                yield data
        except OnwardError as error:
            # The answer has begun: it can be told in no other way.
            yield message("problem", problem_of(error))
            yield message("end", {"state": None})

    async def _follow(
        self, kind: str, job_id: str, place: Place | None, offset: int, tail: int | None, *,
        only: bool,
    ) -> AsyncIterator[bytes]:  # fmt: skip
        seen: Glimpse | None = None
        while True:
            if place is not None:
                start = await self._run(start_of, kind, place.folder, offset, tail)
                async for data in self._file(kind, place, start):
                    yield data
                yield message("attempt-ended", {"attempt": place.number})
                if only:
                    break
            # The next attempt, or the end of the job.
            number = place.number if place is not None else 0
            while seen is None or not (seen.ended or seen.generation > number):
                changed = await self.jobs.changed_within(job_id, seen, following.HEARTBEAT_S)
                if changed is None:
                    yield following.HEARTBEAT
                seen = changed or seen
            if seen.generation <= number:
                break  # it has ended, and this was its last attempt
            place = await self._run(self._after, job_id, number)
            offset, tail, seen = 0, None, None if place is None else seen
        state = seen.state if seen is not None else None
        yield message("end", {"state": state})

    async def _file(self, kind: str, place: Place, start: int) -> AsyncIterator[bytes]:
        key = (kind, place.folder)
        followed = self._followed.get(key)
        if followed is None:
            followed = self._followed[key] = Followed(
                *reader_of(kind, place), self._shared_limiter(), ended=self._ended(place)
            )
        try:
            async for data in followed.follow(start):
                yield data
        finally:
            if not followed.followers and self._followed.get(key) is followed:
                del self._followed[key]

    def _ended(self, place: Place) -> Callable[[], bool]:
        # An agent writes its outcome last; of one that vanished the database knows.
        looks = 0

        def ended() -> bool:
            nonlocal looks
            if place.ended or (place.folder / OUTCOME).exists():
                return True
            looks += 1
            if looks % 10:
                return False
            with self._database.read() as session:
                found = session.get(Attempt, place.folder.name)
                return found is None or found.state in TERMINAL_ATTEMPTS

        return ended

    def _after(self, job_id: str, number: int) -> Place | None:
        with self._database.read() as session:
            return place_after(session, self._attempts, job_id, number)

    async def _find(self, job_id: str, number: int | None) -> Place | None:
        def find() -> Place | None:
            with self._database.read() as session:
                return find_place(session, self._attempts, job_id, number)

        found: Place | None = await self._run(find)
        return found

    async def _run(self, function: Callable[..., Any], *given: Any) -> Any:
        return await run_sync(function, *given, limiter=self._shared_limiter())

    def _shared_limiter(self) -> CapacityLimiter:
        # Few threads of their own: who follows must not take them from who asks.
        self._limiter = self._limiter or CapacityLimiter(4)
        return self._limiter
