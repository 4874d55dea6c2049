"""Servers that are killed: at every boundary of a transaction or of a call, and at any moment.

Whatever happens to it, the next server finds every job, starts nothing twice, and brings each to an
end. The scripts themselves notice a double: each holds a lock on its output as long as it lives,
and writes into a ledger when it begins.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from onward.engines.plain_files import read_document
from onward.engines.processes import is_running
from onward.jobs.states import TERMINAL_JOBS
from onward.server.security.tokens import make_token
from tests.server.kills.laws import check, check_messages
from tests.server.kills.lives import Client, Ground, Lives, lives_of
from tests.server.kills.mortal import WHOLE
from tests.server.kills.stories import Stage
from tests.server.scheduling.scripts import COMMITTING, COUNTING
from tests.server.scheduling.workshop import Workshop
from tests.server.webhooks.receiver import Receiver

DATABASES = ["sqlite", "postgresql"]
FULL = os.environ.get("ONWARD_TEST_SCALE") == "full"


@pytest.fixture
def lives(workshop: Workshop, ground: Ground, tmp_path: Path) -> Iterator[Lives]:
    with lives_of(ground, WHOLE, workshop.settings.folder, workshop.url, tmp_path / "home") as them:
        yield them


@pytest.mark.parametrize(
    ("database_url", "wishes"),
    list(itertools.product(DATABASES, [(), ("pause",), ("cancel",)]))
    if FULL
    else [("sqlite", ("pause",)), ("postgresql", ("cancel",))],
    indirect=["database_url"],
)
def test_killed_at_every_boundary(
    workshop: Workshop, lives: Lives, wishes: tuple[str, ...]
) -> None:
    """A server passes one boundary and dies before, or after, the next; then another one comes.

    Over the whole life of a job that crashes, is tried again, saves, is paused and resumed or
    cancelled, so that each boundary is where some server died.
    """
    job = workshop.submit(
        COMMITTING, *workshop.ledger("--steps", "5", "--pause", "0.1", "--crash-at", "2")
    )
    deaths = 0
    wanted = list(wishes)
    end_s = time.monotonic() + 120
    while workshop.job(job).state not in TERMINAL_JOBS:
        assert time.monotonic() < end_s
        # 1: before its first commit or call; 2: right after it, so that things go on.
        lives.begin("scheduler", 1 + deaths % 2)
        while lives.is_alive():
            assert time.monotonic() < end_s
            row = workshop.job(job)
            if wanted and row.committed and row.state == "running":
                workshop.ask(job, wanted.pop())
            if row.state == "paused":
                workshop.resume(job)
            if row.state in TERMINAL_JOBS:
                break
            time.sleep(0.01)
        else:
            lives.wait()
            deaths += 1
            continue
        lives.kill()
    assert deaths >= 6
    check(workshop, job)
    row = workshop.job(job)
    assert row.state == ("cancelled" if wishes == ("cancel",) else "succeeded"), row.reason
    if row.state == "succeeded":
        assert workshop.steps("out") == sorted(workshop.steps("out"))
        assert workshop.steps("out")[-1] >= 5


@pytest.mark.parametrize("database_url", DATABASES if FULL else ["sqlite"], indirect=True)
@pytest.mark.parametrize("point", range(1, 61) if FULL else (13,))
def test_killed_once_at_each_boundary(workshop: Workshop, lives: Lives, point: int) -> None:
    """A server that knows what it did dies at its Nth boundary; the next one ends the job."""
    job = workshop.submit(
        COUNTING, *workshop.ledger("--steps", "5", "--pause", "0.1", "--crash-at", "2")
    )
    lives.begin("scheduler", point)
    end_s = time.monotonic() + 120
    again = False
    while workshop.job(job).state not in TERMINAL_JOBS:
        assert time.monotonic() < end_s
        if not again and not lives.is_alive():
            lives.wait()
            lives.begin()
            again = True
        time.sleep(0.02)
    lives.kill()
    check(workshop, job)
    assert workshop.job(job).state == "succeeded", workshop.job(job).reason


@pytest.mark.parametrize("database_url", DATABASES if FULL else ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("wanted", "state"), [("pause", "paused"), ("stop", "cancelled"), ("cancel", "cancelled")]
)
def test_what_is_asked_before_the_next_server_starts_an_attempt(
    workshop: Workshop, lives: Lives, wanted: str, state: str
) -> None:
    """It was promised to an agent, and nothing of it is there: nobody starts it any more."""
    job = workshop.submit(COUNTING, *workshop.ledger())
    lives.begin("after scheduling/care.py Care.take")
    assert lives.wait() == -signal.SIGKILL
    workshop.ask(job, wanted)
    lives.until(lambda: workshop.job(job).state == state)
    assert not workshop.ledger_lines()


def kill_an_agent(shop: Workshop, draw: random.Random) -> int:
    """Kills one that lives, if there is any; returns how many."""
    found = [
        read_document(path) or {} for path in sorted(shop.settings.attempts.glob("*/agent.json"))
    ]
    living = [
        int(each["pid"]) for each in found
        if each.get("pid") and is_running(int(each["pid"]), int(each["started"]))
    ]  # fmt: skip
    if living:
        os.kill(draw.choice(living), signal.SIGKILL)
    return min(len(living), 1)


@dataclass
class Crowd:
    """People who ask things of jobs while servers die, and count what was done."""

    stage: Stage
    draw: random.Random
    jobs: list[str] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)

    def submit(self, digest: str, number: int, steps: int) -> None:
        crash_at = str(self.draw.choice([-1, 1, 5]))
        spec = self.stage.spec(
            digest, f"out{number}", "--steps", str(steps), "--pause", "0.1", "--crash-at", crash_at,
            retries={"infrastructure": 999}, notify=["team"],
        )  # fmt: skip
        self.jobs.append(self.stage.done("POST", "/jobs", json=spec)["id"])
        self.done["job.submit"] += 1

    def ask_something(self) -> None:
        job = self.draw.choice(self.jobs)
        state = self.stage.shop.job(job).state
        if state == "paused":
            self.ask(job, "resume")
        elif state not in TERMINAL_JOBS and self.draw.random() < 0.4:
            self.ask(job, self.draw.choice(["pause"] * 12 + ["stop", "cancel"]))

    def ask(self, job: str, what: str) -> None:
        answer = self.stage.client.ask("POST", f"/api/v1/jobs/{job}/{what}")
        assert answer.is_success or answer.status_code == 409, answer.text
        self.done[f"job.{what}"] += answer.is_success

    def resume_all(self) -> bool:
        """Whether all have ended."""
        states = {job: self.stage.shop.job(job).state for job in self.jobs}
        for job, state in states.items():
            if state == "paused":
                self.ask(job, "resume")
        return all(state in TERMINAL_JOBS for state in states.values())


@pytest.mark.timeout(1200 if FULL else 300)
@pytest.mark.parametrize("database_url", DATABASES if FULL else ["sqlite"], indirect=True)
def test_killed_at_random_moments_while_twenty_jobs_run(workshop: Workshop, lives: Lives) -> None:
    """Jobs that crash, are submitted, paused, resumed, stopped and cancelled meanwhile, and whose
    agents are killed now and then: none is lost. Whatever was asked for was done once, and every
    move was told. (In the sample they are fewer.)"""
    draw = random.Random(20261128)
    kills, number, steps = (200, 20, 800) if FULL else (10, 8, 40)
    with workshop.database.write() as session:
        token = make_token(session, "ada", "admin", by="test")[1]
    receiver = Receiver()
    crowd = Crowd(Stage(workshop, lives, Client(lives, token), receiver), draw)
    agents = 0
    try:
        crowd.stage.be_told()
        digest = crowd.stage.upload(COUNTING)
        lives.kill()
        lives.deaths.clear()
        # Long enough for some requests, however busy the machine is.
        began_s = time.monotonic()
        crowd.stage.done("GET", "/jobs")
        longest_s = max(0.8, 4 * (time.monotonic() - began_s))
        lives.moments = iter([draw.uniform(0.0, longest_s) for _ in range(kills)])
        lives.kill()
        lives.deaths.clear()
        while (deaths := len(lives.deaths)) < kills:
            for each in range(len(crowd.jobs), min(len(crowd.jobs) + 2, number)):
                crowd.submit(digest, each % (number * 9 // 10), steps)  # some wait for others
            crowd.ask_something()
            if draw.random() < 0.4:
                agents += kill_an_agent(workshop, draw)
            lives.until(lambda deaths=deaths: len(lives.deaths) > deaths)  # type: ignore[misc]
        lives.until(crowd.resume_all, timeout_s=240)
        crowd.stage.until_told()
    finally:
        receiver.close()
    check(workshop, *crowd.jobs)
    check_messages(workshop.database, receiver)
    audited = crowd.stage.audited()
    assert {action: audited[action] for action in crowd.done} == crowd.done
    states = Counter(workshop.job(job).state for job in crowd.jobs)
    tries = sum(len(workshop.attempts(job)) for job in crowd.jobs)
    again = sum(sent - 1 for sent in crowd.stage.client.sent)
    twice = len(receiver.received) - len({m.headers["webhook-id"] for m in receiver.received})
    print(
        f"{len(lives.deaths)} servers and {agents} agents killed; {dict(states)}, {tries} attempts;"
        f" {sum(crowd.done.values())} requests done, {again} sent again;"
        f" {len(receiver.received)} messages, {twice} of them again"
    )
    assert len(crowd.jobs) == number
    assert states["failed"] == 0, [workshop.job(job).reason for job in crowd.jobs]
    assert states["succeeded"] >= 1
