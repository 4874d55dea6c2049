"""A place to schedule jobs: a database, an engine, a storage, code, and a clock that is hurried."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import select

from onward.engines import Engine
from onward.errors import NotAnOutput
from onward.jobs.states import TERMINAL_JOBS
from onward.repository import open_repository
from onward.server.code.tree import digest_of
from onward.server.database import Database
from onward.server.database.tables import Attempt, Job, Move, Storage
from onward.server.jobs import requests
from onward.server.scheduling import Supervisor
from onward.server.settings import Settings
from onward.server.spec import JobRequest
from onward.stores import LocalStore

STORAGE = "here"


@dataclass
class Workshop:
    """Jobs are submitted as rows, as if their code was pinned; `supervisor` moves them on."""

    folder: Path
    database: Database
    engine: Engine
    settings: Settings = field(init=False)
    supervisor: Supervisor = field(init=False)
    slots: int = 4
    url: str = ""
    """Of the database, for other processes."""

    def __post_init__(self) -> None:
        self.settings = Settings(
            folder=self.folder / "server", slots=self.slots, first_backoff_s=0.05,
            longest_backoff_s=0.2, tick_s=0.02,
        )  # fmt: skip
        self.restart()
        (self.folder / "outputs").mkdir(parents=True, exist_ok=True)
        with self.database.write() as session:
            if session.get(Storage, STORAGE) is None:
                session.add(
                    Storage(
                        alias=STORAGE, url=str(self.folder / "outputs"), single_writer=False,
                        environment={}, created_at=0.0, created_by="test",
                    )
                )  # fmt: skip

    def restart(self) -> None:
        """Another supervisor, which remembers nothing."""
        self.supervisor = Supervisor(self.settings, self.database, self.engine)

    def code(self, files: Mapping[str, str]) -> str:
        """Pins code; returns its digest."""
        self.settings.code.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=self.settings.code))
        for name, text in files.items():
            path = temporary / "tree" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        digest = digest_of(temporary / "tree")
        if not (self.settings.code / digest).exists():
            temporary.rename(self.settings.code / digest)
        return digest

    def submit(self, script: str, *arguments: str, output: str = "out", **more: Any) -> str:
        """A job that runs this text; returns its id."""
        output_more = more.pop("output_options", {})
        request = JobRequest.model_validate(
            {
                "name": "a job", "command": ["train.py", *arguments],
                "code": {"digest": self.code({"train.py": script})},
                "output": {"location": f"{STORAGE}:{output}", **output_more},
                **more,
            }
        )  # fmt: skip
        with self.database.write() as session:
            return requests.submit(session, request, by="test").id

    def ask(self, job: str, wanted: str) -> None:
        with self.database.write() as session:
            requests.ask(session, requests.find_job(session, job), wanted, by="test")

    def resume(self, job: str) -> None:
        with self.database.write() as session:
            requests.resume(session, requests.find_job(session, job), by="test")

    def job(self, job: str) -> Job:
        with self.database.read() as session:
            return requests.find_job(session, job)

    def attempts(self, job: str) -> list[Attempt]:
        """Oldest first."""
        with self.database.read() as session:
            return requests.attempts_of(session, job)[::-1]

    def moves(self, job: str) -> list[tuple[str | None, str, str]]:
        with self.database.read() as session:
            rows = session.scalars(select(Move).where(Move.job == job).order_by(Move.id))
            return [(row.attempt, row.before, row.after) for row in rows]

    def reasons(self, job: str) -> list[str]:
        """Of the job's moves, in order."""
        with self.database.read() as session:
            rows = session.scalars(
                select(Move).where(Move.job == job, Move.attempt.is_(None)).order_by(Move.id)
            )
            return [row.reason for row in rows]

    def until(self, true: Callable[[], bool], *, timeout_s: float = 60.0) -> None:
        """Ticks until something is so."""
        end_s = time.monotonic() + timeout_s
        while not true():
            assert time.monotonic() < end_s, "it did not come about in time"
            self.supervisor.tick()
            time.sleep(0.02)

    def finish(self, *jobs: str, timeout_s: float = 60.0) -> list[str]:
        """Ticks until these jobs have ended; returns their states."""
        self.until(
            lambda: all(self.job(job).state in TERMINAL_JOBS for job in jobs), timeout_s=timeout_s
        )
        return [self.job(job).state for job in jobs]

    def ledger(self, *arguments: str) -> tuple[str, ...]:
        """Arguments of the scripts in `scripts.py`."""
        return ("--ledger", str(self.folder / "ledger"), *arguments)

    def ledger_lines(self) -> list[str]:
        """What scripts noted, without the attempts' names."""
        path = self.folder / "ledger"
        return [line.split()[1] for line in path.read_text().splitlines()] if path.exists() else []

    def agent_pid(self, job: str) -> int:
        """Of the newest attempt."""
        pid = self.attempts(job)[-1].pid
        assert pid
        return pid

    def steps(self, output: str) -> list[int]:
        """Of the checkpoints in an output, in order."""
        try:
            history = open_repository(LocalStore(self.folder / "outputs" / output)).history
        except NotAnOutput:
            return []
        return [commit.step for commit in history.live()]

    def log(self, job: str, number: int = -1) -> str:
        return (self.settings.attempts / self.attempts(job)[number].id / "log").read_text()
