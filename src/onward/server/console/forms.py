"""What a form sends, and doing it once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request
from sqlalchemy.orm import Session

from onward.server.api.call import Call
from onward.server.console.languages import Language


@dataclass(frozen=True, slots=True)
class Form:
    """The fields of a form, in order; a name may come more than once."""

    fields: tuple[tuple[str, str], ...]

    def get(self, name: str) -> str:
        """The first field of that name, without blanks around it; '' if there is none."""
        return next((value.strip() for key, value in self.fields if key == name), "")

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key == name]


async def _sent(request: Request) -> Form:
    form = await request.form(max_fields=2000)
    return Form(tuple((key, value) for key, value in form.multi_items() if isinstance(value, str)))


Sent = Annotated[Form, Depends(_sent)]


def call_of(request: Request, sent: Form | None = None) -> Call:
    """The call behind a page. A form's hidden `key` is its Idempotency-Key."""
    parts = request.app.state.parts
    fields = [pair for pair in sent.fields if pair[0] != "csrf"] if sent else []
    digest = hashlib.sha256(
        json.dumps([request.method, request.url.path, request.url.query, fields]).encode()
    ).hexdigest()
    return Call(
        request.state.principal, parts.database, parts.settings,
        (sent.get("key")[:255] or None) if sent else None, digest,
        request.client.host if request.client else "",
    )  # fmt: skip


def once(call: Call, effect: Callable[[Session], Any], *, action: str) -> Any:
    """As `Call.once`; returns the answer itself, the same one again for a form sent twice."""
    return json.loads(bytes(call.once(effect, action=action).body))


def wrong(spoken: Language, error: Mapping[str, Any]) -> str:
    """What pydantic found wrong with a field, in the viewer's language where it is common."""
    t, kind = spoken.t, error["type"]
    facts = error.get("ctx") or {}
    if kind in ("missing", "string_too_short", "too_short"):
        return t("This is needed.")
    if kind in ("string_too_long", "too_long"):
        return t("This is too long.")
    if kind == "string_pattern_mismatch":
        return t("This has characters that are not allowed here.")
    if kind in ("greater_than_equal", "greater_than"):
        return t("At least {least}.", least=facts.get("ge", facts.get("gt", "")))
    if kind in ("less_than_equal", "less_than"):
        return t("At most {most}.", most=facts.get("le", facts.get("lt", "")))
    return spoken.said(str(error["msg"]).removeprefix("Value error, "))


def named_lines(text: str) -> tuple[dict[str, str], bool]:
    """Lines NAME=value as pairs, empty ones passed over; and whether every line was one."""
    lines = [line for line in text.splitlines() if line.strip()]
    parts = [line.partition("=") for line in lines]
    pairs = {name.strip(): value.strip() for name, _, value in parts}
    return pairs, all(equals for _, equals, _ in parts)


def local(target: str) -> str:
    """A place within this server to go to; anything else is its first page."""
    if not target.startswith("/") or target.startswith(("//", "/\\")):
        return "/"
    return "/" if any(c < " " or c == "\\" for c in target) else target
