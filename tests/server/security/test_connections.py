"""Bytes as an attacker sends them: requests that two readers read differently, and those that never
end."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest
import uvicorn
from structlog.testing import capture_logs

from onward.server import connections
from onward.server.app import Parts
from onward.server.running import _config
from onward.server.security import login
from tests.server.api.house import wait_for

BULK = b"POST /api/v1/jobs/bulk HTTP/1.1\r\n"
HEALTH = b"GET /api/v1/health HTTP/1.1\r\n"
CLOSE = b"Connection: close\r\n"
HIDDEN = b"GET /api/v1/tokens HTTP/1.1\r\nHost: 127.0.0.1\r\n" + CLOSE + b"\r\n"
CHUNKS = b"0\r\n\r\n"

TWO_READINGS = [
    b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS,
    b"Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n" + CHUNKS,
    b"Content-Length: 2\r\nContent-Length: 40\r\n\r\n{}",
    b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    b"Content-Length: 2, 2\r\n\r\n{}",
    b"Content-Length: +2\r\n\r\n{}",
    b"Content-Length: 0x2\r\n\r\n{}",
    b"Transfer-Encoding: xchunked\r\n\r\n" + CHUNKS,
    b"Transfer-Encoding: chunked, identity\r\n\r\n" + CHUNKS,
    b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS,
    b"Transfer-Encoding: gzip, chunked\r\n\r\n" + CHUNKS,
    b"Transfer-Encoding : chunked\r\n\r\n" + CHUNKS,
    b"Transfer-Encoding: chunked\r\n\r\n0;a\nb\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
    b"Transfer-Encoding:\r\n chunked\r\n\r\n" + CHUNKS,
]


class Served:
    """The server's own protocol and application on a free port."""

    def __init__(self, port: int, token: str) -> None:
        self.port = port
        self.head = b"Host: 127.0.0.1\r\nAuthorization: Bearer " + token.encode() + b"\r\n"

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), 10)

    def sent(self, data: bytes) -> bytes:
        """What comes until the server closes."""
        with self.connect() as found:
            found.sendall(data)
            return read_all(found)


def read_all(found: socket.socket) -> bytes:
    got = b""
    try:
        while chunk := found.recv(1 << 16):
            got += chunk
    except ConnectionResetError:
        pass
    return got


@contextmanager
def served(parts: Parts, token: str) -> Iterator[Served]:
    config = _config(parts.settings, parts.database)
    config.lifespan = "off"
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener, capture_logs():
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            wait_for(lambda: server.started)
            yield Served(listener.getsockname()[1], token)
        finally:
            server.should_exit = server.force_exit = True
            thread.join(10)


@pytest.fixture
def patient(parts: Parts, tokens: dict[str, str]) -> Iterator[Served]:
    with served(parts, tokens["admin"]) as found:
        yield found


@pytest.fixture
def hurried(
    parts: Parts, tokens: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Served]:
    """For eight connections, and with little patience."""
    monkeypatch.setattr(connections, "HEAD_S", 0.5)
    monkeypatch.setattr(connections, "_SPARE", 4)
    monkeypatch.setattr(login, "_PATIENCE_S", 0.3)
    few = replace(parts, settings=replace(parts.settings, connections=8))
    with served(few, tokens["admin"]) as found:
        yield found


def test_a_request_that_may_be_read_in_two_ways_is_read_in_none(patient: Served) -> None:
    """What follows its body in one reading is never answered as a request of its own."""
    for body in TWO_READINGS:
        got = patient.sent(BULK + patient.head + body + HIDDEN)
        assert got.startswith(b"HTTP/1.1 400 "), body
        assert got.count(b"HTTP/1.1 ") == 1, body
    plain = BULK + patient.head + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS + HIDDEN
    assert patient.sent(plain).count(b"HTTP/1.1 ") == 2


def test_heads_with_other_line_ends_foldings_or_controls_are_refused(patient: Served) -> None:
    """What a filter before the server would read otherwise."""
    head = patient.head
    for request in (
        (HEALTH + head + b"\r\n").replace(b"\r\n", b"\n"),
        HEALTH + head.replace(b"127.0.0.1", b"127.0.0.1\r\n evil") + b"\r\n",
        HEALTH + head.replace(b"Bearer ", b"Bearer\r\n ") + b"\r\n",
        HEALTH + head.replace(b"127.0.0.1", b"127.0.0.1\rX: y") + b"\r\n",
        HEALTH + b"X: a\0b\r\n" + head + b"\r\n",
        HEALTH + b"X : y\r\n" + head + b"\r\n",
        b"CONNECT 127.0.0.1:22 HTTP/1.1\r\n" + head + b"\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n" + head + b"\r\n",
    ):
        assert patient.sent(request).startswith(b"HTTP/1.1 400 "), request


def test_names_and_tokens_that_come_twice_are_none(patient: Served) -> None:
    """Whichever a filter looked at, it is not the other one that counts."""
    head = patient.head
    for wrong, status in (
        (b"Authorization: Bearer no\r\n", b"401"), (b"Host: evil.example\r\n", b"421"),
    ):  # fmt: skip
        for both in (head + wrong, wrong + head):
            assert patient.sent(HEALTH + both + CLOSE + b"\r\n").startswith(b"HTTP/1.1 " + status)
    assert patient.sent(HEALTH + head + CLOSE + b"\r\n").startswith(b"HTTP/1.1 200 ")


def test_an_upgrade_is_an_ordinary_request_and_the_last_one(patient: Served) -> None:
    """There is no WebSocket: without a token 401 as everywhere, and what follows is not read."""
    upgrade = b"Connection: Upgrade\r\nUpgrade: %s\r\nSec-WebSocket-Version: 13\r\n\r\n"
    for kind in (b"websocket", b"h2c"):
        for head, status in ((patient.head, b"200"), (b"Host: 127.0.0.1\r\n", b"401")):
            with patient.connect() as found:
                found.sendall(HEALTH + head + upgrade % kind + HIDDEN)
                got = read_all(found)  # it closes by itself
            assert got.startswith(b"HTTP/1.1 " + status)
            assert got.count(b"HTTP/1.1 ") == 1


def test_a_head_without_end_is_cut_off(patient: Served) -> None:
    """In one header, in many, or in the path: after some tens of kilobytes, nobody reads on."""
    for begin, more in (
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ", b"a" * 4096),
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n", b"X: y\r\n" * 700),
        (b"GET /", b"a" * 4096),
    ):
        taken = 0
        with patient.connect() as found:
            try:
                found.sendall(begin)
                for _ in range(10_000):
                    found.sendall(more)
                    taken += len(more)
            except (BrokenPipeError, ConnectionResetError):
                pass
        assert taken < 30 << 20, begin  # of 40 MB; the rest is the kernel's buffers
    ok = HEALTH + patient.head + CLOSE + b"X: " + b"a" * 30_000 + b"\r\n\r\n"
    assert patient.sent(ok).startswith(b"HTTP/1.1 200 ")


def test_connections_that_say_nothing_make_room(hurried: Served) -> None:
    """Opened and silent, a head byte by byte, an answer and then silence, a body that drips after a
    refusal: each ends soon, and whoever has a token is served then."""
    request = HEALTH + hurried.head + CLOSE + b"\r\n"
    with ExitStack() as held:
        for _ in range(3):
            held.enter_context(hurried.connect())
            half = held.enter_context(hurried.connect())
            half.sendall(b"GET / HTTP/1.1\r\nHost: 127")
            refused = held.enter_context(hurried.connect())
            refused.sendall(BULK + b"Host: 127.0.0.1\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(20):  # beyond the spare ones, too
            held.enter_context(hurried.connect())
        drip = threading.Event()

        def dripping() -> None:
            while not drip.wait(0.05):
                for each in (half, refused):
                    try:
                        each.send(b"x")
                    except OSError:
                        return

        thread = threading.Thread(target=dripping)
        thread.start()
        try:
            wait_for(lambda: hurried.sent(request).startswith(b"HTTP/1.1 200 "), 10.0)
        finally:
            drip.set()
            thread.join()


def test_a_form_that_never_comes_is_not_waited_for(hurried: Served) -> None:
    """Signing in is the only thing that reads what a stranger sends."""
    with hurried.connect() as found:
        found.sendall(
            b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n"
            b"Content-Type: application/x-www-form-urlencoded\r\n\r\ntoken="
        )
        began_s = time.monotonic()
        got = read_all(found)
    assert got.startswith(b"HTTP/1.1 401 ")
    assert time.monotonic() - began_s < 8


def test_what_a_token_holder_asks_is_answered_however_long_it_takes(hurried: Served) -> None:
    """The clock stops when a request has come: a stream, here, outlives it."""
    with hurried.connect() as found:
        found.sendall(b"GET /api/v1/jobs/job-none/wait?timeout_s=2 HTTP/1.1\r\n")
        found.sendall(hurried.head + b"\r\n")
        assert found.recv(1 << 16).startswith(b"HTTP/1.1 404 ")
    slow = BULK + hurried.head + b"Content-Type: application/json\r\nContent-Length: 34\r\n\r\n"
    with hurried.connect() as found:
        found.sendall(slow)
        for part in (b'{"action":"stop"', b',"jobs":["job', b'-1"]}'):
            time.sleep(0.4)  # together longer than a head may take
            found.sendall(part)
        assert found.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
