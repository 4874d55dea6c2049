"""Routes that tell what happens as it happens, by server-sent events; and that wait for a job."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated, Any, Literal

from anyio.to_thread import run_sync
from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response

from onward.server.api.answers import json_answer
from onward.server.api.call import Call, Caller
from onward.server.api.documents import JobDocument, job_document
from onward.server.api.event_stream import DOCUMENTED, EventStream
from onward.server.api.parameters import AttemptNumber, JobId, Place
from onward.server.jobs.requests import find_job
from onward.server.jobs.watching import Glimpse
from onward.server.logs import following
from onward.server.logs.messages import message
from onward.server.logs.streams import Streams

router = APIRouter(prefix="/api/v1/jobs/{job_id}", tags=["streams"])

LONGEST_WAIT_S = 60.0

LastId = Annotated[
    str, Header(alias="Last-Event-ID", max_length=40, description="Go on after this event.")
]
_SSE: dict[str, Any] = {
    "response_class": EventStream, "responses": DOCUMENTED, "status_code": 200,
}  # fmt: skip


@router.get("/wait", response_model=JobDocument)
async def wait(
    request: Request,
    job_id: JobId,
    call: Caller,
    until: Annotated[
        Literal["end", "change"], Query(description="`change`: of anything since `version`.")
    ] = "end",
    version: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
    timeout_s: Annotated[float, Query(ge=0, le=LONGEST_WAIT_S, allow_inf_nan=False)] = 30.0,
) -> Response:
    """The job as soon as it has ended or changed, or as it is after that time. A job that is paused
    counts as ended: nothing happens until somebody resumes it."""
    call.need("read")
    streams: Streams = request.app.state.streams
    document = await run_sync(_job, call, job_id)

    def is_due(version_: int, state: str, ended: bool) -> bool:
        return ended or state == "paused" if until == "end" else version_ != version

    async def changed() -> None:
        seen = None
        while seen is None or not is_due(seen.version, seen.state, seen.ended):
            seen = await streams.jobs.changed(job_id, seen)

    at_once = Glimpse(
        *(document[name] for name in ("version", "state", "generation", "updated_at"))
    )
    if not is_due(at_once.version, at_once.state, at_once.ended):
        with suppress(TimeoutError):
            await asyncio.wait_for(changed(), timeout_s)
        document = await run_sync(_job, call, job_id)
    return json_answer(document)


@router.get("/follow", **_SSE)
async def follow_job(request: Request, job_id: JobId, call: Caller) -> Response:
    """The job's document (event `job`) whenever it changes."""
    call.need("read")
    await run_sync(_job, call, job_id)
    streams: Streams = request.app.state.streams

    async def source() -> AsyncIterator[bytes]:
        seen = None
        while seen is None or not seen.ended:
            changed = await streams.jobs.changed_within(job_id, seen, following.HEARTBEAT_S)
            if changed is None:
                yield following.HEARTBEAT
                continue
            seen = changed
            document = await run_sync(_job, call, job_id)
            yield message("job", document)
        yield message("end", {"state": seen.state})

    return _stream(request, source())


@router.get("/log/follow", **_SSE)
async def follow_log(
    request: Request, job_id: JobId, call: Caller, attempt: AttemptNumber = None,
    offset: Place = 0,
    tail: Annotated[int | None, Query(ge=0, le=10_000, description="Last lines first.")] = None,
    last_event_id: LastId = "",
) -> Response:  # fmt: skip
    """Lines (event `lines`, as in a range) as they are printed. After an attempt (event
    `attempt-ended`) comes the next one, unless one was asked for."""
    call.need("read")
    streams: Streams = request.app.state.streams
    source = await streams.follow(
        "log", job_id, attempt=attempt, offset=offset, tail=tail, last_id=last_event_id
    )
    return _stream(request, source)


@router.get("/events/follow", **_SSE)
async def follow_events(
    request: Request, job_id: JobId, call: Caller, attempt: AttemptNumber = None,
    offset: Place = 0, last_event_id: LastId = "",
) -> Response:  # fmt: skip
    """What attempts tell (event `events`) as they tell it."""
    call.need("read")
    streams: Streams = request.app.state.streams
    source = await streams.follow(
        "events", job_id, attempt=attempt, offset=offset, last_id=last_event_id
    )
    return _stream(request, source)


@router.get("/metrics/follow", **_SSE)
async def follow_metrics(
    request: Request, job_id: JobId, call: Caller, attempt: AttemptNumber = None,
    offset: Place = 0, last_event_id: LastId = "",
) -> Response:  # fmt: skip
    """New points of metrics (event `points`). Steps that an attempt trains again replace those that
    were told before."""
    call.need("read")
    streams: Streams = request.app.state.streams
    source = await streams.follow(
        "metrics", job_id, attempt=attempt, offset=offset, last_id=last_event_id
    )
    return _stream(request, source)


def _job(call: Call, job_id: str) -> dict[str, Any]:
    with call.database.read() as session:
        return job_document(find_job(session, job_id))


def _stream(request: Request, source: AsyncIterator[bytes]) -> EventStream:
    async def allowed() -> bool:
        # A token or a session that is revoked ends what it began.
        return await request.state.still() is not None

    streams: Streams = request.app.state.streams
    return EventStream(source, streams.open, allowed)
