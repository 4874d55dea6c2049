"""Routes of what attempts tell: their events as they were told, and their metrics as series."""

from __future__ import annotations

import os
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel

from onward.server.api.answers import json_answer
from onward.server.api.call import Caller
from onward.server.api.parameters import LARGEST_PLACE, AttemptNumber, JobId, Place
from onward.server.logs.events import LARGEST_RANGE, open_events, read_events
from onward.server.logs.finding import all_places, find_place
from onward.server.logs.series import SeriesCache

router = APIRouter(prefix="/api/v1/jobs/{job_id}", tags=["events and metrics"])


class EventRange(BaseModel):
    """Events of one attempt. Each has `at`, seconds since 1970, and `kind`; `next` is where the
    following ones begin."""

    attempt: int | None
    offset: int
    next: int
    ended: bool
    items: list[dict[str, Any]]


class Series(BaseModel):
    """A metric: pairs of optimizer step and value. A value that was not finite is null."""

    name: str
    points: list[tuple[int, float | None]]


class MetricRange(BaseModel):
    """The metrics of all attempts on one axis of steps."""

    attempts: int
    series: list[Series]


@router.get("/events", response_model=EventRange)
def events(
    job_id: JobId,
    call: Caller,
    attempt: AttemptNumber = None,
    offset: Place = 0,
    limit: Annotated[int, Query(ge=1, le=LARGEST_RANGE, description="About so many bytes.")] = (
        64 << 10
    ),
) -> Response:
    """What one attempt told, from a place on."""
    call.need("read")
    with call.database.read() as session:
        place = find_place(session, call.settings.attempts, job_id, attempt)
    fd = open_events(place.folder) if place is not None else None
    items: list[dict[str, Any]] = []
    following = 0
    if fd is not None:
        try:
            offset = min(offset, os.fstat(fd).st_size)
            items, following = read_events(fd, offset, limit)
        finally:
            os.close(fd)
    return json_answer(
        {"attempt": place.number if place else None, "offset": offset if fd is not None else 0,
         "next": following, "ended": place.ended if place else False, "items": items}
    )  # fmt: skip


@router.get("/metrics", response_model=MetricRange)
def metrics(
    request: Request,
    job_id: JobId,
    call: Caller,
    name: Annotated[list[str], Query(max_length=200, description="By default all.")] = [],  # noqa: B006
    first: Annotated[int, Query(ge=0, le=LARGEST_PLACE, description="A step.")] = 0,
    last: Annotated[int, Query(ge=0, le=LARGEST_PLACE, description="A step.")] = LARGEST_PLACE,
    points: Annotated[int, Query(ge=4, le=10_000, description="Of each series, at most.")] = 500,
) -> Response:
    """Series of metrics from one step to another. Many points are shown by fewer: of each stretch
    the lowest and the highest."""
    call.need("read")
    with call.database.read() as session:
        places = all_places(session, call.settings.attempts, job_id)
    cache: SeriesCache = request.app.state.series
    found = cache.series(places, names=name, first=first, last=last, points=points)
    series = [{"name": each, "points": pairs} for each, pairs in found.items()]
    return json_answer({"attempts": len(places), "series": series})
