"""The address of the server itself."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response
from sqlalchemy import select

from onward.server.console.forms import call_of
from onward.server.database.tables import Model

router = APIRouter(include_in_schema=False)


@router.get("/")
def first(request: Request) -> Response:
    """Models where there are any; else the list of jobs, which tells a newcomer where to begin."""
    with call_of(request).database.read() as session:
        model = session.scalar(select(Model.id).limit(1))
    return RedirectResponse("/models" if model else "/jobs", 303)
