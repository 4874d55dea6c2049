"""Language and theme: kept in the viewer's browser, nowhere else."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from onward.server.console.forms import Sent, local
from onward.server.console.languages import LANGUAGES
from onward.server.console.rendering import THEMES

_YEAR_S = 365 * 24 * 3600

router = APIRouter(include_in_schema=False)


@router.post("/look")
def look(request: Request, sent: Sent) -> Response:
    """Sets one or the other, and goes back to the page."""
    answer = RedirectResponse(local(sent.get("back")), 303)
    for name, known in (("language", tuple(LANGUAGES)), ("theme", THEMES)):
        if sent.get(name) in known:
            answer.set_cookie(name, sent.get(name), max_age=_YEAR_S, samesite="lax", httponly=True)
    return answer
