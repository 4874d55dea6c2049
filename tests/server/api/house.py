"""A server's API over a database, without a scheduler: tests make what attempts would write."""

from __future__ import annotations

import io
import json
import socket
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import httpx2
import uvicorn
from sqlalchemy import select
from starlette.testclient import TestClient

from onward.engines.base import EVENTS, LOG, OUTCOME, Launch, Sighting
from onward.server.app import Parts, make_app
from onward.server.code import pin_archive
from onward.server.database import Database
from onward.server.database.tables import Attempt, Job
from onward.server.jobs import requests
from onward.server.jobs.moves import move_attempt, move_job
from onward.server.names import new_id, now_s
from onward.server.security.tokens import make_token
from onward.server.settings import Settings
from onward.server.spec import JobRequest
from tests.server.places import name_storage

DIGEST = "e08e3e3552d1d0deb027c3bcc18c300175b5335fbdee660e2a2432b4d94147c0"
"""Of a folder with an empty train.py."""

SPEC: dict[str, Any] = {
    "name": "digits",
    "command": ["train.py", "--epochs", "3"],
    "code": {"digest": DIGEST},
    "inputs": {"data_url": {"location": "here:data"}},
    "output": {"location": "here:digits"},
}


class NoEngine:
    """Starts nothing."""

    name = "none"

    def start(self, launch: Launch) -> None:
        return

    def look(self, folder: Path) -> Sighting:
        return Sighting("absent")

    def ask(self, folder: Path, what: str) -> None:
        return

    def destroy(self, folder: Path) -> None:
        return


class House:
    """One server with one administrator."""

    def __init__(self, folder: Path, database: Database) -> None:
        # Where a test's client starts the scheduler as well, jobs stay as the test moves them.
        self.settings = Settings(folder=folder / "server", tick_s=1e6)
        self.database = database
        name_storage(database, "here")
        pinned = pin_archive(self.settings, database, _code(), by="test", name="test")
        assert pinned.digest == SPEC["code"]["digest"]
        self.app = make_app(Parts(self.settings, database, NoEngine()))
        self.headers = {"authorization": f"Bearer {self.token('admin')}"}
        self.client = TestClient(
            self.app, base_url="http://127.0.0.1:8420", headers=self.headers,
            raise_server_exceptions=True,
        )  # fmt: skip

    def token(self, scope: str) -> str:
        with self.database.write() as session:
            return make_token(session, f"the {scope}", scope, by="test")[1]

    def job(self, **changes: Any) -> str:
        """A queued job."""
        with self.database.write() as session:
            request = JobRequest.model_validate({**SPEC, **changes})
            return requests.submit(session, request, by="test").id

    def attempt(self, job_id: str) -> Attempted:
        """A job that waits gets a running attempt."""
        with self.database.write() as session:
            job = requests.find_job(session, job_id)
            number = job.generation + 1
            attempt = Attempt(
                id=new_id("att"), job=job_id, number=number, state="created", engine="none",
                created_at=now_s(), version=1,
            )  # fmt: skip
            session.add(attempt)
            session.flush()
            if job.state == "running":
                move_job(session, job, "backoff", by="test")
            if job.state == "backoff":
                move_job(session, job, "queued", by="test")
            move_job(session, job, "running", by="test", generation=number)
            move_attempt(session, attempt, "leased", by="test")
            move_attempt(session, attempt, "running", by="test")
        folder = self.settings.attempts / attempt.id
        folder.mkdir(parents=True)
        return Attempted(self, job_id, attempt.id, number, folder)

    def move(self, job_id: str, state: str) -> None:
        with self.database.write() as session:
            move_job(session, requests.find_job(session, job_id), state, by="test")

    def end(self, job_id: str, state: str = "succeeded") -> None:
        """Whatever it is, it has ended."""
        with self.database.write() as session:
            job = requests.find_job(session, job_id)
            if job.state == "queued" and state == "succeeded":
                move_job(session, job, "running", by="test")
            move_job(session, job, state, by="test")

    def jobs(self) -> int:
        with self.database.read() as session:
            return len(session.scalars(select(Job.id)).all())

    @contextmanager
    def served(self) -> Iterator[httpx2.Client]:
        """Over a real connection, for what streams."""
        listener = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(self.app, log_level="error", lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            wait_for(lambda: server.started)
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            with httpx2.Client(base_url=url, headers=self.headers, timeout=20) as client:
                yield client
        finally:
            server.should_exit = server.force_exit = True
            thread.join(10)
            listener.close()


@dataclass
class Attempted:
    """An attempt, and what its agent would write."""

    house: House
    job: str
    id: str
    number: int
    folder: Path

    def prints(self, text: str | bytes) -> None:
        with (self.folder / LOG).open("ab") as file:
            file.write(text.encode() if isinstance(text, str) else text)

    def tells(self, *events: dict[str, Any]) -> None:
        with (self.folder / EVENTS).open("ab") as file:
            file.write(b"".join(json.dumps(event).encode() + b"\n" for event in events))

    def trains(self, *steps: int, loss: Any = lambda step: 1.0 / step) -> None:
        self.tells(
            *({"at": float(step), "kind": "training", "step": step, "metrics": {"loss": loss(step)}}
              for step in steps)
        )  # fmt: skip

    def ends(self) -> None:
        (self.folder / OUTCOME).write_text('{"exit_code": 0}')
        with self.house.database.write() as session:
            attempt = session.get(Attempt, self.id)
            assert attempt is not None
            move_attempt(session, attempt, "exited", by="test")


def _code() -> IO[bytes]:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("train.py"))
    return file


def wait_for(condition: Any, timeout_s: float = 20.0) -> None:
    end_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end_s, "what was waited for did not happen"
        time.sleep(0.005)


def events_of(lines: Iterator[str]) -> Iterator[tuple[str, str, Any]]:
    """Server-sent events as (id, event, data); comments are passed over."""
    id_, event, data = "", "", ""
    for line in lines:
        if line.startswith("id: "):
            id_ = line[4:]
        elif line.startswith("event: "):
            event = line[7:]
        elif line.startswith("data: "):
            data = line[6:]
        elif not line and event:
            yield id_, event, json.loads(data)
            id_, event, data = "", "", ""
