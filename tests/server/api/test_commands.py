"""The commands that talk to a server, against one."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from tests.server.api.conftest import Onward
from tests.server.api.house import House, wait_for


def submitted(onward: Onward, *args: object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(onward("submit", "--json", *args).stdout)
    return found


def test_a_script_is_submitted_with_its_folder(house: House, onward: Onward) -> None:
    """The code is sent, pinned and named by its digest; options become the spec."""
    Path("code").mkdir()
    Path("code/train.py").write_text("print('hello')")
    job = submitted(
        onward, "train.py", "--code", "code", "--output", "here:out", "--data", "here:data",
        "--env", "MODE=fast", "--predownload", "all", "--", "--epochs", "3",
    )  # fmt: skip
    spec = job["spec"]
    assert spec["name"] == "train"
    assert spec["command"] == ["train.py", "--epochs", "3"]
    assert spec["inputs"] == {"data_url": {"location": "here:data"}}
    assert spec["output"] == {"location": "here:out", "predownload": "all"}
    assert spec["environment"] == {"MODE": "fast"}
    code = house.client.get(f"/api/v1/code/{spec['code']['digest']}").json()
    assert code["paths"] == ["train.py"]


@pytest.mark.parametrize("kind", ["toml", "yaml", "json"])
def test_a_file_is_submitted(onward: Onward, kind: str) -> None:
    """In any of three languages the same job; options come after it."""
    texts = {
        "toml": 'name = "a"\ncommand = ["train.py"]\n[output]\nlocation = "here:out"\n',
        "yaml": "name: a\ncommand: [train.py]\noutput: {location: 'here:out'}\n",
        "json": '{"name": "a", "command": ["train.py"], "output": {"location": "here:out"}}',
    }
    Path("train.py").write_text("pass")
    Path(f"job.{kind}").write_text(texts[kind])
    assert submitted(onward, f"job.{kind}")["output"] == "here:out"
    other = submitted(onward, f"job.{kind}", "--output", "here:other", "--name", "b")
    assert (other["output"], other["name"]) == ("here:other", "b")
    Path(f"job.{kind}").write_text("{")
    assert "cannot be understood" in onward("submit", f"job.{kind}", code=2).stderr


def test_a_mistake_is_said_with_its_place(onward: Onward) -> None:
    """Nothing is submitted, and the status is that of a wrong command."""
    Path("train.py").write_text("pass")
    refused = onward("submit", "train.py", code=2)
    assert "output" in refused.stderr
    assert "is no job" not in refused.stderr
    assert "there is no job" in onward("stop", "job-none", code=2).stderr


def test_jobs_are_listed_and_asked(house: House, onward: Onward) -> None:
    """One or many; what is asked of one that has ended is refused, and the others go on."""
    one, two, done = house.job(name="first"), house.job(name="second"), house.job(name="third")
    house.end(done)
    listed = onward("ps").stdout
    assert "first" in listed
    assert "third" not in listed
    assert "third" in onward("ps", "--all").stdout
    found = json.loads(onward("ps", "--name", "sec", "--json").stdout)
    assert [job["id"] for job in found["jobs"]] == [two]
    assert f"{one} first is paused" in onward("pause", one).stdout
    results = json.loads(onward("pause", one, done, two, "--json", code=1).stdout)["results"]
    assert [bool(result["problem"]) for result in results] == [False, True, False]
    onward("resume", one, two)
    assert "is cancelled" in onward("cancel", one).stdout
    again = onward("continue", done, "--data", "here:more", "--name", "further", "--json")
    spec = json.loads(again.stdout)["spec"]
    assert spec["inputs"]["data_url"]["location"] == "here:more"
    assert spec["command"] == ["train.py", "--epochs", "3"]
    assert json.loads(onward("retry", done, "--json").stdout)["results"][0]["job"]["parent"] == done


def test_other_data_takes_the_place_of_the_only_input(house: House, onward: Onward) -> None:
    """A script that gets its data by another name gets the other data by that name."""
    inputs = {"train_dir": {"location": "here:data", "pass_as": "env"}}
    done = house.job(inputs=inputs)
    house.end(done)
    again = json.loads(onward("continue", done, "--data", "here:more", "--json").stdout)
    wanted = again["spec"]["inputs"]
    assert {name: each["location"] for name, each in wanted.items()} == {"train_dir": "here:more"}
    assert wanted["train_dir"]["pass_as"] == "env"


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ('inputs = {data_url = "here:data"}', ["--data", "here:more"]),
        ('command = "train.py"', ["--", "--epochs", "3"]),
    ],
)
def test_what_options_cannot_change_is_said(
    tmp_path: Path, onward: Onward, text: str, options: list[str]
) -> None:
    """A file that is no job as the server means it is a mistake of the command, not a crash."""
    (tmp_path / "job.toml").write_text(text)
    said = onward("submit", str(tmp_path / "job.toml"), *options, code=2).stderr
    assert "of the job is no" in said


def test_waiting_ends_as_the_jobs_do(house: House, onward: Onward) -> None:
    """0 succeeded, 1 failed, 75 stopped safely or paused; and 1 when the time is over."""
    jobs = {state: house.job() for state in ("succeeded", "failed", "cancelled", "paused")}
    for state, job in jobs.items():
        house.move(job, "paused") if state == "paused" else house.end(job, state)
    for state, code in (("succeeded", 0), ("failed", 1), ("cancelled", 75), ("paused", 75)):
        assert state in onward("wait", jobs[state], code=code).stdout
    onward("wait", jobs["succeeded"], jobs["paused"], code=75)
    onward("wait", *jobs.values(), code=1)
    assert "still queued" in onward("wait", house.job(), "--timeout", "0", code=1).stderr
    later = house.job()
    ends = threading.Timer(0.3, house.end, [later])
    ends.start()
    onward("wait", later)
    ends.join()


def test_a_log_is_shown_and_followed(house: House, onward: Onward) -> None:
    """Whole lines, nothing twice, to the end of the job; nothing in it acts on the terminal."""
    job = house.job()
    attempt = house.attempt(job)
    attempt.prints("".join(f"line {n}\n" for n in range(100)) + "\x1b[31mred\x1b[0m\topen")
    lines = onward("logs", job).stdout.splitlines()
    assert lines == [f"line {n}" for n in range(100)] + ["red     open"]
    assert onward("logs", job, "--tail", "2").stdout.splitlines() == ["line 99", "red     open"]
    shown: list[Result] = []
    watching = threading.Thread(target=lambda: shown.append(onward("logs", "-f", job)))
    watching.start()
    wait_for(lambda: house.app.state.streams._followed)
    attempt.prints(" no more\n")
    attempt.ends()
    house.end(job)
    watching.join(20)
    assert shown[0].stdout.splitlines() == [*lines[:-1], "red     open no more"]
    whole = json.loads(onward("logs", job, "--json").stdout)
    assert len(whole["lines"]) == 101


def test_watching_ends_as_the_job_does(house: House, onward: Onward) -> None:
    """Its log, then how it ended, as text and as the exit status."""
    Path("train.py").write_text("pass")
    shown: list[Result] = []
    watching = threading.Thread(
        target=lambda: shown.append(
            onward("submit", "--watch", "train.py", "--output", "here:o", code=1)
        )
    )
    watching.start()
    wait_for(lambda: house.jobs() == 1)
    (job,) = house.client.get("/api/v1/jobs").json()["items"]
    attempt = house.attempt(job["id"])
    attempt.prints("printed\n")
    attempt.ends()
    house.end(job["id"], "failed")
    watching.join(20)
    lines = shown[0].stdout.splitlines()
    assert lines[1:] == ["printed", f"{job['id']} train has failed"]
