"""Plans: what a job would do, found out without doing it."""

from __future__ import annotations

import json
import os
import shlex
import threading
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from onward.errors import OnwardError, Unreachable
from onward.jobs.difference import Difference
from onward.jobs.plan import DataFacts, Plan
from onward.jobs.training import Training
from onward.server import children
from onward.server.api import plan as api_plan
from onward.server.app import Parts
from onward.server.children import ask_child
from onward.server.jobs.writing import as_toml
from onward.server.planning import plan
from onward.server.spec import JobRequest
from onward.server.storages import register
from onward.training.opening import Beginning
from tests.cli.outputs import Output


@pytest.fixture
def shelf(tmp_path: Path, parts: Parts) -> Path:
    """A storage `lab` with code and data."""
    folder = tmp_path / "shelf"
    (folder / "code" / "src").mkdir(parents=True)
    (folder / "code" / "src" / "train.py").write_text("raise SystemExit('must never run')")
    (folder / "data").mkdir()
    (folder / "data" / "a.bin").write_bytes(b"12345")
    with parts.database.write() as session:
        register(session, parts.settings, "lab", str(folder), by="test")
    return folder


def request_for(**more: Any) -> JobRequest:
    document = {
        "name": "a job", "command": ["src/train.py", "--epochs", "3"],
        "code": {"folder": "lab:code"}, "output": {"location": "lab:out"},
        "inputs": {"data_url": {"location": "lab:data"}}, **more,
    }  # fmt: skip
    return JobRequest.model_validate(document)


def test_a_plan_names_the_checkpoint_and_changes_nothing(parts: Parts, shelf: Path) -> None:
    """What would be gone on from and why, the data, its size, and that it is new."""
    fresh = plan(parts.settings, parts.database, request_for())
    assert fresh["problem"] is None
    assert (fresh["plan"]["verb"], fresh["plan"]["checkpoint"]) == ("fresh", None)
    assert not (shelf / "out").exists()
    commit = Output(shelf / "out").chain(2)[-1]
    before = sorted(path for path in shelf.rglob("*"))
    found = plan(parts.settings, parts.database, request_for())["plan"]
    assert (found["verb"], found["checkpoint"]["checkpoint"]) == ("resume", commit.checkpoint)
    assert (found["data"]["items"], found["data"]["size_bytes"]) == (1, 5)
    assert found["tensors"] == 2
    assert sorted(path for path in shelf.rglob("*")) == before


def test_a_job_that_cannot_be_has_a_problem_and_not_a_plan(parts: Parts, shelf: Path) -> None:
    """The error that the job would end with, typed; the other writing is there all the same."""
    for field, change in (
        ("output.location", {"output": {"location": "nobody:out"}}),
        ("src/absent.py", {"command": ["src/absent.py"]}),
        ("v7", {"output": {"location": "lab:out", "predownload": "v7"}}),
        ("continue", {"verb": "continue"}),
    ):
        answer = plan(parts.settings, parts.database, request_for(**change))
        assert answer["plan"] is None
        assert field in answer["problem"]["what"] + answer["problem"]["why"], answer["problem"]
        assert answer["problem"]["status"] < 500
        assert tomllib.loads(answer["toml"])["name"] == "a job"


def test_the_same_job_is_written_as_command_toml_and_curl(parts: Parts, shelf: Path) -> None:
    """Each of them means the same job."""
    request = request_for(
        name="a 'quoted' \"job\" $HOME `x` 数据", environment={"A_1": "x\\y"},
        output={"location": str(shelf / "out"), "predownload": "no"},
    )  # fmt: skip
    answer = plan(parts.settings, parts.database, request, address="https://onward.example/")
    meant = JobRequest.model_validate(answer["request"])
    assert meant.output.location == "lab:out"
    assert JobRequest.model_validate(tomllib.loads(answer["toml"])) == meant
    words = shlex.split(answer["curl"].replace("\\\n", ""))
    assert words[1] == "https://onward.example/api/v1/jobs"
    assert JobRequest.model_validate(json.loads(words[words.index("--data") + 1])) == meant
    command = shlex.split(answer["command"])
    assert command[:3] == ["onward", "run", "src/train.py"]
    assert command[command.index("--output") + 1] == str((shelf / "out").resolve())
    assert command[command.index("--predownload") + 1] == "no"
    assert command[-3:] == ["--", "--epochs", "3"]


_JSON = st.recursive(
    st.text(st.characters(exclude_categories=["Cs", "Cc"])) | st.integers(-(2**62), 2**62)
    | st.booleans() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.dictionaries(st.text(st.characters(exclude_categories=["Cs", "Cc"])), inner),
)  # fmt: skip


@given(st.dictionaries(st.text(max_size=5), _JSON | st.lists(st.text(max_size=5))))
def test_toml_reads_back_equal(document: dict[str, Any]) -> None:
    """Whatever names and texts there are."""
    assert tomllib.loads(as_toml(document)) == document


def test_a_child_that_takes_too_long_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It and what it started; the asker gets a typed error."""
    monkeypatch.setattr(children.sys, "executable", "/bin/sh")
    script = tmp_path / "onward.facts.child"
    script.write_text("sleep 600 & echo $! > pid; wait\n")
    with pytest.raises(Unreachable):
        # `sh -m onward.facts.child plan` runs the file of that name.
        ask_child("plan", {}, environment={}, folder=tmp_path, timeout_s=1.0)
    pid = int((tmp_path / "pid").read_text())
    stat = Path(f"/proc/{pid}/stat")
    assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


def test_children_end_with_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for one is answered by a typed error, and not after its time is over."""
    monkeypatch.setattr(children.sys, "executable", "/bin/sh")
    (tmp_path / "onward.facts.child").write_text("touch begun; sleep 600\n")
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            ask_child("plan", {}, environment={}, folder=tmp_path, timeout_s=600.0)
        except OnwardError as error:
            errors.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    while not (tmp_path / "begun").exists():
        thread.join(0.01)
    children.end_children()
    thread.join(30.0)
    assert len(errors) == 1


@pytest.mark.parametrize(
    "says", ["", "not json", "[]", '{"other": 1}', "kill -9 $$", "yes | head -c 50000000"]
)
def test_a_child_that_says_nonsense_is_a_typed_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str
) -> None:
    """Too much, too little, something else, or a death."""
    monkeypatch.setattr(children.sys, "executable", "/bin/sh")
    command = says if says.startswith(("kill", "yes")) else f"printf '%s' {shlex.quote(says)}"
    (tmp_path / "onward.facts.child").write_text(command)
    with pytest.raises(OnwardError, match="could not be found out"):
        ask_child("plan", {}, environment={}, folder=tmp_path, timeout_s=20.0)


def test_the_api_plans(client: TestClient, shelf: Path, tokens: dict[str, str]) -> None:
    """Who may submit may ask what would happen."""
    body = request_for().document()
    answer = client.post("/api/v1/plan", json=body)
    assert answer.status_code == 200
    assert answer.json()["plan"]["verb"] == "fresh"
    assert "http://127.0.0.1:8420/api/v1/jobs" in answer.json()["curl"]
    reader = {"authorization": f"Bearer {tokens['read']}"}
    assert client.post("/api/v1/plan", json=body, headers=reader).status_code == 403


def test_secrets_of_the_server_do_not_reach_the_child(
    parts: Parts, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It inherits what jobs do, and nothing else."""
    monkeypatch.setenv("SERVER_ONLY", "canary")
    seen: dict[str, str] = {}
    started = children.subprocess.Popen

    def watched(*arguments: Any, **named: Any) -> Any:
        seen.update(named["env"])
        return started(*arguments, **named)

    monkeypatch.setattr(children.subprocess, "Popen", watched)
    assert plan(parts.settings, parts.database, request_for())["plan"]
    assert os.environ["SERVER_ONLY"] == "canary"
    assert "PATH" in seen
    assert "SERVER_ONLY" not in seen


def test_the_api_describes_a_plan_as_it_is() -> None:
    """Its models are written beside the classes that a plan is made of."""
    for model, made_of in (
        (api_plan.DifferenceDocument, Difference), (api_plan.TrainingDocument, Training),
        (api_plan.DataFactsDocument, DataFacts),
    ):  # fmt: skip
        assert list(model.model_fields) == [field.name for field in fields(made_of)]
    document = Plan("out", ["train.py"], Beginning("fresh", "")).document()
    assert set(api_plan.PlanFacts.model_fields) == set(document)
