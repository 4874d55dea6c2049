"""What happens to a whole server while it is killed: each story passes many boundaries.

A story begins a server that dies at a point, goes on as people would, and holds the laws in the
end.
"""

from __future__ import annotations

import io
import os
import signal
import tarfile
from collections import Counter
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select, update

from onward.jobs.states import TERMINAL_JOBS
from onward.server.database.tables import Audit, Delivery, Job, Model, Schedule, Verification
from tests.cli.outputs import Output
from tests.server.kills.laws import check, check_messages, is_indexed
from tests.server.kills.lives import Client, Lives
from tests.server.scheduling.scripts import COMMITTING, COUNTING
from tests.server.scheduling.workshop import Workshop
from tests.server.webhooks.receiver import Receiver


@dataclass
class Stage:
    """A workshop, its servers, who asks them, and who is told."""

    shop: Workshop
    lives: Lives
    client: Client
    receiver: Receiver

    def done(self, method: str, path: str, **sent: Any) -> Any:
        answer = self.client.ask(method, f"/api/v1{path}", **sent)
        assert answer.is_success, (path, answer.text)
        return answer.json()

    def upload(self, script: str) -> str:
        """Code that is only this; returns its digest."""
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w") as tar:
            member = tarfile.TarInfo("train.py")
            member.size = len(script)
            tar.addfile(member, io.BytesIO(script.encode()))
        return str(self.done("POST", "/code", content=file.getvalue())["digest"])

    def spec(self, digest: str, output: str, *arguments: str, **more: Any) -> dict[str, Any]:
        return {
            "name": output, "command": ["train.py", *self.shop.ledger(*arguments)],
            "code": {"digest": digest}, "output": {"location": f"here:{output}"}, **more,
        }  # fmt: skip

    def be_told(self) -> None:
        """Registers the receiver as `team`."""
        self.done("PUT", "/secrets/signing", json={"value": "a key that signs"})
        hook = {"name": "team", "url": self.receiver.url, "secret": "signing"}
        self.done("POST", "/webhooks", json={**hook, "allow_private": True})

    def until_ended(self, *jobs: str) -> None:
        self.lives.until(lambda: all(self.shop.job(job).state in TERMINAL_JOBS for job in jobs))

    def until_told(self) -> None:
        def is_done() -> bool:
            with self.shop.database.read() as session:
                waiting = select(Delivery.id).where(Delivery.done_at.is_(None)).limit(1)
                return session.scalar(waiting) is None

        self.lives.until(is_done)

    def audited(self) -> Counter[str]:
        with self.shop.database.read() as session:
            return Counter(session.scalars(select(Audit.action)))


def two_jobs(stage: Stage, at: str) -> None:
    """One crashes, is tried again, paused, resumed and stopped; one waits for it and succeeds."""
    stage.lives.begin(at)
    stage.be_told()
    digest = stage.upload(COMMITTING)
    arguments = ("--steps", "9999", "--pause", "0.1", "--crash-at", "2")
    spec = stage.spec(digest, "out", *arguments, notify=["team"])
    long = stage.done("POST", "/jobs", json=spec)["id"]
    stage.lives.until(lambda: stage.shop.job(long).state != "queued")
    spec = stage.spec(digest, "out", "--steps", "1", notify=["team"])
    short = stage.done("POST", "/jobs", json=spec)["id"]
    stage.lives.until(lambda: "trains the same output" in stage.shop.job(short).reason)

    def goes_on(generation: int) -> bool:
        job = stage.shop.job(long)
        newest = stage.shop.attempts(long)[-1] if job.generation else None
        return bool(
            newest and job.state == "running" and job.generation >= generation and newest.saves
        )

    stage.lives.until(lambda: goes_on(2))
    stage.done("POST", f"/jobs/{long}/pause")
    stage.lives.until(lambda: stage.shop.job(long).state == "paused")
    stage.done("POST", f"/jobs/{long}/resume")
    stage.lives.until(lambda: goes_on(3))
    stage.done("POST", f"/jobs/{long}/stop")
    stage.until_ended(long, short)
    stage.until_told()
    stage.lives.until(lambda: is_indexed(stage.shop, "out"))
    check(stage.shop, long, short)
    check_messages(stage.shop.database, stage.receiver)
    assert (stage.shop.job(long).state, stage.shop.job(long).reason) == ("cancelled", "stopped")
    assert stage.shop.job(short).state == "succeeded", stage.shop.job(short).reason
    steps = stage.shop.steps("out")
    assert steps == sorted(set(steps))
    audited = stage.audited()
    once = ("code.upload", "webhook.register", "job.pause", "job.resume", "job.stop")
    assert {action: audited[action] for action in once} == dict.fromkeys(once, 1)
    assert audited["job.submit"] == 2


def an_agent_is_killed(stage: Stage, at: str) -> None:
    """Its script hears nothing, and is ended by force after its grace; the job fails once."""
    stage.lives.begin()
    stage.be_told()
    spec = stage.spec(
        stage.upload(COUNTING), "out", "--steps", "9999", "--deaf", grace_s=0.2,
        retries={"infrastructure": 0}, notify=["team"],
    )  # fmt: skip
    job = stage.done("POST", "/jobs", json=spec)["id"]
    stage.lives.until(lambda: "began" in stage.shop.ledger_lines() and stage.shop.agent_pid(job))
    stage.lives.kill()
    stage.lives.begin(at)
    os.kill(stage.shop.agent_pid(job), signal.SIGKILL)
    stage.until_ended(job)
    stage.until_told()
    check(stage.shop, job)
    check_messages(stage.shop.database, stage.receiver)
    assert [(each.state, each.cause) for each in stage.shop.attempts(job)] == [
        ("lost", "infrastructure")
    ]


def schedules(stage: Stage, at: str) -> None:
    """A tick that is due, one that cannot be answered, and a location with something new; beside
    them a job whose output is damaged."""
    stage.lives.begin()
    spec = stage.spec(stage.upload(COUNTING), "ticked", "--steps", "1")

    def made(name: str, **more: Any) -> str:
        asked = {"name": name, "kind": "cron", "cron": "0 0 1 1 *", "job": spec, **more}
        return str(stage.done("POST", "/schedules", json=asked)["id"])

    tick, lost = made("tick"), made("lost")
    data = {"data_url": {"location": "here:data", "pass_as": "env"}}
    watched = {**spec, "inputs": data, "output": {"location": "here:watched"}}
    watch = made("watch", kind="watch", cron="", job=watched)
    stage.lives.kill()
    log = stage.shop.folder / "outputs" / "broken" / "onward" / "log"
    log.mkdir(parents=True)
    (log / f"{0:020}.json").write_text("this is no record")
    broken = stage.shop.submit(COUNTING, output="broken")
    with stage.shop.database.write() as session:
        session.execute(update(Schedule).where(Schedule.kind == "cron").values(next_at=1.0))
        session.execute(update(Schedule).where(Schedule.id == lost).values(timezone="Nowhere/Lost"))
    data_folder = stage.shop.folder / "outputs" / "data"
    data_folder.mkdir()
    (data_folder / "new.csv").write_text("1\n")
    stage.lives.begin(at)

    def row(schedule: str) -> Schedule:
        with stage.shop.database.read() as session:
            return session.get_one(Schedule, schedule)

    def jobs() -> list[Job]:
        with stage.shop.database.read() as session:
            return list(session.scalars(select(Job).order_by(Job.output)))

    def problem(output: str) -> str:
        with stage.shop.database.read() as session:
            model = session.scalar(select(Model).where(Model.location == f"here:{output}"))
            return model.problem if model is not None else ""

    stage.lives.until(lambda: len(jobs()) >= 3 and "be looked at" in row(lost).reason)
    stage.until_ended(*(job.id for job in jobs()))
    # What cannot be indexed is said, and nothing else stops for it.
    stage.lives.until(lambda: bool(problem("broken")))
    check(stage.shop, *(job.id for job in jobs()))
    assert [(job.output, job.schedule, job.state) for job in jobs()] == [
        ("here:broken", None, "failed"), ("here:ticked", tick, "succeeded"),
        ("here:watched", watch, "succeeded"),
    ], [job.reason for job in jobs()]  # fmt: skip
    assert row(lost).last_job is None
    assert broken == jobs()[0].id


def every_byte_is_read(stage: Stage, at: str) -> None:
    """A checkpoint is read to its end, for one wish, by whichever server."""
    Output(stage.shop.folder / "outputs" / "checked").chain(2)
    stage.lives.begin(at)
    model = stage.done("POST", "/models", json={"location": "here:checked"})["id"]
    wish = stage.done(
        "POST", f"/models/{model}/checkpoints/latest/verify", json={"every_byte": True}
    )["id"]

    def found() -> Any:
        return stage.done("GET", f"/models/{model}/verifications/{wish}")

    stage.lives.until(lambda: found()["state"] not in ("waiting", "running"))
    assert found()["state"] == "ended", found()["problem"]
    assert found()["read_bytes"] > 0
    with stage.shop.database.read() as session:
        assert list(session.scalars(select(Verification.id))) == [wish]
