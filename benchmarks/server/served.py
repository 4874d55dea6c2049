"""A real server in a temporary folder, with jobs in its database; and how much memory it has."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from onward.server.database import open_database
from onward.server.database.migrating import migrate
from onward.server.database.tables import Attempt, Job, Storage
from onward.server.names import new_id
from onward.server.security.tokens import make_token

_SPEC = {
    "name": "digits", "command": ["train.py", "--epochs", "3"], "code": {"digest": "0" * 64},
    "inputs": {"data_url": {"location": "here:data"}}, "output": {"location": "here:digits"},
}  # fmt: skip


@dataclass
class Served:
    """A server that answers."""

    port: int
    token: str
    folder: Path
    process: psutil.Process
    jobs: list[str]

    @property
    def headers(self) -> bytes:
        return f"Host: 127.0.0.1:{self.port}\r\nAuthorization: Bearer {self.token}\r\n".encode()

    @property
    def attempts(self) -> Path:
        return self.folder / "attempts"


@contextmanager
def served(*, jobs: int = 0, database: str = "") -> Iterator[Served]:
    """With so many jobs that have ended, each with an attempt."""
    with tempfile.TemporaryDirectory(prefix="onward-bench-") as name:
        folder = Path(name) / "server"
        folder.mkdir(mode=0o700)
        url = database or f"sqlite:///{folder / 'onward.db'}"
        token, ids = _seed(url, Path(name), jobs)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        command = [
            sys.executable, "-m", "onward.cli", "serve", "--folder", str(folder),
            "--port", str(port), "--database", url,
        ]  # fmt: skip
        log = Path(name) / "serve.log"
        environment = {**os.environ, "ONWARD_HOME": str(Path(name) / "home")}
        with log.open("wb") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
        try:
            _until_it_answers(port, process, log)
            yield Served(port, token, folder, psutil.Process(process.pid), ids)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _seed(url: str, place: Path, count: int) -> tuple[str, list[str]]:
    database = open_database(url)
    migrate(database)
    dice = random.Random(1)
    ids = []
    (place / "outputs").mkdir()
    with database.write() as session:
        token = make_token(session, "bench", "admin", by="bench")[1]
        session.add(
            Storage(
                alias="here", url=str(place / "outputs"), single_writer=False, environment={},
                created_at=0.0, created_by="bench",
            )
        )  # fmt: skip
        for number in range(count):
            id_ = new_id("job")
            ids.append(id_)
            at = 1.7e9 + number * 10
            session.add(
                Job(
                    id=id_, name=f"digits {number}", version=7, generation=1, wanted="run",
                    state=dice.choice(["succeeded"] * 8 + ["failed", "cancelled"]),
                    spec={**_SPEC, "name": f"digits {number}"}, output=f"here:digits/{number % 50}",
                    created_at=at, created_by=f"person {number % 9}", updated_at=at + 5,
                    started_at=at + 1, ended_at=at + 5, retried={}, fruitless=0, committed=True,
                    progress={"step": 100, "metrics": {"loss": 0.25, "accuracy": 0.91}},
                    reason="", cause="",
                )
            )  # fmt: skip
            session.flush()
            session.add(
                Attempt(
                    id=new_id("att"),
                    job=id_,
                    number=1,
                    state="exited",
                    engine="machine",
                    created_at=at,
                    version=3,
                )
            )
    database.close()
    return token, ids


def _until_it_answers(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end_s = time.monotonic() + 60
    while time.monotonic() < end_s:
        if process.poll() is not None:
            raise RuntimeError(log.read_text())
        try:
            with socket.create_connection(("127.0.0.1", port), 1):
                return
        except OSError:
            time.sleep(0.02)
    raise RuntimeError("the server does not answer: " + log.read_text())


class Memory:
    """The most memory that a process has while the context lasts, in bytes."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._stop = threading.Event()
        self.before = self.most = process.memory_info().rss
        self._thread = threading.Thread(target=self._look, daemon=True)

    @property
    def growth(self) -> int:
        return self.most - self.before

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(0.01):
            self.most = max(self.most, self._process.memory_info().rss)


LENGTH = re.compile(rb"content-length: (\d+)", re.I)
