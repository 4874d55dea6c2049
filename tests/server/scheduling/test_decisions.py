"""What the scheduler decides, with agents that exist in memory and do what a test tells them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from onward.engines import Launch
from onward.engines.memory import MemoryAgent, MemoryEngine
from onward.jobs.states import ATTEMPT_MOVES, JOB_MOVES, TERMINAL_JOBS
from onward.server.database import Database
from onward.server.database.tables import Attempt, Job
from onward.server.jobs.moves import move_job
from onward.server.problems import IllegalMove
from onward.server.scheduling import care
from tests.server.scheduling.workshop import Workshop


class Office(Workshop):
    """A workshop whose agents are in memory."""

    def agent(self, job: str) -> MemoryAgent:
        """Of the newest attempt."""
        assert isinstance(self.engine, MemoryEngine)
        return self.engine.agent(self.attempts(job)[-1].id)

    def run(self, **more: Any) -> str:
        """A job that runs."""
        job = self.submit("", **more)
        self.until(lambda: self.states(job) == ("running", "running"))
        return job

    def states(self, job: str) -> tuple[str, str]:
        """Of the job and its newest attempt."""
        attempts = self.attempts(job)
        return self.job(job).state, attempts[-1].state if attempts else ""

    def look(self, times: int = 3) -> None:
        for _ in range(times):
            self.supervisor.tick()

    def set(self, job: str, **facts: float) -> None:
        """Times of the newest attempt, as if they had passed."""
        with self.database.write() as session:
            attempt = session.get_one(Attempt, self.attempts(job)[-1].id)
            for name, value in facts.items():
                setattr(attempt, name, value)


@pytest.fixture
def office(tmp_path: Path, database: Database) -> Office:
    return Office(tmp_path, database, MemoryEngine())


def test_what_is_asked_is_written_before_it_is_asked(office: Office) -> None:
    """A server that dies in between asks again."""
    seen: list[str] = []
    engine = office.engine
    assert isinstance(engine, MemoryEngine)
    ask = engine.ask

    def spy(folder: Path, what: str) -> None:
        with office.database.read() as session:
            seen.append(session.get_one(Attempt, folder.name).asked)
        ask(folder, what)

    engine.ask = spy  # type: ignore[method-assign]
    job = office.run()
    office.ask(job, "pause")
    office.until(lambda: office.job(job).state == "paused")
    assert seen
    assert set(seen) == {"stop"}


def test_a_stronger_wish_is_asked_for_too(office: Office) -> None:
    """Pause, then cancel: the agent is killed, and the job is cancelled."""
    job = office.run()
    office.agent(job).deaf = True
    office.ask(job, "pause")
    office.until(lambda: office.agent(job).asked == "stop")
    office.ask(job, "cancel")
    office.until(lambda: office.agent(job).asked == "kill")
    office.agent(job).end(1, exit_status=-9)
    assert office.finish(job) == ["cancelled"]


def test_what_was_not_pushed_is_listed(office: Office) -> None:
    """A cancelled job says what of it is only on that machine, if anything is."""
    job = office.run()
    office.agent(job).deaf = True
    office.ask(job, "cancel")
    office.agent(job).end(
        1, cause="infrastructure", exit_status=-9, lost=("checkpoint abc (step 7)",)
    )
    assert office.finish(job) == ["cancelled"]
    assert office.job(job).reason == "cancelled; NOT pushed: checkpoint abc (step 7)"
    assert office.attempts(job)[0].outcome["lost"] == ["checkpoint abc (step 7)"]


def test_a_job_that_ends_while_it_is_asked_to_pause_has_succeeded(office: Office) -> None:
    job = office.run()
    office.agent(job).deaf = True
    office.ask(job, "pause")
    office.look()
    office.agent(job).end(0)
    assert office.finish(job) == ["succeeded"]


def test_a_wish_before_the_start_needs_no_agent(office: Office) -> None:
    """Cancelled between being chosen and being leased: nothing is started."""
    job = office.submit("")
    office.supervisor.tick()
    assert office.states(job) == ("running", "created")
    office.ask(job, "cancel")
    assert office.finish(job) == ["cancelled"]
    assert isinstance(office.engine, MemoryEngine)
    assert not office.engine._agents


def test_hang_counts_from_the_last_sign_of_life(office: Office) -> None:
    job = office.run(hang_minutes=10.0)
    agent = office.agent(job)
    now = office.attempts(job)[0].running_at or 0.0
    office.set(job, running_at=now - 3600)
    agent.heard_at = now - 540
    office.look()
    assert agent.asked == ""
    agent.heard_at = now - 620
    office.look()
    assert agent.asked == "stop"
    assert office.attempts(job)[0].cause == "hang"


def test_no_limit_means_no_hang_and_no_timeout(office: Office) -> None:
    job = office.run(hang_minutes=0.0)
    office.set(job, running_at=1.0)
    office.look()
    assert office.agent(job).asked == ""


def test_backoff_doubles_until_something_is_saved(office: Office) -> None:
    """Each failure waits twice as long; a new checkpoint begins anew."""
    job = office.run(retries={"infrastructure": 99})
    for number, saves in enumerate((0, 0, 0, 1, 0), 1):
        office.agent(job).end(1, cause="infrastructure", saves=saves)
        office.until(lambda number=number: len(office.attempts(job)) > number)
        office.until(lambda: office.states(job) == ("running", "running"))
    texts = [text for text in office.reasons(job) if "retry" in text]
    waits = [float(text.rsplit(" in ", 1)[1].split()[0]) for text in texts]
    assert waits == [0.05, 0.1, 0.2, 0.05, 0.05]


@pytest.mark.parametrize(
    ("cause", "state"),
    [("preemption", "preempted"), ("out-of-memory", "out-of-memory"), ("crash", "exited"),
     ("infrastructure", "exited"), ("fenced", "fenced")],
)  # fmt: skip
def test_each_cause_has_its_own_budget(office: Office, cause: str, state: str) -> None:
    """With one retry for it, the second such end fails the job; being fenced is never retried."""
    name = cause.replace("-", "_")
    retries = {name: 1} if cause != "fenced" else {}
    job = office.run(retries=retries)
    office.agent(job).end(1, cause=cause, saves=1)
    if cause != "fenced":
        office.until(lambda: len(office.attempts(job)) == 2)
        office.until(lambda: office.states(job) == ("running", "running"))
        office.agent(job).end(1, cause=cause, saves=1)
    assert office.finish(job) == ["failed"]
    assert {attempt.state for attempt in office.attempts(job)} == {state}
    assert office.job(job).cause == cause


def test_a_loop_is_one_at_the_same_step(office: Office) -> None:
    """Crashes at different steps are no loop; three at one step are."""
    job = office.run(retries={"crash": 99})
    for step in (5, 6, 7, 7, 7):
        office.until(lambda: office.states(job) == ("running", "running"))
        office.agent(job).tell("training", step=step)
        office.agent(job).end(1, cause="crash", exit_status=3)
        count = len(office.attempts(job))
        office.until(
            lambda count=count: (
                office.job(job).state == "failed"
                or (len(office.attempts(job)) > count and office.states(job)[1] == "running")
            )
        )
    assert office.job(job).state == "failed"
    assert len(office.attempts(job)) == 5
    assert "3 attempts in a row ended at step 7" in office.job(job).reason


def test_an_agent_that_does_not_react_is_destroyed(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After grace and the longest last push; not before."""
    job = office.run(grace_s=50)
    agent = office.agent(job)
    agent.deaf = True
    office.ask(job, "stop")
    office.look()
    asked_at = office.attempts(job)[0].asked_at or 0.0
    office.set(job, asked_at=asked_at - 50 - care.LAST_PUSH_S)
    office.look()
    assert not agent.is_gone
    office.set(job, asked_at=asked_at - 50 - care.LAST_PUSH_S - care._SLACK_S - 1)
    assert office.finish(job) == ["cancelled"]
    assert agent.is_gone
    assert office.attempts(job)[0].state == "lost"


def test_what_an_agent_left_running_is_waited_for(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next attempt begins when nothing of the last one is left."""
    job = office.run(grace_s=3000)
    agent = office.agent(job)
    agent.vanish(leftover=True)
    office.look()
    assert office.states(job) == ("running", "running")
    agent.leftover = False
    office.until(lambda: len(office.attempts(job)) == 2)


def test_an_agent_that_never_comes_is_given_up(office: Office) -> None:
    """Nobody may take the attempt after that, and the job is tried again."""
    engine = office.engine
    assert isinstance(engine, MemoryEngine)
    start, starts = engine.start, []
    engine.start = starts.append  # type: ignore[method-assign]
    job = office.submit("")
    office.until(lambda: bool(starts))
    office.set(job, leased_at=1.0)
    office.restart()
    engine.start = start  # type: ignore[method-assign]
    office.until(lambda: len(office.attempts(job)) == 2)
    first = office.attempts(job)[0]
    assert (first.state, first.cause, first.reason) == (
        "lost", "infrastructure", "no agent came for it",
    )  # fmt: skip
    late: Launch = starts[0]
    engine.start(late)
    assert engine.look(late.folder).state == "gone"


def test_slots_are_kept_to_and_the_oldest_comes_first(office: Office) -> None:
    jobs = [office.submit("", output=f"o{number}") for number in range(6)]
    office.look(5)
    assert [office.job(job).state for job in jobs] == ["running"] * 4 + ["queued"] * 2
    assert office.job(jobs[4]).reason == "waits for a free slot: 4 of 4 are taken"
    office.agent(jobs[2]).end(0)
    office.until(lambda: office.job(jobs[4]).state == "running")
    assert office.job(jobs[5]).state == "queued"


def test_what_is_wrong_with_one_job_does_not_hold_up_the_others(
    office: Office, caplog: pytest.LogCaptureFixture
) -> None:
    """One whose document cannot be read, while it runs, and one that cannot be started for it."""
    broken = office.run()
    queued = office.submit("", output="b")
    with office.database.write() as session:
        for job in (broken, queued):
            row = session.get_one(Job, job)
            row.spec = {"nonsense": True}
    other = office.run(output="c")
    office.agent(other).end(0)
    assert office.finish(other, queued) == ["succeeded", "failed"]
    assert "this version of the server cannot read" in office.job(queued).reason
    assert caplog.text.count("could not be looked after") == 1


def test_a_job_cannot_leave_its_end(office: Office) -> None:
    job = office.run()
    office.agent(job).end(0)
    office.finish(job)
    with office.database.write() as session, pytest.raises(IllegalMove):
        move_job(session, session.get_one(Job, job), "queued", by="test")


def test_progress_overtakes_nobody(office: Office) -> None:
    """What is told raises no version: a decision on the row as it was still counts."""
    job = office.run()
    before = office.job(job)
    office.agent(job).tell("training", step=5, metrics={"loss": 1.0})
    office.until(lambda: office.job(job).progress.get("step") == 5)
    assert office.job(job).version == before.version


def test_any_order_of_events_is_legal_and_ends(office: Office) -> None:
    """Random wishes, ends, losses and new servers: no illegal move, and everything ends."""
    draw = random.Random(7)
    jobs = [office.submit("", output=f"o{number % 5}") for number in range(12)]
    for _ in range(400):
        job = draw.choice(jobs)
        state = office.states(job)
        match draw.randrange(8):
            case 0 if state[1] == "running":
                office.agent(job).end(0, saves=draw.randrange(2))
            case 1 if state[1] == "running":
                office.agent(job).end(1, cause=draw.choice(["crash", "infrastructure"]), saves=1)
            case 2 if state[1] == "running":
                office.agent(job).vanish()
            case 3 if state[0] not in TERMINAL_JOBS:
                office.ask(job, draw.choice(["pause", "pause", "stop", "cancel"]))
            case 4 | 5 if state[0] == "paused":
                office.resume(job)
            case 6:
                assert isinstance(office.engine, MemoryEngine)
                office.engine = office.engine.again()
                office.restart()
            case _:
                office.supervisor.tick()
    end = [job for job in jobs if office.job(job).state not in TERMINAL_JOBS]
    for job in end:
        office.ask(job, "cancel")
    office.finish(*jobs)
    for job in jobs:
        at: dict[str | None, str] = {None: "queued"}
        for who, before, after in office.moves(job):
            assert at.setdefault(who, "created") == before
            assert after in (JOB_MOVES if who is None else ATTEMPT_MOVES)[before]
            at[who] = after
        assert at[None] == office.job(job).state
