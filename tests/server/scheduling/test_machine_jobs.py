"""Jobs with real agents, from submission to their end."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from onward.engines.base import AGENT
from onward.engines.plain_files import read_document
from onward.engines.processes import processes_of
from onward.repository import open_repository
from onward.server.scheduling import care
from onward.stores import LocalStore
from tests.server.scheduling.scripts import COMMITTING, COUNTING
from tests.server.scheduling.workshop import Workshop

# What agents do has nothing to do with the kind of database; `test_decisions.py` has both.
DATABASES = (
    ["sqlite", "postgresql"] if os.environ.get("ONWARD_TEST_SCALE") == "full" else ["sqlite"]
)
shown_elsewhere = pytest.mark.skipif(
    os.environ.get("ONWARD_TEST_SCALE") != "full",
    reason="the decision is tested without agents in test_decisions.py, or a server is killed at "
    "each of its commits in tests/server/kills",
)
"""Several agents each, which is most of what they cost: with real ones in the full form only."""
pytestmark = pytest.mark.parametrize("database_url", DATABASES, indirect=True)

PLAIN = """
import argparse, pathlib
parser = argparse.ArgumentParser()
parser.add_argument("--train_url")
args = parser.parse_args()
print("hello from the script")
pathlib.Path(args.train_url, "model.txt").write_text("weights")
"""


def test_a_plain_script_runs_and_the_job_succeeds(workshop: Workshop) -> None:
    """A job goes from queued to succeeded; its output and its log are there."""
    job = workshop.submit(PLAIN)

    assert workshop.finish(job) == ["succeeded"], workshop.job(job).reason

    [attempt] = workshop.attempts(job)
    assert attempt.state == "exited"
    assert attempt.exit_status == 0
    assert (workshop.folder / "outputs/out/model.txt").read_text() == "weights"
    assert "hello from the script" in workshop.log(job)
    assert workshop.moves(job) == [
        (None, "queued", "running"),
        (attempt.id, "created", "leased"),
        (attempt.id, "leased", "running"),
        (attempt.id, "running", "exited"),
        (None, "running", "succeeded"),
    ]


def test_a_crash_is_tried_again_and_goes_on_from_the_checkpoint(workshop: Workshop) -> None:
    """The second attempt resumes what the first one committed, though `fresh` was asked for."""
    job = workshop.submit(
        COMMITTING, *workshop.ledger("--steps", "4", "--crash-at", "2"),
        output_options={"predownload": "no"},
    )  # fmt: skip

    assert workshop.finish(job) == ["succeeded"], workshop.job(job).reason

    first, second = workshop.attempts(job)
    assert (first.cause, first.exit_status, first.saves) == ("crash", 3, 2)
    assert (second.verb, second.saves, second.step) == ("resume", 2, 4)
    assert workshop.job(job).retried == {"crash": 1}
    log = workshop.log(job)
    assert "begin auto at 2" in log
    assert "onward: epoch 1, step 3, loss 0.3333" in log
    assert "onward: 2 checkpoints committed, 2 steps, " in log
    assert workshop.steps("out") == [1, 2, 3, 4]


def test_a_script_that_finds_nothing_to_learn_says_why_the_job_trained_nothing(
    workshop: Workshop,
) -> None:
    """The reason comes from the script's run, which alone can read the data."""
    script = """
import json, os
told = {"nothing_new": "nothing new to learn: all 3 items of the data are learned"}
os.write(int(os.environ["ONWARD_EVENTS_FD"]), json.dumps(told).encode() + b"\\n")
"""
    job = workshop.submit(script)

    assert workshop.finish(job) == ["succeeded"]
    assert workshop.job(job).reason == ("nothing new to learn: all 3 items of the data are learned")


def test_a_commit_of_which_nobody_heard_is_gone_on_from(workshop: Workshop) -> None:
    """The agent dies before it tells; the next one finds what was committed under its claim."""
    script = COMMITTING.replace("tell(step", "(lambda **_: None)(step")
    job = workshop.submit(
        script, *workshop.ledger("--steps", "30", "--pause", "0.1"),
        output_options={"predownload": "no"},
    )  # fmt: skip
    workshop.until(lambda: len(workshop.steps("out")) > 1)
    assert not workshop.job(job).committed

    os.kill(workshop.agent_pid(job), signal.SIGKILL)
    assert workshop.finish(job) == ["succeeded"], workshop.job(job).reason
    assert [attempt.verb for attempt in workshop.attempts(job)] == ["fresh", "resume"]


@shown_elsewhere
def test_three_crashes_in_a_row_at_one_step_are_a_loop(workshop: Workshop) -> None:
    """However many retries are left, the job fails and says where it is stuck."""
    job = workshop.submit(
        COMMITTING, *workshop.ledger("--steps", "4", "--crash-at", "2", "--crashes", "99"),
        retries={"crash": 50},
    )  # fmt: skip

    assert workshop.finish(job) == ["failed"]

    assert len(workshop.attempts(job)) == 4  # the first one saved
    assert "3 attempts in a row ended before a first step" in workshop.job(job).reason


@shown_elsewhere
def test_retries_are_spent_by_cause(workshop: Workshop) -> None:
    """A job that crashes more often than it may fails, with the script's status as the reason."""
    job = workshop.submit(
        COUNTING, *workshop.ledger("--crash-at", "0", "--crashes", "99"), retries={"crash": 1}
    )

    assert workshop.finish(job) == ["failed"]

    assert len(workshop.attempts(job)) == 2
    assert "exit status 3; all 1 retries are used up for crash" in workshop.job(job).reason


def test_wrong_arguments_are_not_tried_again(workshop: Workshop) -> None:
    """Exit status 2 fails the job at once."""
    job = workshop.submit(COUNTING, "--nonsense")

    assert workshop.finish(job) == ["failed"]
    assert len(workshop.attempts(job)) == 1


def test_pause_saves_and_resume_goes_on(workshop: Workshop) -> None:
    """A paused job has saved; resumed, it continues from there and succeeds."""
    job = workshop.submit(COMMITTING, *workshop.ledger("--steps", "40", "--pause", "0.2"))
    workshop.until(lambda: workshop.job(job).committed)

    workshop.ask(job, "pause")
    workshop.until(lambda: workshop.job(job).state == "paused")
    [attempt] = workshop.attempts(job)
    assert (attempt.exit_status, attempt.asked_why, attempt.cause) == (75, "pause", "")
    saved = workshop.steps("out")[-1]

    workshop.resume(job)
    workshop.until(lambda: len(workshop.attempts(job)) == 2 and bool(workshop.attempts(job)[1].pid))
    workshop.until(lambda: f"begin auto at {saved}" in workshop.log(job))
    workshop.ask(job, "stop")
    assert workshop.finish(job) == ["cancelled"]
    assert workshop.job(job).reason == "stopped"
    assert workshop.ledger_lines().count("stopped") == 2


def test_cancel_kills_at_once(workshop: Workshop) -> None:
    """A script that does not listen is gone long before its grace is over."""
    job = workshop.submit(COUNTING, *workshop.ledger("--steps", "9999", "--deaf"), grace_s=3000)
    workshop.until(lambda: "began" in workshop.ledger_lines())

    workshop.ask(job, "cancel")
    assert workshop.finish(job) == ["cancelled"]

    [attempt] = workshop.attempts(job)
    assert (attempt.state, attempt.asked, attempt.exit_status) == ("exited", "kill", -9)
    assert not processes_of(attempt.id)


def test_a_hang_is_ended_and_tried_again(workshop: Workshop) -> None:
    """No step and no line for so long: the script is asked, then killed; the cause is kept."""
    script = "import signal, time\nsignal.signal(15, lambda *_: None)\ntime.sleep(600)"
    job = workshop.submit(script, hang_minutes=0.01, grace_s=0.2, retries={"hang": 1})

    assert workshop.finish(job) == ["failed"]

    assert [attempt.cause for attempt in workshop.attempts(job)] == ["hang", "hang"]
    assert workshop.job(job).reason.startswith("no step and no line of its log for too long")


def test_a_script_that_prints_does_not_hang(workshop: Workshop) -> None:
    """Whoever prints now and then lives longer than `hang_minutes`."""
    script = "import time\nfor n in range(12):\n    print(n)\n    time.sleep(0.2)"
    job = workshop.submit(script, hang_minutes=0.02, grace_s=0.2)

    assert workshop.finish(job) == ["succeeded"], workshop.job(job).reason


def test_a_timeout_saves_first(workshop: Workshop) -> None:
    """At its limit a job is asked to stop; without a retry for it, it fails and says so."""
    # Long enough for a script to begin on a machine that has much else to do.
    job = workshop.submit(COUNTING, *workshop.ledger("--steps", "9999"), timeout_s=6.0)

    assert workshop.finish(job) == ["failed"]

    assert workshop.attempts(job)[0].cause == "timeout"
    assert workshop.ledger_lines()[-1] == "stopped"


def test_when_the_agent_is_killed_the_script_saves_and_the_job_goes_on(
    workshop: Workshop,
) -> None:
    """The script is asked to stop, may print as much as it likes, and the next attempt waits."""
    script = COUNTING.replace(
        'print("stopping at", step, flush=True)',
        'time.sleep(1)\n        print("x" * 1_000_000, flush=True)',
    )
    job = workshop.submit(script, *workshop.ledger("--steps", "60", "--pause", "0.05"))
    workshop.until(lambda: "began" in workshop.ledger_lines())

    os.kill(workshop.agent_pid(job), signal.SIGKILL)
    assert workshop.finish(job) == ["succeeded"], workshop.job(job).reason

    first, _second = workshop.attempts(job)
    assert (first.state, first.cause) == ("lost", "infrastructure")
    assert workshop.ledger_lines() == ["began", "stopped", "began", "done"]
    assert workshop.log(job, 0).count("x") > 999_999


def test_a_script_that_outlives_its_agent_for_too_long_is_killed(workshop: Workshop) -> None:
    """After the grace period, so that never two are at one output."""
    job = workshop.submit(
        COUNTING, *workshop.ledger("--steps", "9999", "--deaf"), grace_s=0.5,
        retries={"infrastructure": 0},
    )  # fmt: skip
    workshop.until(lambda: "began" in workshop.ledger_lines())

    os.kill(workshop.agent_pid(job), signal.SIGKILL)
    assert workshop.finish(job) == ["failed"]

    assert not processes_of(workshop.attempts(job)[0].id)


def test_an_agent_that_is_stopped_by_sigstop_is_ended(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not react to a cancel; then it is destroyed, and the job is cancelled."""
    monkeypatch.setattr(care, "LAST_PUSH_S", 0.2)
    monkeypatch.setattr(care, "_SLACK_S", 0.2)
    job = workshop.submit(COUNTING, *workshop.ledger("--steps", "9999"), grace_s=0.2)
    workshop.until(lambda: "began" in workshop.ledger_lines())

    os.kill(workshop.agent_pid(job), signal.SIGSTOP)
    workshop.ask(job, "cancel")
    assert workshop.finish(job) == ["cancelled"]

    assert workshop.attempts(job)[0].state == "lost"
    assert not processes_of(workshop.attempts(job)[0].id)


def test_a_silent_agent_is_ended_though_nobody_asked(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that shows no life is replaced; its script is asked to save."""
    monkeypatch.setattr(care, "_SILENT_S", 8.0)
    job = workshop.submit(COUNTING, *workshop.ledger("--steps", "600"))
    workshop.until(lambda: "began" in workshop.ledger_lines())

    os.kill(workshop.agent_pid(job), signal.SIGSTOP)
    workshop.until(lambda: len(workshop.attempts(job)) == 2)
    workshop.until(lambda: workshop.ledger_lines().count("began") == 2)
    workshop.ask(job, "cancel")
    workshop.finish(job)

    assert workshop.attempts(job)[0].cause == "infrastructure"
    assert "DOUBLED" not in workshop.ledger_lines()


@shown_elsewhere
def test_a_server_that_forgets_everything_goes_on(workshop: Workshop) -> None:
    """With a new supervisor at every look, a job that crashes once still succeeds."""
    job = workshop.submit(COUNTING, *workshop.ledger("--crash-at", "1"))

    def look() -> bool:
        workshop.restart()
        return workshop.job(job).state == "succeeded"

    workshop.until(look)
    assert [attempt.state for attempt in workshop.attempts(job)] == ["exited", "exited"]
    assert workshop.ledger_lines().count("began") == 2


@shown_elsewhere
def test_one_job_at_a_time_trains_an_output(workshop: Workshop) -> None:
    """The second waits and says behind whom; one for another output does not wait."""
    first = workshop.submit(COUNTING, *workshop.ledger("--steps", "60", "--pause", "0.05"))
    second = workshop.submit(COUNTING, *workshop.ledger())
    third = workshop.submit(COUNTING, *workshop.ledger(), output="elsewhere")

    workshop.until(lambda: workshop.job(third).state == "succeeded")
    assert workshop.job(second).state == "queued"
    assert workshop.job(second).reason == f"waits for {first}, which trains the same output"
    assert workshop.finish(first, second) == ["succeeded", "succeeded"]
    assert "DOUBLED" not in workshop.ledger_lines()


def test_a_stop_from_outside_is_a_preemption(workshop: Workshop) -> None:
    """SIGTERM that nobody here asked for: it saves, and is tried again."""
    job = workshop.submit(COMMITTING, *workshop.ledger("--steps", "6", "--pause", "0.3"))
    workshop.until(lambda: workshop.job(job).committed)

    os.kill(workshop.agent_pid(job), signal.SIGTERM)
    assert workshop.finish(job) == ["succeeded"], workshop.job(job).reason

    first, *_ = workshop.attempts(job)
    assert (first.state, first.cause) == ("preempted", "preemption")


def test_another_writer_fences_the_job(workshop: Workshop) -> None:
    """Who claims the output takes it over: the job fails, and is not tried again."""
    job = workshop.submit(COMMITTING, *workshop.ledger("--steps", "999", "--pause", "0.1"))
    workshop.until(lambda: workshop.job(job).committed)

    open_repository(LocalStore(workshop.folder / "outputs/out")).claim("somebody else")
    assert workshop.finish(job) == ["failed"]

    [attempt] = workshop.attempts(job)
    assert (attempt.state, attempt.cause) == ("fenced", "fenced")


def test_secrets_are_in_the_script_and_nowhere_else(workshop: Workshop) -> None:
    """Also where one is printed in pieces; the server's own variables are not passed on."""
    workshop.settings.secrets.mkdir(parents=True)
    (workshop.settings.secrets / "key").write_text("canary-0123456789")
    script = (
        "import os, sys, time\n"
        "value = os.environ['KEY']\n"
        "assert 'PYTEST_CURRENT_TEST' not in os.environ\n"
        "print('whole', value)\n"
        "for c in value:\n"
        "    sys.stdout.write(c); sys.stdout.flush(); time.sleep(0.01)\n"
        "print('and', value.encode().hex() if not value else 'end')\n"
        "raise ValueError(value)\n"
    )
    job = workshop.submit(script, secrets={"KEY": "key"}, retries={"crash": 0})

    assert workshop.finish(job) == ["failed"]

    log = workshop.log(job)
    assert "whole [secret]\n[secret]and end" in log
    assert "ValueError: [secret]" in log
    for path in workshop.settings.attempts.rglob("*"):
        if path.is_file():
            assert b"canary" not in path.read_bytes(), path


def test_what_is_missing_fails_the_job_and_is_named(workshop: Workshop) -> None:
    """A secret that nobody added is not tried again."""
    job = workshop.submit(PLAIN, secrets={"KEY": "nokey"})

    assert workshop.finish(job) == ["failed"]
    assert "there is no secret 'nokey'" in workshop.job(job).reason


def test_processes_that_left_the_scripts_session_end_with_the_attempt(workshop: Workshop) -> None:
    """A daemon that a script leaves behind does not stay."""
    script = (
        "import subprocess, sys\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'],\n"
        "                 start_new_session=True)\n"
    )
    job = workshop.submit(script)

    assert workshop.finish(job) == ["succeeded"]
    assert not processes_of(workshop.attempts(job)[0].id)
    assert read_document(Path(workshop.settings.attempts, workshop.attempts(job)[0].id, AGENT))


def test_the_work_of_a_script_does_not_touch_its_pinned_code(workshop: Workshop) -> None:
    """What it writes beside itself goes with the attempt; the next one finds the code as before."""
    script = "import pathlib\np = pathlib.Path(__file__)\np.write_text('1/0')\n"
    first = workshop.submit(script)
    assert workshop.finish(first) == ["succeeded"]
    second = workshop.submit(script)
    assert workshop.finish(second) == ["succeeded"]
