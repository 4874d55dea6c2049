"""The first thing that sees a request: without a token or a session, nothing else does.

It is a layer around the application, not a dependency of routes: no route can be without it.
"""

from __future__ import annotations

import hmac
from typing import Any
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from onward.server.console.errors import error_page, wants_page
from onward.server.console.login import login_page
from onward.server.problems import problem
from onward.server.security.attempts import Desk
from onward.server.security.login import Login
from onward.server.security.origins import Origins
from onward.server.security.principals import Principals, Visitor

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_FORM = "application/x-www-form-urlencoded"
_LONGEST_FORM = 1 << 20
_MOST_COOKIES = 4


class Gatekeeper:
    """Sets `request.state.principal` and `.csrf`, or answers 401, 403, 421 for a wrong host, or 429
    for one more wrong token of too many."""

    def __init__(
        self, app: ASGIApp, principals: Principals, desk: Desk, login: Login, origins: Origins
    ) -> None:
        self.app = app
        self.principals = principals
        self.desk = desk
        self.login = login
        self.origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        refusal = _unclear(request) or self.origins.refusal(request)
        if refusal is not None:
            await _refused(request, refusal)(scope, receive, send)
            return
        if scope["path"] == "/login" and request.method == "POST":
            await (await self.login.sign_in(request))(scope, receive, send)
            return
        visitor = await self._visitor(request)
        if visitor is None:
            await self._unauthorized(request)(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["principal"], state["csrf"] = visitor.principal, visitor.csrf
        # For answers that go on for long: who may no more is cut off.
        state["still"] = lambda: self._visitor(request)
        if visitor.csrf and request.method not in _SAFE:
            replayed = await _with_csrf(request, visitor.csrf)
            if replayed is None:
                await _refused(request, _NO_CSRF)(scope, receive, send)
                return
            receive = replayed
        if scope["path"] == "/logout" and request.method == "POST":
            await (await self.login.sign_out(request))(scope, receive, send)
            return
        await self.app(scope, receive, send)

    async def _visitor(self, request: Request) -> Visitor | None:
        shown = request.headers.getlist("authorization")
        if shown:
            kind, _, text = shown[0].partition(" ")
            if kind.lower() != "bearer" or len(shown) > 1:
                return None
            return await self._known(request, "bearer", text.strip())
        # Others of this host, at another port, can give a browser cookies of our name: those that
        # are of nobody keep nobody out, and of two sessions none is to be preferred.
        found: dict[str, Visitor] = {}
        for cookie in _cookies(request, self.login.cookie):
            visitor = await self._known(request, "cookie", cookie)
            if visitor is not None:
                found[cookie] = visitor
        return next(iter(found.values())) if len(found) == 1 else None

    async def _known(self, request: Request, kind: str, text: str) -> Visitor | None:
        if not text:
            return None
        return self.principals.remembered(kind, text) or await self.desk.look_up(
            request, kind, text
        )

    def _unauthorized(self, request: Request) -> Response:
        # A session that has ended is no guess: its browser is shown where to sign in.
        wait_s = self.desk.wait_s(request) if "authorization" in request.headers else 0
        if wants_page(request):
            return login_page(request, wait_s=wait_s)
        document, headers = _NO_TOKEN, {"WWW-Authenticate": 'Bearer realm="onward"'}
        if wait_s:
            document, headers = _TOO_MANY, {"Retry-After": str(wait_s)}
        return JSONResponse(
            document, document["status"], headers, media_type="application/problem+json"
        )


def _cookies(request: Request, name: str) -> list[str]:
    pairs = [
        pair.partition("=") for header in request.headers.getlist("cookie")
        for pair in header.split(";")
    ]  # fmt: skip
    return [value.strip() for key, _, value in pairs if key.strip() == name][:_MOST_COOKIES]


def _unclear(request: Request) -> dict[str, Any] | None:
    """A body that something before the server may have seen end elsewhere."""
    codings = request.headers.getlist("transfer-encoding")
    if codings and [each.strip().lower() for each in codings] != ["chunked"]:
        return _NO_CLEAR_END
    return None


async def _with_csrf(request: Request, csrf: str) -> Receive | None:
    """How to receive the body (again), if the request shows the session's CSRF token."""
    header = request.headers.get("x-csrf-token")
    if header is not None:
        return request.receive if hmac.compare_digest(header.encode(), csrf.encode()) else None
    if not request.headers.get("content-type", "").startswith(_FORM):
        return None
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LONGEST_FORM:
            return None
    try:
        shown = parse_qs(body.decode(), max_num_fields=2000).get("csrf", [""])[0]
    except ValueError:
        return None
    if not hmac.compare_digest(shown.encode(), csrf.encode()):
        return None
    told = False

    async def receive() -> Message:
        nonlocal told
        if told:
            return await request.receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


_NO_TOKEN = problem(
    401, "Unauthorized", "a token is needed",
    why="none was sent, or it is unknown, expired or revoked",
    do="send `Authorization: Bearer TOKEN`; an administrator makes tokens",
)  # fmt: skip
_TOO_MANY = problem(
    429, "TooMany", "too many wrong tokens came from this address",
    why="this one is unknown, expired or revoked, too",
    do="look at the token; one that is right is served at once",
)  # fmt: skip
_NO_CLEAR_END = problem(
    400, "Unclear", "where the body of this request ends is unclear",
    why="its Transfer-Encoding is not `chunked` alone",
    do="send a Content-Length, or chunks",
)  # fmt: skip
_NO_CSRF = problem(
    403, "NoCSRF", "this form is not from a page of yours",
    why="it does not hold the secret of your session",
    do="load the page again, and repeat",
)  # fmt: skip


def _refused(request: Request, document: dict[str, Any]) -> Response:
    if wants_page(request):
        answer: Response = error_page(request, document)
    else:
        answer = JSONResponse(document, document["status"], media_type="application/problem+json")
    if document is _NO_CLEAR_END:
        answer.headers["Connection"] = "close"  # nobody knows what follows
    return answer
