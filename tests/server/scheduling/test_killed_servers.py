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
from pathlib import Path

import pytest

from onward.engines.folder import read_document
from onward.engines.processes import is_running
from onward.jobs.states import TERMINAL_JOBS
from tests.server.kills.laws import check
from tests.server.kills.lives import Ground, Lives, lives_of
from tests.server.kills.mortal import WHOLE
from tests.server.scheduling.scripts import COMMITTING, COUNTING
from tests.server.scheduling.workshop import Workshop

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
    else [("sqlite", ("pause",)), ("sqlite", ("cancel",)), ("postgresql", ("pause",))],
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
@pytest.mark.parametrize("point", range(1, 61) if FULL else (4, 13))
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


@pytest.mark.parametrize("database_url", DATABASES if FULL else ["sqlite"], indirect=True)
def test_killed_at_random_moments_while_twenty_jobs_run(workshop: Workshop, lives: Lives) -> None:
    """Jobs that crash, are paused, resumed, stopped and cancelled meanwhile, and whose agents are
    killed now and then: none is lost."""
    draw = random.Random(20261128)
    kills = 200 if FULL else 10
    life_s = 0.4
    steps = "800" if FULL else "30"
    jobs = [
        workshop.submit(
            COUNTING,
            *workshop.ledger(
                "--steps", steps, "--pause", "0.1", "--crash-at", str(draw.choice([-1, 1, 5]))
            ),
            output=f"out{number % 18}",  # some wait for others
            retries={"infrastructure": 999},
        )
        for number in range(20)
    ]
    done = agents = 0
    for _ in range(kills):
        lives.begin()
        time.sleep(draw.uniform(0.02, 2 * life_s))
        job = draw.choice(jobs)
        state = workshop.job(job).state
        if state == "paused":
            workshop.resume(job)
        elif state not in TERMINAL_JOBS and draw.random() < 0.3:
            workshop.ask(job, draw.choice(["pause"] * 12 + ["stop", "cancel"]))
        if draw.random() < 0.4:
            agents += kill_an_agent(workshop, draw)
        lives.kill()
        done += 1
    lives.begin()
    end_s = time.monotonic() + 240

    def go_on() -> bool:
        for job in jobs:
            if workshop.job(job).state == "paused":
                workshop.resume(job)
        return not all(workshop.job(job).state in TERMINAL_JOBS for job in jobs)

    while go_on():
        assert time.monotonic() < end_s, [
            (workshop.job(job).state, workshop.job(job).reason) for job in jobs
        ]
        time.sleep(0.1)
    lives.kill()
    check(workshop, *jobs)
    states = Counter(workshop.job(job).state for job in jobs)
    tries = sum(len(workshop.attempts(job)) for job in jobs)
    print(f"{done} kills, {agents} of agents, {tries} attempts, {states}")
    assert states["failed"] == 0, [workshop.job(job).reason for job in jobs]
    assert states["succeeded"] >= 1
