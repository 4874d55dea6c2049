"""The login page: the body of every 401 that a browser gets.

Without a session nothing else is served, static files included, so that it brings its style with
it; the policy of the page allows exactly this style, by its digest.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache

from fastapi import Request
from fastapi.responses import HTMLResponse
from markupsafe import Markup

from onward.server.console import assets
from onward.server.console.rendering import language_of, render

_YEAR_S = 365 * 24 * 3600


def login_page(
    request: Request, *, wrong: bool = False, wait_s: int = 0, to: str | None = None
) -> HTMLResponse:
    """Asks for a token; afterwards the browser goes to `to`, by default the page it asked for.

    `wait_s` says that too many were wrong, and makes it 429.
    """
    style, digest = _style()
    if to is None:
        query = "&".join(
            part for part in request.url.query.split("&") if not part.startswith("language=")
        )
        to = request.url.path + (f"?{query}" if query else "")
        if request.method not in ("GET", "HEAD"):
            to = "/"
    answer = render(
        request, "login.html", status=429 if wait_s else 401, style=f"'{digest}'", css=style,
        wrong=wrong, wait_s=wait_s, to=to,
    )  # fmt: skip
    if wait_s:
        answer.headers["Retry-After"] = str(wait_s)
    else:
        answer.headers["WWW-Authenticate"] = 'Bearer realm="onward"'
    if "language" in request.query_params:
        answer.set_cookie(
            "language", language_of(request).code, max_age=_YEAR_S, samesite="lax", httponly=True
        )
    return answer


@cache
def _style() -> tuple[Markup, str]:
    # Our own file, not anybody's text; and it is not HTML that a style element holds.
    text = assets.files()["onward.css"].decode()
    assert "</" not in text
    found = hashlib.sha256(text.encode()).digest()
    return Markup(text), f"sha256-{base64.b64encode(found).decode()}"
