"""One job as JSON, asked for by many: whoever asks while a query runs shares the next one.

Status is what programs ask most. Each answer comes from a query that began after it was asked for,
so that nobody is told less than they did themselves.
"""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any

import msgspec
from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from sqlalchemy import JSON, Text, bindparam, cast, select

from onward.server.database import Database
from onward.server.database.tables import Job

_IN_ONE_QUERY = 400
_ENCODER = msgspec.json.Encoder()


class JobGlances:
    """Documents of single jobs, as the API tells them."""

    def __init__(self, database: Database, columns: tuple[str, ...]) -> None:
        self._database = database
        self._columns = columns
        table = Job.__table__.c
        self._documents = {name for name in columns if isinstance(table[name].type, JSON)}
        # Documents as text: they are passed on as they are stored, not read and written again.
        self._statement = select(
            *(cast(table[n], Text).label(n) if n in self._documents else table[n] for n in columns)
        ).where(table.id.in_(bindparam("ids", expanding=True)))
        self._asked: dict[str, asyncio.Future[bytes | None]] = {}
        self._task: asyncio.Task[None] | None = None
        self._limiter: CapacityLimiter | None = None

    async def get(self, job_id: str) -> bytes | None:
        """The document; None if there is no such job."""
        future = self._asked.get(job_id)
        if future is None:
            future = self._asked[job_id] = asyncio.get_running_loop().create_future()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._answer())
        # Who goes away must not take the answer from others.
        return await asyncio.shield(future)

    async def _answer(self) -> None:
        self._limiter = self._limiter or CapacityLimiter(2)
        while self._asked:
            batch = dict(list(self._asked.items())[:_IN_ONE_QUERY])
            for job_id in batch:
                del self._asked[job_id]
            try:
                found = await run_sync(self._read, list(batch), limiter=self._limiter)
            except BaseException as error:
                for future in batch.values():
                    if not future.done():
                        future.set_exception(error)
                        future.exception()  # not everybody who asked may still be there
                if not isinstance(error, Exception):
                    raise
                continue
            for job_id, future in batch.items():
                if not future.done():
                    future.set_result(found.get(job_id))

    def _read(self, ids: list[str]) -> dict[str, bytes]:
        with self._database.engine.connect() as connection:
            rows = connection.execute(self._statement, {"ids": ids}).all()
        return {row.id: self._encoded(row) for row in rows}

    def _encoded(self, row: Any) -> bytes:
        document = dict(zip(self._columns, row, strict=True))
        for name in self._documents:
            document[name] = _passed_on(document[name])
        return _ENCODER.encode(document)


def _passed_on(text: str) -> Any:
    # Python's JSON may hold what JSON has not.
    if "NaN" in text or "Infinity" in text:
        return _finite(json.loads(text))
    return msgspec.Raw(text.encode())


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return value
