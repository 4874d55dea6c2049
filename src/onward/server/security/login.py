"""Signing in and out: from a token to a session's cookie, and back."""

from __future__ import annotations

import asyncio
from urllib.parse import parse_qs

from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from onward.server.console.login import login_page
from onward.server.database import Database
from onward.server.database.tables import Audit
from onward.server.names import now_s
from onward.server.security.attempts import Desk
from onward.server.security.principals import Principals
from onward.server.security.sessions import close_session, open_session
from onward.server.security.tokens import Principal
from onward.server.settings import Settings

_LONGEST_FORM = 16_384
_PATIENCE_S = 20.0


class Login:
    """What `/login` and `/logout` do. The gatekeeper calls it: there is nobody to route to yet."""

    def __init__(
        self, settings: Settings, database: Database, principals: Principals, desk: Desk
    ) -> None:
        self.settings = settings
        self.database = database
        self.principals = principals
        self.desk = desk

    @property
    def cookie(self) -> str:
        """Under TLS a name that a browser takes from nobody but this very host."""
        return "__Host-onward" if self.settings.tls_certificate else "onward"

    async def sign_in(self, request: Request) -> Response:
        """303 to where the form says, with a cookie; or 401, or 429 after too many wrong ones, and
        the page again."""
        remote = request.client.host if request.client else ""
        to = "/"
        try:
            async with asyncio.timeout(_PATIENCE_S):
                fields = await form_fields(request)
        except TimeoutError:  # a stranger keeps nobody waiting
            answer = login_page(request, to=to)
            answer.headers["Connection"] = "close"
            return answer
        if fields is not None:
            to = local_path(fields.get("next", ["/"])[0])
            text = fields.get("token", [""])[0].strip()
            visitor = await self.desk.look_up(request, "bearer", text)
            if visitor is not None:
                cookie = await run_in_threadpool(self._open, visitor.principal, remote)
                found = RedirectResponse(to, 303)
                found.set_cookie(
                    self.cookie, cookie, max_age=int(self.settings.session_s), path="/",
                    httponly=True, samesite="strict", secure=self.cookie.startswith("__Host-"),
                )  # fmt: skip
                return found
        return login_page(request, wrong=True, wait_s=self.desk.wait_s(request), to=to)

    async def sign_out(self, request: Request) -> Response:
        """The session ends here, whatever the browser keeps."""
        cookie = request.cookies.get(self.cookie, "")
        remote = request.client.host if request.client else ""
        await run_in_threadpool(self._close, cookie, request.state.principal, remote)
        answer = RedirectResponse("/", 303)
        answer.delete_cookie(self.cookie, path="/")
        return answer

    def _open(self, principal: Principal, remote: str) -> str:
        with self.database.write() as session:
            cookie, _ = open_session(session, principal.token, lifetime_s=self.settings.session_s)
            _note(session, "login", principal, remote)
        return cookie

    def _close(self, cookie: str, principal: Principal, remote: str) -> None:
        with self.database.write() as session:
            close_session(session, cookie)
            _note(session, "logout", principal, remote)
        self.principals.forget()


def _note(session: Session, action: str, principal: Principal, remote: str) -> None:
    session.add(
        Audit(
            at=now_s(), by=principal.name, action=action, object=principal.token, remote=remote,
            detail={},
        )
    )  # fmt: skip


async def form_fields(request: Request) -> dict[str, list[str]] | None:
    """The fields of a small form; None for what is none."""
    if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return None
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LONGEST_FORM:
            return None
    try:
        return parse_qs(body.decode(), keep_blank_values=True, max_num_fields=20)
    except ValueError:
        return None


def local_path(text: str) -> str:
    """`text` if it is a path of this server, else `/`: a login sends nobody elsewhere."""
    plain = all(" " < char < "\x7f" and char != "\\" for char in text)
    return text if plain and text.startswith("/") and not text.startswith("//") else "/"
