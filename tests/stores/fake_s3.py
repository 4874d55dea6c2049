"""A small S3 server that misbehaves as told: for what no real server does on request."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeAlias
from urllib.parse import parse_qs, unquote, urlsplit

from onward.stores import ObjectStore, parse

KEYS = {"AWS_ACCESS_KEY_ID": "ak12345", "AWS_SECRET_ACCESS_KEY": "hunter2hunter2"}


@dataclass(frozen=True)
class Request:
    """One request; `query` holds the first value of each name."""

    method: str
    key: str
    query: dict[str, str]
    body: bytes


Answer: TypeAlias = tuple[int, bytes] | None


@dataclass
class FakeS3:
    """Objects of one bucket, and everything that can go wrong with them.

    `answer` may answer a request instead of the server, with a status and a body. `stored` changes
    bytes on their way in, `etag` makes ETags. `lose_reply` stores, then hangs up. Each number in
    `cuts` ends one download after that many bytes.
    """

    port: int = 0
    objects: dict[str, bytes] = field(default_factory=dict)
    etags: dict[str, str] = field(default_factory=dict)
    uploads: dict[str, dict[int, bytes]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    answer: Callable[[Request], Answer] = lambda _: None
    stored: Callable[[bytes], bytes] = lambda data: data
    etag: Callable[[str], str] = lambda honest: honest
    lose_reply: Callable[[Request], bool] = lambda _: False
    cuts: list[int] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def store(self, *, deadline_s: float = 10.0) -> ObjectStore:
        """A store in this server's bucket."""
        location = parse(f"s3://bucket?endpoint=http://127.0.0.1:{self.port}")
        return ObjectStore(location, deadline_s=deadline_s, environment=KEYS)

    def count(self, method: str) -> int:
        """How many requests of this method came."""
        return sum(request.method == method for request in self.requests)

    def keep(self, key: str, data: bytes, honest_etag: str) -> str:
        """Store an object and give its ETag."""
        self.objects[key] = self.stored(data)
        self.etags[key] = f'"{self.etag(honest_etag)}"'
        return self.etags[key]


@contextmanager
def fake_s3() -> Iterator[FakeS3]:
    """A running server, on a port of its own."""
    fake = FakeS3()

    class Handler(_Handler):
        server_of = fake

    server = _QuietServer(("127.0.0.1", 0), Handler)
    fake.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def error(code: str, message: str = "as told") -> bytes:
    """An error document as S3 servers write it."""
    return f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Clients that hang up are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_of: FakeS3

    def do_GET(self) -> None:
        self._handle()

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _handle(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query, True).items()}
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        key = unquote(parts.path).removeprefix("/bucket").removeprefix("/")
        request = Request(self.command, key, query, body)
        fake = self.server_of
        with fake.lock:
            fake.requests.append(request)
            told = fake.answer(request)
            if told is None:
                status, reply, headers = self._perform(request)
            else:
                (status, reply), headers = told, {}
        if fake.lose_reply(request):
            self.close_connection = True
            return
        self._reply(status, reply, headers)

    def _reply(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        self.send_header("content-length", headers.pop("content-length", str(len(body))))
        self.send_header("last-modified", "Wed, 21 Oct 2026 07:28:00 GMT")
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.command == "GET" and status < 300 and self.server_of.cuts:
            self.wfile.write(body[: self.server_of.cuts.pop(0)])
            self.close_connection = True
            return
        self.wfile.write(body)

    def _perform(self, request: Request) -> tuple[int, bytes, dict[str, str]]:
        fake, key, query = self.server_of, request.key, request.query
        if request.method == "POST" and "uploads" in query:
            fake.uploads[key] = {}
            return 200, _xml("InitiateMultipartUploadResult", UploadId="upload"), {}
        if "uploadId" in query and key not in fake.uploads:
            return 404, error("NoSuchUpload"), {}
        if request.method == "PUT" and "partNumber" in query:
            fake.uploads[key][int(query["partNumber"])] = request.body
            return 200, b"", {"etag": f'"{_md5(request.body)}"'}
        if request.method == "POST" and "uploadId" in query:
            pieces = [piece for _, piece in sorted(fake.uploads.pop(key).items())]
            of_parts = b"".join(hashlib.md5(piece).digest() for piece in pieces)
            etag = fake.keep(key, b"".join(pieces), f"{_md5(of_parts)}-{len(pieces)}")
            return 200, _xml("CompleteMultipartUploadResult", ETag=etag), {}
        if request.method == "DELETE":
            (fake.uploads if "uploadId" in query else fake.objects).pop(key, None)
            return 204, b"", {}
        if request.method == "PUT":
            if key in fake.objects and self.headers.get("if-none-match") == "*":
                return 412, error("PreconditionFailed"), {}
            return 200, b"", {"etag": fake.keep(key, request.body, _md5(request.body))}
        if key not in fake.objects:
            return 404, error("NoSuchKey"), {}
        return self._read(fake.objects[key], {"etag": fake.etags[key]})

    def _read(self, data: bytes, headers: dict[str, str]) -> tuple[int, bytes, dict[str, str]]:
        wanted = self.headers.get("range")
        if wanted is None:
            return 200, data, headers
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        start, stop = int(first), min(int(last or len(data)) + 1, len(data))
        if start >= len(data):
            return 416, error("InvalidRange"), {}
        headers["content-range"] = f"bytes {start}-{stop - 1}/{len(data)}"
        return 206, data[start:stop], headers


def _md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def _xml(name: str, **values: str) -> bytes:
    inner = "".join(f"<{key}>{value}</{key}>" for key, value in values.items())
    return f"<{name}><Bucket>bucket</Bucket><Key>k</Key>{inner}</{name}>".encode()
