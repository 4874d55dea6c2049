"""Turning a template into an answer: escaping, language, theme, and a strict security policy."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from onward._version import __version__
from onward.server.console import assets
from onward.server.console.languages import LANGUAGES, Language, choose
from onward.server.console.words import TONES

POLICY = (
    "default-src 'none'; script-src 'self'; style-src {style}; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
THEMES = ("auto", "light", "dark")


@cache
def environment() -> Environment:
    """Everything is escaped; a name that a page forgot to give is an error, not an empty place."""
    found = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.globals.update(
        asset=assets.address, version=__version__, LANGUAGES=LANGUAGES, tone=_tone, when=when,
        segment=segment, new_key=new_key,
    )  # fmt: skip
    return found


def render(
    request: Request, template: str, *, status: int = 200, style: str = "'self'", **facts: Any
) -> HTMLResponse:
    """The page, for whoever asks."""
    principal = getattr(request.state, "principal", None)
    text = environment().get_template(template).render(
        **words_of(request),
        principal=principal,
        may=principal.may if principal else lambda scope: False,
        csrf=getattr(request.state, "csrf", ""),
        theme=theme_of(request),
        path=request.url.path,
        here=here(request),
        **facts,
    )  # fmt: skip
    return HTMLResponse(
        text,
        status,
        {
            "Content-Security-Policy": POLICY.format(style=style),
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "same-origin",
            "Cache-Control": "no-store",
            "Vary": "Cookie, Accept-Language, HX-Request",
        },
    )


def words_of(request: Request) -> dict[str, Any]:
    """What says things in the viewer's language."""
    spoken = language_of(request)
    return {
        "language": spoken, "t": spoken.t, "tn": spoken.tn, "word": spoken.t,
        "number": spoken.number, "percent": spoken.percent, "size": spoken.size,
        "duration": spoken.duration, "sentence": spoken.said,
    }  # fmt: skip


def language_of(request: Request) -> Language:
    asked = request.query_params.get("language")
    return choose(
        asked if asked in LANGUAGES else request.cookies.get("language"),
        request.headers.get("accept-language", ""),
    )


def theme_of(request: Request) -> str:
    found = request.cookies.get("theme", "auto")
    return found if found in THEMES else "auto"


def here(request: Request) -> str:
    """The path and query of the page, to come back to; a form's answer names the page it shows."""
    named = getattr(request.state, "here", None)
    if named is not None:
        return str(named)
    return request.url.path + (f"?{request.url.query}" if request.url.query else "")


def is_partial(request: Request) -> bool:
    """Whether htmx asks for a piece of the page."""
    return request.headers.get("hx-request") == "true"


def new_key() -> str:
    """For one form: sent twice, it has one effect."""
    return secrets.token_urlsafe(18)


def segment(text: str) -> str:
    """Text as one segment of a path."""
    return quote(text, safe="")


def when(time: float | str | None, kind: str = "time") -> Markup:
    """A moment, which the browser shows in the viewer's zone: `time` or `ago`."""
    if time is None or time == "":
        return Markup("–")
    try:
        moment = (
            datetime.fromisoformat(time.replace("Z", "+00:00"))
            if isinstance(time, str)
            else datetime.fromtimestamp(time, UTC)
        )
    except (ValueError, OverflowError, OSError):
        return Markup("{}").format(str(time))
    moment = moment.astimezone(UTC)
    return Markup('<time datetime="{}" data-show="{}">{}</time>').format(
        moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"), kind,
        f"{moment:%Y-%m-%d %H:%M:%S} UTC",
    )  # fmt: skip


def _tone(word: str) -> str:
    return TONES.get(word, "off")
