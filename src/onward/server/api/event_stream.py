"""Answers that are server-sent events: they end when the client, the token or the server does."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, cast

import anyio
from anyio import CancelScope
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

_STALLED_S = 60.0
_CHECK_EVERY_S = 5.0

HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}

_EVENT = {
    "description": "One event. `data` is a JSON document.",
    "type": "object",
    "properties": {name: {"type": "string"} for name in ("id", "event", "data")},
}

DOCUMENTED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Events, until there will be no more: the last one is called `end`.",
        "content": {"text/event-stream": {"schema": _EVENT}},
    }
}


class EventStream(Response):
    """Sends what a source yields, and waits for nobody else while its client takes nothing."""

    media_type = "text/event-stream"

    def __init__(
        self, source: AsyncIterator[bytes], opened: set[CancelScope],
        allowed: Callable[[], Awaitable[bool]],
    ) -> None:  # fmt: skip
        super().__init__(headers=HEADERS, media_type=self.media_type)
        del self.headers["content-length"]
        self._source = source
        self._opened = opened
        self._allowed = allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send(
            {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        )  # fmt: skip
        source = cast("AsyncGenerator[bytes, None]", self._source)
        async with anyio.create_task_group() as group, aclosing(source):
            self._opened.add(group.cancel_scope)
            try:
                group.start_soon(self._until_gone, receive, group.cancel_scope)
                await self._pass_on(source, send)
                group.cancel_scope.cancel()
            finally:
                self._opened.discard(group.cancel_scope)
        with anyio.move_on_after(1):
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _pass_on(self, source: AsyncIterator[bytes], send: Send) -> None:
        check_s = time.monotonic() + _CHECK_EVERY_S
        async for data in source:
            # Whoever takes nothing for so long comes back when it likes, to where it was.
            with anyio.move_on_after(_STALLED_S) as waiting:
                body = _of_plain_lines(data)
                await send({"type": "http.response.body", "body": body, "more_body": True})
            if waiting.cancelled_caught:
                return
            if time.monotonic() >= check_s:
                check_s = time.monotonic() + _CHECK_EVERY_S
                if not await self._allowed():
                    return

    async def _until_gone(self, receive: Receive, scope: CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        scope.cancel()


def _of_plain_lines(data: bytes) -> bytes:
    """Events whose lines end where they should, also for readers that know more ends of lines."""
    # Within JSON, which holds all that is not ours, an escape means the same.
    for end, escaped in _OTHER_ENDS:
        data = data.replace(end, escaped)
    return data


_OTHER_ENDS = tuple(
    (char.encode(), f"\\u{ord(char):04x}".encode()) for char in ("\u2028", "\u2029", "\x85")
)
