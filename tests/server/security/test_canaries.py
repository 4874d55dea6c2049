"""Secrets stay where they were put: a job that says all it knows, and all that is left of it."""

from __future__ import annotations

import io
import tarfile
import time
from pathlib import Path
from typing import Any

import httpx2
from sqlalchemy import text

from onward.server.database import Base, open_database
from tests.server.process import ServerProcess

SECRET = "canary-secret-4f1d9b"
KEY = "canary-storage-key-77aa"

SCRIPT = f"""\
import argparse, os, sys, time
import torch
import onward

parser = argparse.ArgumentParser()
parser.add_argument("--train_url")
args = parser.parse_args()
secret = os.environ["API_KEY"]
assert secret == {SECRET[::-1]!r}[::-1]
print("the key is", secret)
print(secret * 3, file=sys.stderr)
for char in secret:                      # in pieces, as a slow writer
    sys.stdout.write(char)
    sys.stdout.flush()
    time.sleep(0.005)
print()
model = torch.nn.Linear(2, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
run = onward.open(args.train_url, model=model, optimizer=optimizer)
batches = run.batches([torch.ones(4, 2)])
for epoch in run.epochs(1):
    for batch in batches:
        loss = model(batch).sum()
        optimizer.zero_grad(); loss.backward(); optimizer.step()
        run.step(loss=loss)
run.finish()
raise RuntimeError(f"cannot reach the service with {{secret}}")
"""


def archive(script: str) -> bytes:
    """A folder with one script."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as found:
        info = tarfile.TarInfo("train.py")
        info.size = len(script.encode())
        found.addfile(info, io.BytesIO(script.encode()))
    return raw.getvalue()


def ended(client: httpx2.Client, job: str) -> dict[str, Any]:
    end_s = time.monotonic() + 120
    while True:
        found: dict[str, Any] = client.get(f"/api/v1/jobs/{job}").json()
        if found["state"] in ("succeeded", "failed", "cancelled"):
            return found
        assert time.monotonic() < end_s, found
        time.sleep(0.1)


def files_with(folder: Path, words: list[str], besides: set[str]) -> list[str]:
    """Files that hold a word, in clear text."""
    return [
        str(path)
        for path in folder.rglob("*")
        if path.is_file()
        and not besides & set(path.relative_to(folder).parts)
        and any(word.encode() in path.read_bytes() for word in words)
    ]


def test_planted_canaries_appear_nowhere(server: ServerProcess, tmp_path: Path) -> None:
    """Not in a log, an event, an answer, a row, a checkpoint, or the server's own log."""
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    answers: list[str] = []
    with server.client() as client:
        client.event_hooks["response"].append(lambda answer: answers.append(answer.read().decode()))
        for name, value in (("api-key", SECRET), ("store-key", KEY)):
            assert client.put(f"/api/v1/secrets/{name}", json={"value": value}).status_code == 200
        made = client.post(
            "/api/v1/storages",
            json={"alias": "here", "url": str(outputs),
                  "environment": {"AWS_SECRET_ACCESS_KEY": "store-key"}},
        )  # fmt: skip
        assert made.status_code == 201, made.text
        digest = client.post("/api/v1/code", content=archive(SCRIPT)).json()["digest"]
        job = client.post(
            "/api/v1/jobs",
            json={
                "name": "tell", "command": ["train.py"], "code": {"digest": digest},
                "output": {"location": "here:out"}, "secrets": {"API_KEY": "api-key"},
                "retries": {"crash": 0},
            },
            headers={"Idempotency-Key": "once"},
        ).json()  # fmt: skip
        found = ended(client, job["id"])
        assert found["state"] == "failed", found
        log = client.get(f"/api/v1/jobs/{job['id']}/log/raw").text
        assert log.count("[secret]") >= 6
        for path in (
            f"/api/v1/jobs/{job['id']}", f"/api/v1/jobs/{job['id']}/attempts",
            f"/api/v1/jobs/{job['id']}/moves", f"/api/v1/jobs/{job['id']}/events",
            f"/api/v1/jobs/{job['id']}/metrics", f"/api/v1/jobs/{job['id']}/log",
            f"/api/v1/jobs/{job['id']}/log/search?q=key", "/api/v1/jobs", "/api/v1/storages",
            "/api/v1/secrets", "/api/v1/tokens", "/api/v1/audit", "/api/v1/models", "/metrics",
            "/api/v1/openapi.json", "/", "/jobs", f"/jobs/{job['id']}", "/models", "/schedules",
            "/settings",
        ):  # fmt: skip
            client.get(path, headers={"accept": "text/html" if "api" not in path else "*/*"})
    server.stop()
    words = [SECRET, KEY, server.token]
    assert list(outputs.rglob("*.safetensors")), "it saved a checkpoint"
    assert not [answer for answer in answers if any(word in answer for word in words)]
    assert files_with(outputs, words, set()) == []
    own = server.folder
    # The tests themselves read the first token from where the server printed it.
    assert files_with(own, words, {"secrets", "serve.log"}) == []
    printed = server.log.read_text()
    assert printed.count(server.token) == 1
    assert SECRET not in printed
    assert KEY not in printed
    database = open_database(server.database)
    with database.read() as session:
        rows = "\n".join(
            repr(tuple(row))
            for table in Base.metadata.sorted_tables
            for row in session.execute(text(f"SELECT * FROM {table.name}"))
        )
    database.close()
    assert job["id"] in rows
    assert not [word for word in words if word in rows]
