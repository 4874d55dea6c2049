"""Reading every byte of a checkpoint: asked for once, done by a thread, whatever is killed."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from onward.facts.child import damage_in_every_byte
from onward.server import children
from onward.server.app import Parts
from onward.server.database.tables import Audit, Verification
from onward.server.models import add_model, verifying
from onward.server.models.verifying import Verifier
from tests.cli.outputs import Output
from tests.server.lab import AddModel
from tests.server.process import ServerProcess


@pytest.fixture
def output(lab: Path) -> Output:
    """Two checkpoints."""
    found = Output(lab / "out")
    found.chain(2)
    return found


def rows(parts: Parts) -> list[Verification]:
    with parts.database.read() as session:
        return list(session.scalars(select(Verification).order_by(Verification.created_at)))


def asked(parts: Parts, model: str, checkpoint: str) -> str:
    with parts.database.write() as session:
        return verifying.ask(session, model, checkpoint, by="test").id


def ended(client: Any, at: str) -> dict[str, Any]:
    end_s = time.monotonic() + 60
    while True:
        found: dict[str, Any] = client.get(at).json()
        if found["state"] not in ("waiting", "running"):
            return found
        assert time.monotonic() < end_s, found
        time.sleep(0.02)


def test_a_request_is_answered_at_once_and_says_where_to_ask(
    client: TestClient, parts: Parts, output: Output, add: AddModel
) -> None:
    """202 with a place; sent again the same; another one joins it or, later, takes its place."""
    model = add("out")
    at = f"/api/v1/models/{model}/checkpoints/v2/verify"
    key = {"idempotency-key": "one"}
    first = client.post(at, json={"every_byte": True}, headers=key)
    assert first.status_code == 202
    place = first.headers["location"]
    assert place == f"/api/v1/models/{model}/verifications/{first.json()['id']}"
    found = ended(client, place)
    assert (found["state"], found["problem"], found["created_by"]) == ("ended", None, "admin-token")
    assert found["findings"]["intact"] is True
    assert found["findings"]["every_byte"] is True
    assert found["read_bytes"] == found["all_bytes"] == found["findings"]["bytes_read"] > 0
    again = client.post(at, json={"every_byte": True}, headers=key)
    assert (again.status_code, again.json(), len(rows(parts))) == (202, first.json(), 1)
    output.flip(next((output.folder / "onward" / "packs").iterdir()))
    later = client.post(at, json={"every_byte": True})
    assert later.json()["id"] != first.json()["id"]
    assert client.get(place).status_code == 404
    found = ended(client, later.headers["location"])
    assert found["findings"]["intact"] is False
    with parts.database.read() as session:
        entries = [(row.action, row.by) for row in session.scalars(select(Audit))]
    assert entries == [("model.verify", "admin-token")] * 2


def test_one_that_is_under_way_is_joined(
    parts: Parts, output: Output, add: AddModel
) -> None:  # fmt: skip
    """However many ask for a checkpoint, it is read once; another one is another one."""
    model = add("out")
    first, second = output.repository.history.commits
    ids = [asked(parts, model, first) for _ in range(3)]
    assert len(set(ids)) == 1
    assert asked(parts, model, second) not in ids
    verifier = Verifier(parts.settings, parts.database)
    assert [verifier.read_next() for _ in range(3)] == [True, True, False]
    assert [row.state for row in rows(parts)] == ["ended", "ended"]


def test_what_a_killed_server_was_reading_is_read_by_the_next(
    parts: Parts, output: Output, add: AddModel
) -> None:
    """Its row says that it is running, and nobody is: it is read from the beginning."""
    model = add("out")
    asked(parts, model, next(iter(output.repository.history.commits)))
    with parts.database.write() as session:
        row = session.scalars(select(Verification)).one()
        row.state, row.read_bytes, row.all_bytes = "running", 10**9, 10**9
    assert Verifier(parts.settings, parts.database).read_next()
    (row,) = rows(parts)
    assert (row.state, row.read_bytes, row.findings["intact"]) == ("ended", row.all_bytes, True)


def test_a_server_that_is_killed_and_started_again_ends_what_was_asked(
    server: ServerProcess, tmp_path: Path
) -> None:
    """Killed right after it answered; its child ends by itself."""
    output = Output(tmp_path / "lab" / "out")
    (commit,) = output.chain(1)
    with server.client() as client:
        made = client.post("/api/v1/storages", json={"alias": "lab", "url": str(tmp_path / "lab")})
        assert made.status_code == 201, made.text
        model = client.post("/api/v1/models", json={"location": "lab:out"}).json()["id"]
        at = f"/api/v1/models/{model}/checkpoints/{commit.checkpoint}/verify"
        key = {"idempotency-key": "one"}
        answer = client.post(at, json={"every_byte": True}, headers=key)
        assert answer.status_code == 202, answer.text
    server.kill()
    server.start()
    with server.client() as client:
        again = client.post(at, json={"every_byte": True}, headers=key)
        assert again.json() == answer.json()
        found = ended(client, answer.headers["location"])
        assert found["findings"]["intact"] is True
    assert server.stop() == 0


def test_a_server_that_stops_leaves_it_to_the_next(
    parts: Parts, output: Output, add: AddModel
) -> None:
    """Told to stop while it reads, it ends its child and calls it no failure."""
    model = add("out")
    asked(parts, model, next(iter(output.repository.history.commits)))
    verifier = Verifier(parts.settings, parts.database)
    verifier._stopping.set()
    assert not verifier.read_next()
    assert [row.state for row in rows(parts)] == ["running"]
    assert not children._running
    assert Verifier(parts.settings, parts.database).read_next()
    assert [row.state for row in rows(parts)] == ["ended"]


def test_what_cannot_be_read_fails_with_its_reason(
    parts: Parts, output: Output, add: AddModel
) -> None:
    """A checkpoint that is gone by then; a model that nobody lists."""
    model = add("out")
    asked(parts, model, "0" * 32)
    asked(parts, "mdl-" + "0" * 20, "1" * 32)
    verifier = Verifier(parts.settings, parts.database)
    assert [verifier.read_next() for _ in range(3)] == [True, True, False]
    failed = rows(parts)
    assert [row.state for row in failed] == ["failed", "failed"]
    assert all(row.problem["what"] for row in failed)


def test_a_store_that_gives_nothing_ends_it(
    parts: Parts, output: Output, add: AddModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an hour in which nothing was read; here after none."""
    model = add("out")
    asked(parts, model, next(iter(output.repository.history.commits)))
    monkeypatch.setattr(verifying, "_SILENCE_S", -1.0)
    assert Verifier(parts.settings, parts.database).read_next()
    (row,) = rows(parts)
    assert row.state == "failed"
    assert row.problem["what"].startswith("nothing could be read")


def test_a_child_whose_server_was_killed_ends(
    output: Output, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody reads a terabyte for nobody."""
    monkeypatch.chdir(tmp_path)
    facts = {"url": str(output.folder), "checkpoint": "v1"}
    assert damage_in_every_byte(facts)["intact"]
    parents = iter([os.getpid()])
    monkeypatch.setattr(os, "getppid", lambda: next(parents, 1))
    with pytest.raises(SystemExit):
        damage_in_every_byte(facts)


def test_readers_may_look_and_may_not_ask(
    client: TestClient, parts: Parts, output: Output, tokens: dict[str, str], lab: Path
) -> None:
    """Reading every byte is work that somebody pays for."""
    with parts.database.write() as session:
        model = add_model(session, "lab:out").id
    reader = {"authorization": f"Bearer {tokens['read']}"}
    at = f"/api/v1/models/{model}/checkpoints/v1/verify"
    assert client.post(at, json={"every_byte": True}, headers=reader).status_code == 403
    place = client.post(at, json={"every_byte": True}).headers["location"]
    assert client.get(place, headers=reader).status_code == 200
    assert client.get(place.replace("ver-", "ver-2"), headers=reader).status_code == 404
