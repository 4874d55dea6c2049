"""Tokens and secrets: shown once or never, gone at once, for administrators only."""

from __future__ import annotations

import os

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from onward.server.app import Parts
from onward.server.database import Base
from onward.server.security.secret_files import read_secret


def as_token(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def everything_stored(parts: Parts) -> str:
    """Every value of every row."""
    with parts.database.read() as session:
        return "\n".join(
            repr(tuple(row))
            for table in Base.metadata.sorted_tables
            for row in session.execute(text(f"SELECT * FROM {table.name}"))
        )


def test_a_token_is_shown_once_and_works_until_it_is_revoked(
    client: TestClient, parts: Parts
) -> None:
    """The repeated request makes no second one, and does not show it again."""
    key = {"Idempotency-Key": "one"}
    body = {"name": "ci", "scope": "write"}
    made = client.post("/api/v1/tokens", json=body, headers=key)
    again = client.post("/api/v1/tokens", json=body, headers=key)
    assert (made.status_code, again.status_code) == (201, 201)
    token = made.json()["token"]
    assert again.json() == {**made.json(), "token": None}
    assert token not in everything_stored(parts)
    assert client.get("/api/v1/health", headers=as_token(token)).status_code == 200
    revoked = client.delete(f"/api/v1/tokens/{made.json()['id']}")
    assert revoked.json()["revoked_at"] is not None
    assert client.get("/api/v1/health", headers=as_token(token)).status_code == 401


def test_an_expired_token_is_none(client: TestClient) -> None:
    """It is looked at whenever it is used."""
    made = client.post("/api/v1/tokens", json={"name": "short", "lifetime_s": 1e-6}).json()
    assert client.get("/api/v1/health", headers=as_token(made["token"])).status_code == 401


def test_the_last_administrators_token_stays(client: TestClient) -> None:
    """Nobody locks everybody out; with another one, it goes."""
    admin = next(
        row["id"]
        for row in client.get("/api/v1/tokens").json()["items"]
        if row["name"] == "admin-token"
    )
    refused = client.delete(f"/api/v1/tokens/{admin}")
    assert refused.status_code == 409
    assert "last administrator" in refused.json()["what"]
    client.post("/api/v1/tokens", json={"name": "other", "scope": "admin"})
    assert client.delete(f"/api/v1/tokens/{admin}").status_code == 200
    assert client.get("/api/v1/health").status_code == 401


def test_a_secret_goes_in_and_never_comes_out(client: TestClient, parts: Parts) -> None:
    """A file for its owner alone; no answer, no row holds it."""
    answer = client.put("/api/v1/secrets/store-key", json={"value": "canary-123\n"})
    shown = answer.text + client.get("/api/v1/secrets").text + client.get("/api/v1/audit").text
    assert answer.status_code == 200
    assert "canary" not in shown + everything_stored(parts)
    assert read_secret(parts.settings, "store-key") == "canary-123\n"
    path = parts.settings.secrets / "store-key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    client.put("/api/v1/secrets/store-key", json={"value": "another"})
    assert os.listdir(path.parent) == ["store-key"]
    assert client.delete("/api/v1/secrets/store-key").status_code == 200
    assert os.listdir(path.parent) == []
    assert client.delete("/api/v1/secrets/store-key").status_code == 404


@pytest.mark.parametrize("name", ["..", "../x", "a/b", "%2e%2e", ".hidden", "A", "x" * 64, "a%00"])
def test_a_secrets_name_is_no_path(client: TestClient, parts: Parts, name: str) -> None:
    """It names a file; it leads nowhere else."""
    answer = client.put(f"/api/v1/secrets/{name}", json={"value": "v"})
    assert answer.status_code in (404, 405, 422)
    assert not parts.settings.secrets.exists() or os.listdir(parts.settings.secrets) == []


def test_only_administrators_touch_them(client: TestClient, tokens: dict[str, str]) -> None:
    """Readers and writers are told what they lack."""
    for scope in ("read", "write"):
        headers = as_token(tokens[scope])
        for method, path, body in (
            ("GET", "/api/v1/tokens", None),
            ("POST", "/api/v1/tokens", {"name": "x", "scope": "admin"}),
            ("PUT", "/api/v1/secrets/x", {"value": "v"}),
            ("DELETE", "/api/v1/secrets/x", None),
            ("GET", "/api/v1/audit", None),
        ):
            answer = client.request(method, path, json=body, headers=headers)
            assert answer.status_code == 403, (method, path)
            assert answer.json()["why"] == "this needs the scope admin"


def test_the_audit_log_says_who_did_what(client: TestClient) -> None:
    """Newest first, in pages."""
    for number in range(3):
        client.post("/api/v1/tokens", json={"name": f"t{number}"})
    page = client.get("/api/v1/audit?limit=2").json()
    assert [entry["action"] for entry in page["items"]] == ["token.make", "token.make"]
    assert page["items"][0]["by"] == "admin-token"
    rest = client.get(f"/api/v1/audit?limit=2&cursor={page['next']}").json()
    assert [entry["action"] for entry in rest["items"]] == ["token.make"]
    assert rest["next"] is None
