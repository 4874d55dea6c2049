"""One connection of HTTP, with an end to patience: what strangers can hold costs little.

uvicorn reads a head of any length, for ever. Before anybody is known to have a token, a connection
may bring 64 KiB of head, has some seconds to bring it whole, and is one of so many.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_S = 20.0
"""From the beginning of a connection, or the end of an answer, to the end of the next head."""
_HEAD_BYTES = 64 << 10
_SPARE = 128
"""Connections beyond the limit are told so (503); so many beyond it are closed unheard."""
_UNTAKEN_MS = 60_000
"""The kernel ends a connection whose other side takes nothing for so long."""


class Connection(HttpToolsProtocol):
    """uvicorn's, which calls these as a request comes and goes."""

    _deadline: asyncio.TimerHandle | None = None
    _in_head = True
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self.limit_concurrency and len(self.connections) > self.limit_concurrency + _SPARE:
            transport.abort()
            return
        found = transport.get_extra_info("socket")
        with contextlib.suppress(OSError, AttributeError):  # of Linux, and of TCP alone
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNTAKEN_MS)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        # Looked at afterwards: what came may have been a body as well.
        if self._in_head and self._head_bytes > _HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("The head of the request is too long.")

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._in_head, self._head_bytes = False, 0
        self._forget_deadline()
        if self.parser.should_upgrade():
            self.cycle.keep_alive = False  # there is nothing to upgrade to, and nothing to follow

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_head = True

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete:  # no other request has come already
            self._await_head()

    def _unsupported_upgrade_warning(self) -> None:
        # Neither are packages missing, nor is it worth a line for every byte that follows.
        return

    def _await_head(self) -> None:
        self._forget_deadline()
        if not self.transport.is_closing():
            # To close would wait for the other side to take what was sent.
            self._deadline = self.loop.call_later(HEAD_S, self.transport.abort)

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
