"""Routes for whoever operates a server: metrics, health."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel
from sqlalchemy import text

from onward._version import __version__
from onward.server.api.call import Caller

router = APIRouter(tags=["operations"])


class Health(BaseModel):
    """That the server answers, and its database as well."""

    version: str
    database: str


@router.get("/metrics", response_class=PlainTextResponse)
def metrics(request: Request, call: Caller) -> Response:
    """In Prometheus' text format."""
    registry = request.app.state.observations.registry
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


@router.get("/api/v1/health", response_model=Health)
def health(call: Caller) -> Any:
    """Whether the database answers."""
    with call.database.read() as session:
        session.execute(text("SELECT 1"))
    return Health(version=__version__, database=call.database.engine.dialect.name)
