"""Routes of what attempts print: by range, as a file, by search; and giving back its beginning."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Any

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from onward.server.api.answers import json_answer
from onward.server.api.call import Call, Caller
from onward.server.api.parameters import LARGEST_PLACE, AttemptNumber, JobId, Place
from onward.server.cleaning import cleaned_at
from onward.server.logs.cuts import cuts_of, give_back
from onward.server.logs.finding import Place as Folder
from onward.server.logs.finding import find_place
from onward.server.logs.reading import LARGEST_RANGE, OpenLog, line_before, open_log, read_lines
from onward.server.logs.searching import LONGEST_QUERY, Hits, search
from onward.server.problems import NotFound

router = APIRouter(prefix="/api/v1/jobs/{job_id}/log", tags=["logs"])

_RANGE = 64 << 10
_DOWNLOAD_BLOCK = 256 << 10

Bytes = Annotated[int, Query(ge=1, le=LARGEST_RANGE, description="About so many bytes of lines.")]


class LogLine(BaseModel):
    """A line as text, without control characters. What is false or 0 is left away.

    `at` is the byte at which it begins. `cut`: so many of its bytes are not shown; a range that
    begins within the line shows them. `continues`: what comes before it in its line is not shown.
    `open`: it has no end yet, and comes again when it has grown.
    """

    at: int
    text: str
    cut: int = 0
    continues: bool = False
    open: bool = False


class LogRange(BaseModel):
    """Lines of a log. `next` is where the following ones begin; at `next` == `size`, or where an
    open line stands, there is nothing more for now. `cuts`: from and to of what was given back."""

    attempt: int | None
    offset: int
    next: int
    size: int
    ended: bool
    cuts: list[tuple[int, int]]
    lines: list[LogLine]


class LogHit(BaseModel):
    """A line that holds what was looked for. `line` is where to begin a range that shows it."""

    at: int
    line: int
    before: str
    match: str
    after: str


class LogHits(BaseModel):
    """Hits in order. `next` is where to go on from; null once the end of the log was reached."""

    hits: list[LogHit]
    next: int | None
    size: int


class CutRequest(BaseModel):
    """How much of the newest end of a log stays."""

    model_config = ConfigDict(extra="forbid")

    keep_bytes: Annotated[int, Field(ge=0, le=LARGEST_PLACE)]
    attempt: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None


class CutAnswer(BaseModel):
    """Where what is left of the log begins. Places in it are what they were."""

    attempt: int
    begin: int


@router.get("", response_model=LogRange)
def lines(
    job_id: JobId,
    call: Caller,
    attempt: AttemptNumber = None,
    offset: Place = 0,
    limit: Bytes = _RANGE,
    tail: Annotated[
        int | None, Query(ge=1, le=10_000, description="The last lines; instead of `offset`.")
    ] = None,
    before: Annotated[
        int | None, Query(ge=0, le=LARGEST_PLACE, description="Lines that end before this place.")
    ] = None,
) -> Response:
    """Lines of a log from a place on; or its last ones; or those before a place."""
    place = _find(call, job_id, attempt)
    log = open_log(place.folder) if place is not None else None
    if place is None or log is None:
        return json_answer(
            {"attempt": place.number if place else None, "offset": 0, "next": 0, "size": 0,
             "ended": place.ended if place else False, "cuts": [], "lines": []}
        )  # fmt: skip
    with log:
        until = None
        if before is not None:
            offset = line_before(log, before, lines=10_000, most_bytes=limit)
            until = min(before, log.size)
            limit = max(1, until - offset)
        elif tail is not None:
            offset = line_before(log, log.size, lines=tail, most_bytes=LARGEST_RANGE)
            limit = LARGEST_RANGE
        found = read_lines(log, offset, limit, until=until)
        return json_answer(
            {"attempt": place.number, "offset": found.offset, "next": found.next,
             "size": log.size, "ended": place.ended, "cuts": log.cuts, "lines": found.lines}
        )  # fmt: skip


@router.get("/search", response_model=LogHits)
async def searched(
    request: Request,
    job_id: JobId,
    call: Caller,
    q: Annotated[str, Query(min_length=1, max_length=LONGEST_QUERY, pattern=r"^[^\r\n]+$")],
    attempt: AttemptNumber = None,
    start: Annotated[Place, Query(alias="from")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ignore_case: bool = True,
) -> Response:
    """Lines that hold a text as it stands. Of a large log one request looks through a part, and
    says where to go on."""

    def look() -> Hits:
        place = _find(call, job_id, attempt)
        log = open_log(place.folder) if place is not None else None
        if log is None:
            return Hits([], None, 0)
        with log:
            return search(log, q, start, limit=limit, ignore_case=ignore_case)

    # Few at once: who searches must not keep others from a thread.
    return json_answer(await run_sync(look, limiter=_searchers(request)))


@router.get(
    "/raw",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string", "format": "binary"}}}}
    },
)
async def raw(
    job_id: JobId, call: Caller, attempt: AttemptNumber = None, offset: Place = 0
) -> Response:
    """The log as a file, byte for byte as it is now, to be saved and not to be shown. Where
    something was given back, a line in brackets stands instead."""
    place = await run_sync(_find, call, job_id, attempt)
    if place is None:
        raise NotFound(f"job {job_id} has no log yet", do="wait until it runs")
    freed_at = await run_sync(cleaned_at, place.folder)
    if freed_at is not None:
        freed_on = datetime.fromtimestamp(freed_at, UTC).date().isoformat()
        raise NotFound(
            f"the log of job {job_id} is not there any more",
            why=f"an administrator freed it on {freed_on}",
            do="what the job did is in its timeline, and in its output",
        )
    log = await run_sync(open_log, place.folder)
    return StreamingResponse(
        _blocks(log, place, offset),
        media_type="text/plain; charset=utf-8",
        headers={
            "Content-Disposition": f'attachment; filename="{job_id}-{place.number}.log"',
            "X-Content-Type-Options": "nosniff",
        },
    )


@router.post("/cut", response_model=CutAnswer)
def cut(job_id: JobId, body: CutRequest, call: Caller) -> JSONResponse:
    """Frees the space of all but the newest bytes of a log."""
    call.need("write")

    def effect(session: Session) -> Any:
        place = find_place(session, call.settings.attempts, job_id, body.attempt)
        if place is None:
            raise NotFound(f"job {job_id} has no log yet")
        # Beside the database, but harmless twice: what is freed is free.
        return {"attempt": place.number, "begin": give_back(place.folder, body.keep_bytes)}

    return call.once(effect, action="log.cut", about=job_id)


def _find(call: Call, job_id: str, attempt: int | None) -> Folder | None:
    call.need("read")
    with call.database.read() as session:
        return find_place(session, call.settings.attempts, job_id, attempt)


def _searchers(request: Request) -> CapacityLimiter:
    state = request.app.state
    if not hasattr(state, "searchers"):
        state.searchers = CapacityLimiter(2)
    found: CapacityLimiter = state.searchers
    return found


async def _blocks(log: OpenLog | None, place: Folder, offset: int) -> AsyncIterator[bytes]:
    if log is None:
        return
    with log:
        while offset < log.size:
            # Asked anew, for what was given back since reads as zeros.
            cuts = await run_sync(cuts_of, place.folder)
            inside = next((end for first, end in cuts if first <= offset < end), None)
            if inside is not None:
                yield f"[onward: {inside - offset:,} bytes were given back]\n".encode()
                offset = inside
                continue
            stop = min([log.size, *(first for first, _ in cuts if first > offset)])
            block = await run_sync(log.read, offset, min(_DOWNLOAD_BLOCK, stop - offset))
            if not block:
                return
            yield block
            offset += len(block)
