"""Limits of what one sender may ask: bytes of a body, requests a second."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from onward.server.problems import problem
from onward.server.settings import Settings

UPLOADS = frozenset({"/api/v1/code"})
"""Routes that take archives, and stream them to a file."""

_SENDERS = 10_000


class Limits:
    """Answers 413 and 429. A body is counted while it comes: a header may lie, or be left out."""

    def __init__(
        self, app: ASGIApp, settings: Settings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.app = app
        self.settings = settings
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        wait_s = self._wait_s(_sender(scope))
        if wait_s > 0:
            await _too_many(wait_s)(scope, receive, send)
            return
        limit = self.settings.longest_body
        if scope["path"] in UPLOADS and scope["method"] == "POST":
            limit = self.settings.longest_upload
        if _announced(scope) > limit:
            await _too_large(limit)(scope, receive, send)
            return
        await _Counting(self.app, limit)(scope, receive, send)

    def _wait_s(self, sender: str) -> float:
        """Takes one of a sender's tokens; how long until there is one, if there is none."""
        rate = self.settings.requests_per_s
        now = self._clock()
        tokens, since = self._buckets.get(sender, (rate, now))
        tokens = min(rate, tokens + (now - since) * rate)
        if tokens < 1:
            return (1 - tokens) / rate
        if len(self._buckets) >= _SENDERS:
            self._buckets.clear()
        self._buckets[sender] = (tokens - 1, now)
        return 0.0


class _Counting:
    """Passes a body on until it is too long; then the route's answer is replaced."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app = app
        self.limit = limit
        self.seen = 0
        self.started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counted() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                self.seen += len(message.get("body", b""))
                if self.seen > self.limit:
                    raise _TooLong
            return message

        async def sending(message: Message) -> None:
            # What a route makes of a body that broke off is of no interest.
            if self.started or self.seen <= self.limit:
                self.started = True
                await send(message)

        with contextlib.suppress(_TooLong):
            await self.app(scope, counted, sending)
        if not self.started:
            await _too_large(self.limit)(scope, receive, send)


class _TooLong(Exception):
    """Ends whoever reads a body that is too long."""


def _sender(scope: Scope) -> str:
    principal = scope.get("state", {}).get("principal")
    return principal.token if principal is not None else ""


def _announced(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() and len(value) < 20 else 1 << 62
    return 0


def _too_large(limit: int) -> Any:
    document = problem(
        413, "TooLarge", "the request is too large", why=f"the limit is {limit:,} bytes",
        do="send less, or put the files into a registered storage",
    )  # fmt: skip
    return JSONResponse(
        document, 413, {"Connection": "close"}, media_type="application/problem+json"
    )


def _too_many(wait_s: float) -> Any:
    document = problem(
        429, "TooMany", "this token asks too often", do="wait, then ask again, less often"
    )
    return JSONResponse(
        document, 429, {"Retry-After": str(max(1, round(wait_s)))},
        media_type="application/problem+json",
    )  # fmt: skip
