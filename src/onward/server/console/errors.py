"""Errors as a page, for browsers."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse

from onward.server.console.rendering import render


def wants_page(request: Request) -> bool:
    """Whether whoever asks is a browser at a page of the console."""
    return "text/html" in request.headers.get("accept", "") and not request.url.path.startswith(
        "/api/"
    )


def error_page(request: Request, document: dict[str, Any]) -> HTMLResponse:
    """A problem document as a page that says what happened, why, and what to do."""
    return render(request, "error.html", status=document["status"], problem=document)
