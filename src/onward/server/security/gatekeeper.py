"""The first thing that sees a request: without a token or a session, nothing else does.

It is the outermost layer, not a dependency of routes, so that a route cannot be without it.
"""

from __future__ import annotations

from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from onward.server.console.errors import wants_page
from onward.server.console.login import login_page
from onward.server.database import Database
from onward.server.problems import problem
from onward.server.security.tokens import Principal, find_principal


class Gatekeeper:
    """Sets `scope["state"]["principal"]`, or answers 401."""

    def __init__(self, app: ASGIApp, database: Database) -> None:
        self.app = app
        self.database = database

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        request = Request(scope)
        principal = await self._principal(request)
        if principal is None:
            await _unauthorized(request)(scope, receive, send)
            return
        scope.setdefault("state", {})["principal"] = principal
        await self.app(scope, receive, send)

    async def _principal(self, request: Request) -> Principal | None:
        kind, _, text = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not text:
            return None
        return await run_in_threadpool(self._look_up, text.strip())

    def _look_up(self, text: str) -> Principal | None:
        with self.database.read() as session:
            return find_principal(session, text)


def _unauthorized(request: Request) -> Any:
    if wants_page(request):
        return login_page(request)
    return JSONResponse(
        problem(
            401, "Unauthorized", "a token is needed",
            why="none was sent, or it is unknown, expired or revoked",
            do="send `Authorization: Bearer TOKEN`; an administrator makes tokens",
        ),
        401,
        {"WWW-Authenticate": 'Bearer realm="onward"'},
        media_type="application/problem+json",
    )  # fmt: skip
