"""Every route and every method: nobody without a token; who may read changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from onward.server.app import Parts, make_app
from onward.server.database.tables import Audit, Token
from onward.server.names import now_s
from onward.server.security.attempts import WrongTokens
from onward.server.security.limits import UPLOADS

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW")
UNSAFE = ("POST", "PUT", "PATCH", "DELETE")
AROUND = (
    "", "/", "//", "/nowhere", "/api", "/api/v1", "/api/v1/", "/api/v1/jobs/", "//api/v1/jobs",
    "/api/v1/../v1/jobs", "/api/v1/%6aobs", "/API/V1/JOBS", "/api/v1/jobs;x", "/api/v1/jobs%00",
    "/static/../../etc/passwd", "/openapi.json", "/docs", "/redoc", "/favicon.ico", "/robots.txt",
    "/.well-known/security.txt", "/metrics/", "/login", "/logout",
)  # fmt: skip


def routes(app: FastAPI) -> list[tuple[str, frozenset[str]]]:
    """Every path with its methods, from the router itself, mounted ones as well."""

    def walk(found: Any, prefix: str) -> Iterator[tuple[str, frozenset[str]]]:
        for route in found:
            inner = getattr(route, "routes", None) or getattr(
                getattr(route, "original_router", None), "routes", None
            )
            path = prefix + (getattr(route, "path", None) or getattr(route, "prefix", "") or "")
            if inner:
                yield from walk(inner, prefix)
            else:
                yield path, frozenset(getattr(route, "methods", None) or METHODS)

    return sorted(set(walk(app.routes, "")))


def filled(path: str) -> str:
    """A path with something in the place of each parameter."""
    return "/".join("job-x" if part.startswith("{") else part for part in path.split("/"))


def test_the_routes_are_really_found(app: FastAPI) -> None:
    """As many as the OpenAPI document has, and the console's beside them."""
    found = {path for path, _ in routes(app)}
    assert set(app.openapi()["paths"]) <= found
    assert len(found) > 40
    assert "/jobs/{job_id}" in found


def test_nobody_without_a_token_gets_anywhere(
    stranger: TestClient, app: FastAPI, parts: Parts, tokens: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """No token, a wrong one, an expired one, a revoked one: 401 for every route and method."""
    # All of these are from one address, which would soon be told so instead.
    monkeypatch.setattr(WrongTokens, "wait_s", lambda self, sender: 0)
    with parts.database.write() as session:
        rows = {row.name: row for row in session.query(Token)}
        rows["read-token"].expires_at = now_s() - 1
        rows["write-token"].revoked_at = now_s()
    shown: list[dict[str, str]] = [
        {},
        {"accept": "text/html"},
        {"authorization": "Bearer onw_wrong"},
        {"authorization": f"Bearer {tokens['read']}"},
        {"authorization": f"Bearer {tokens['write']}"},
        {"authorization": f"Basic {tokens['admin']}"},
        {"authorization": tokens["admin"]},
        {"authorization": "Bearer "},
        {"cookie": f"onward={tokens['admin']}"},
        {"x-forwarded-user": "admin", "x-real-ip": "127.0.0.1"},
    ]
    paths = [filled(path) for path, _ in routes(app)] + list(AROUND)
    asked = 0
    for index, path in enumerate(paths):
        for method in METHODS:
            for headers in shown if index % 7 == 0 else shown[index % len(shown) :][:2]:
                answer = stranger.request(method, path or "/", headers=headers)
                assert answer.status_code in (401, 405), (method, path, headers)
                asked += 1
    assert asked > 1000
    for query in ("token", "access_token", "authorization"):
        answer = stranger.get(f"/api/v1/jobs?{query}={tokens['admin']}")
        assert answer.status_code == 401


def test_a_token_to_read_changes_nothing(
    stranger: TestClient, app: FastAPI, parts: Parts, tokens: dict[str, str]
) -> None:
    """Every unsafe route refuses it, and leaves no entry in the audit log."""
    headers = {"authorization": f"Bearer {tokens['read']}"}
    reading = {"/api/v1/plan", "/look"}
    for path, methods in routes(app):
        for method in methods & set(UNSAFE):
            answer = stranger.request(method, filled(path), headers=headers, json={})
            allowed = (403, 404, 422, 405) if path not in reading else (200, 303, 422)
            assert answer.status_code in allowed, (method, path, answer.text)
    with parts.database.read() as session:
        assert session.query(Audit).count() == 0


def test_every_answer_tells_browsers_to_be_careful(stranger: TestClient, app: FastAPI) -> None:
    """Refusals as well as pages; nothing may be framed, sniffed or run that is not ours."""
    for path in ("/", "/api/v1/jobs", "/metrics", "/nowhere"):
        for accept in ("text/html", "*/*"):
            headers = stranger.get(path, headers={"accept": accept}).headers
            assert "default-src 'none'" in headers["content-security-policy"]
            assert "frame-ancestors 'none'" in headers["content-security-policy"]
            assert "unsafe" not in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cross-origin-resource-policy"] == "same-origin"
            assert "access-control-allow-origin" not in headers


def test_a_body_over_the_limit_is_not_read(parts: Parts, tokens: dict[str, str]) -> None:
    """By its announced length, or while it comes; archives have a limit of their own."""
    settings = replace(parts.settings, longest_body=1000, longest_upload=5000)
    app = make_app(replace(parts, settings=settings))
    headers = {"authorization": f"Bearer {tokens['admin']}"}
    told = 0

    def chunks(size: int) -> Iterator[bytes]:
        nonlocal told
        for _ in range(size // 100):
            told += 100
            yield b"x" * 100

    with TestClient(app, base_url="http://127.0.0.1:8420", headers=headers) as client:
        for content in (b"x" * 1001, chunks(100_000)):
            answer = client.post("/api/v1/jobs/bulk", content=content)
            assert answer.status_code == 413
            assert answer.json()["why"] == "the limit is 1,000 bytes"
        for path in UPLOADS:
            assert client.post(path, content=b"x" * 2000).status_code != 413
            assert client.post(path, content=b"x" * 5001).status_code == 413


def test_a_token_that_asks_too_often_waits_and_others_do_not(
    parts: Parts, tokens: dict[str, str]
) -> None:
    """429 with Retry-After."""
    app = make_app(replace(parts, settings=replace(parts.settings, requests_per_s=5.0)))
    with TestClient(app, base_url="http://127.0.0.1:8420") as client:
        answers = [
            client.get("/api/v1/health", headers={"authorization": f"Bearer {tokens['read']}"})
            for _ in range(40)
        ]
        assert {answer.status_code for answer in answers} == {200, 429}
        refused = [answer for answer in answers if answer.status_code == 429]
        assert {answer.headers["retry-after"] for answer in refused} == {"1"}
        other = client.get("/api/v1/health", headers={"authorization": f"Bearer {tokens['admin']}"})
        assert other.status_code == 200


@pytest.mark.parametrize(
    "value", ["a\r\nSet-Cookie: x=1", "a\nX: y", "é\r\n", "\x00", "a" * 300, "\x1b[31m"]
)
def test_headers_of_requests_do_not_become_headers_of_answers(
    stranger: TestClient, tokens: dict[str, str], value: str
) -> None:
    """An Idempotency-Key, a language or a path with line breaks stays where it was."""
    headers = {"authorization": f"Bearer {tokens['admin']}"}
    try:
        answer = stranger.post(
            "/api/v1/jobs/bulk", json={"action": "stop", "jobs": ["x"]},
            headers={**headers, "Idempotency-Key": value, "accept-language": value},
        )  # fmt: skip
    except (UnicodeEncodeError, ValueError):
        return  # the client itself cannot send it
    assert "x=1" not in str(answer.headers)
    quoted = stranger.get(
        "/login?next=/%0d%0aSet-Cookie:%20x=1&language=%0d%0aX:y", headers={"accept": "text/html"}
    )
    assert "set-cookie" not in quoted.headers or "x=1" not in quoted.headers["set-cookie"]
