"""Models: documents of what outputs hold, equal to what the commands say."""

from __future__ import annotations

import json
import os
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from onward.data.items import Items
from onward.errors import OnwardError, UnknownCheckpoint, Unreachable
from onward.server import children, models
from onward.server.app import Parts
from onward.server.database.tables import Attempt, Checkpoint, Model
from onward.server.jobs import requests
from onward.server.models import documents, librarian, outputs, syncing
from onward.server.problems import NotFound
from onward.server.spec import JobRequest
from tests.cli.conftest import AsJson, as_json, onward  # noqa: F401
from tests.cli.outputs import Output, floats
from tests.cli.scored import Scored
from tests.cli.test_data import Student
from tests.server.lab import AddModel


def at(parts: Parts) -> tuple[Any, Any]:
    return parts.settings, parts.database


def test_a_model_is_its_output(parts: Parts, digits: Scored, add: AddModel) -> None:
    """Champion, latest, names, what was forgotten most, and the lineage with its verdicts."""
    history = digits.repository.history
    first, second, third = history.commits
    digits.repository.set_alias("champion", second)
    digits.repository.pin(first)
    model = add("digits")
    found = models.model_document(*at(parts), model)
    assert (found["name"], found["location"], found["problem"]) == ("digits", "lab:digits", "")
    assert found["champion"]["checkpoint"] == second
    assert (found["latest"]["checkpoint"], found["latest"]["version"]) == (third, 3)
    assert (found["checkpoints"], found["increments"]) == (3, 3)
    assert (found["aliases"], found["pins"]) == ({"champion": second}, [first])
    worst = found["worst_forgetting"]
    assert (worst["holdout"], worst["best_increment"], worst["best"]) == ("first", 1, 0.9)
    assert worst["now"] == pytest.approx(0.7)
    assert worst["lost"] == pytest.approx(0.2)
    nodes = found["lineage"]["nodes"]
    assert [node["checkpoint"] for node in nodes] == [third, second, first]
    assert [node["parent"] for node in nodes] == [second, first, None]
    assert [node["verdict"] for node in nodes] == ["regression: first", "no change", ""]
    with parts.database.read() as session:
        listed, following = models.list_models(session)
    assert following is None
    assert listed == [{key: found[key] for key in listed[0]}]


def test_documents_are_what_the_commands_say(
    parts: Parts,
    digits: Scored,
    add: AddModel,
    as_json: AsJson,  # noqa: F811
) -> None:
    """One source of truth for the command line and the server."""
    model = add("digits")
    shown = models.checkpoint_document(*at(parts), model, "v2")
    said = as_json("show", digits.url, "v2")
    assert {key: shown[key] for key in said if key != "output"} == {
        key: value for key, value in said.items() if key != "output"
    }
    learned = models.learning_document(*at(parts), model)
    said = as_json("log", digits.url, "--matrix")
    assert {key: learned[key] for key in said if key != "output"} == {
        key: value for key, value in said.items() if key != "output"
    }
    saved = models.savings_document(*at(parts), model)
    said = as_json("report", digits.url)
    assert saved["increments"] == said["increments"]
    checked = models.look_for_damage(*at(parts), model, "v2")
    said = as_json("verify", digits.url, "v2")
    assert {**checked, "output": ""} == {**said, "output": ""}


def test_what_may_be_large_is_read_by_a_child_and_is_the_same(
    parts: Parts, digits: Scored, add: AddModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A manifest or a bill beyond some size; and a child without memory is a typed error."""
    model = add("digits")
    here = (
        models.checkpoint_document(*at(parts), model, "v2"),
        models.savings_document(*at(parts), model),
    )
    monkeypatch.setattr(documents, "_SMALL_BYTES", 0)
    monkeypatch.setattr(syncing, "_MOST_BYTES", 0)
    there = (
        models.checkpoint_document(*at(parts), model, "v2"),
        models.savings_document(*at(parts), model),
    )
    assert json.loads(json.dumps(there)) == json.loads(json.dumps(here))
    monkeypatch.setattr(children, "_MEMORY_BYTES", 1 << 20)
    with pytest.raises(OnwardError, match="could not be found out"):
        models.checkpoint_document(*at(parts), model, "v2")


def test_data_is_compared_and_looked_for(parts: Parts, lab: Path, add: AddModel) -> None:
    """Which checkpoints saw an item, and what one learned beyond another."""
    student = Student(Output(lab / "learner"))
    student.learn(Items.identified(["a", "b"]))
    student.learn(Items.identified(["a", "b", "c"]))
    model = add("learner")
    first, second = (c for c in student.commits if c.finished)
    seen = models.data_seen(*at(parts), model, "c", by="id")
    assert [(each["checkpoint"], each["seen"]) for each in seen["items"]] == [
        (second.checkpoint, True), (first.checkpoint, False),
    ]  # fmt: skip
    compared = models.data_difference(*at(parts), model, first.checkpoint, second.checkpoint)
    assert compared["counts"] == {"added": 1, "changed": 0, "removed": 0, "known": 2}
    found = models.model_document(*at(parts), model)["lineage"]["nodes"]
    assert [node["delta"]["items"] for node in found] == [7, 7]
    learned = models.data_document(*at(parts), model)["increments"]
    assert [each["increment"] for each in learned] == [2, 1]
    with pytest.raises(UnknownCheckpoint):
        models.data_difference(*at(parts), model, "v1", "v99")


def test_a_checkpoint_tells_what_trained_it(parts: Parts, lab: Path, add: AddModel) -> None:
    """The script's command, configuration and seed, its parent and children, its tensors."""
    output = Output(lab / "seeded")
    about = {"host": "box", "command": ["train.py", "--seed", "7"], "config": {"lr": 0.1}}
    first = output.save(step=10, about=about)
    second = output.save(step=20, parent=first.checkpoint, about=about)
    found = models.checkpoint_document(*at(parts), add("seeded"), "v1")
    assert found["children"] == [second.checkpoint]
    assert (found["trained_by"]["seed"], found["trained_by"]["host"]) == ("7", "box")
    assert found["trained_by"]["job"] is None
    assert [tensor["path"] for tensor in found["tensors"]] == ["model/w"]
    with pytest.raises(UnknownCheckpoint):
        models.checkpoint_document(*at(parts), add("seeded"), "v9")


@pytest.mark.parametrize("known_by", ["outcome", "time"])
def test_a_checkpoint_names_the_job_and_the_code_that_trained_it(
    parts: Parts, lab: Path, add: AddModel, known_by: str
) -> None:
    """By what its attempt reported, and while that runs by its time. Others stay out of it."""
    commit = Output(lab / "out").save()
    at_s = datetime.fromisoformat(commit.time).timestamp()
    request = JobRequest.model_validate(
        {
            "name": "the trainer", "command": ["train.py"],
            "code": {"digest": "0" * 64, "source": "lab:code"}, "output": {"location": "lab:out"},
        }
    )  # fmt: skip
    told = {"checkpoints": [{"checkpoint": commit.checkpoint}]}
    ran = at_s - 60 if known_by == "time" else at_s + 3600
    with parts.database.write() as session:
        jobs = [requests.submit(session, request, by="test").id for _ in range(2)]
        for number, (job, began, outcome) in enumerate(
            [
                (jobs[0], ran, told if known_by == "outcome" else {}),
                (jobs[1], at_s + 7200, {}),
            ]
        ):
            session.add(
                Attempt(
                    id=f"att-{number}", job=job, number=1, state="running", engine="none",
                    created_at=began, running_at=began, version=1, outcome=outcome,
                )
            )  # fmt: skip
    trained_by = models.checkpoint_document(*at(parts), add("out"), "latest")["trained_by"]
    assert (trained_by["job"], trained_by["job_name"]) == (jobs[0], "the trainer")
    assert trained_by["code"] == {"digest": "0" * 64, "source": "lab:code"}


@pytest.mark.parametrize("known_by", ["outcome", "time"])
def test_a_job_that_began_within_the_same_second_did_not_train_a_checkpoint(
    parts: Parts, lab: Path, add: AddModel, known_by: str
) -> None:
    """Records bear whole seconds; the next job may begin in the one in which the last saved."""
    commit = Output(lab / "out").save()
    at_s = datetime.fromisoformat(commit.time).timestamp()
    request = JobRequest.model_validate(
        {
            "name": "the trainer", "command": ["train.py"], "code": {"digest": "0" * 64},
            "output": {"location": "lab:out"},
        }
    )  # fmt: skip
    told = {"checkpoints": [{"checkpoint": commit.checkpoint}]} if known_by == "outcome" else {}
    with parts.database.write() as session:
        jobs = [requests.submit(session, request, by="test").id for _ in range(2)]
        for job, began, ended, outcome in (
            (jobs[0], at_s - 60, at_s + 0.4, told), (jobs[1], at_s + 0.7, None, {}),
        ):  # fmt: skip
            session.add(
                Attempt(
                    id=f"att-{job}", job=job, number=1, state="running", engine="none",
                    created_at=began, running_at=began, ended_at=ended, version=1, outcome=outcome,
                )
            )  # fmt: skip
    trained_by = models.checkpoint_document(*at(parts), add("out"), "latest")["trained_by"]
    assert trained_by["job"] == jobs[0]


def test_the_index_follows_the_log(parts: Parts, lab: Path, add: AddModel) -> None:
    """What is new is added, what is dropped is marked, and nothing is read twice."""
    output = Output(lab / "growing")
    commits = output.chain(3)
    model = add("growing")
    models.sync_model(*at(parts), model)
    page = models.checkpoints_page(*at(parts), model, limit=2)
    assert [each["version"] for each in page["items"]] == [3, 2]
    rest = models.checkpoints_page(*at(parts), model, limit=2, cursor=page["next"])
    assert ([each["version"] for each in rest["items"]], rest["next"]) == ([1], None)
    assert page["items"][0]["names"] == ["latest"]
    output.repository.drop([commits[0].checkpoint])
    newest = output.save(step=40, parent=commits[-1].checkpoint)
    row = models.sync_model(*at(parts), model)
    assert row.seq == output.repository.history.seq
    everything = models.checkpoints_page(*at(parts), model, dropped=True)["items"]
    assert [each["dropped"] for each in everything] == [False, False, False, True]
    assert everything[0]["checkpoint"] == newest.checkpoint
    assert len(models.checkpoints_page(*at(parts), model)["items"]) == 3


def test_an_output_that_was_made_anew_is_indexed_anew(
    parts: Parts, lab: Path, add: AddModel
) -> None:
    """Another repository under the same name leaves nothing of the first behind."""
    Output(lab / "out").chain(3)
    model = add("out")
    models.sync_model(*at(parts), model)
    (lab / "out").rename(lab / "old")
    only = Output(lab / "out").save()
    models.sync_model(*at(parts), model)
    with parts.database.read() as session:
        rows = list(session.scalars(select(Checkpoint.checkpoint)))
    assert rows == [only.checkpoint]


@pytest.mark.parametrize("more", [1, 2])
def test_an_output_that_was_put_back_is_indexed_anew(
    parts: Parts, lab: Path, add: AddModel, more: int
) -> None:
    """A copy of before, trained on: its log is as long or longer, and what it lost is gone."""
    Output(lab / "out").save(step=10)
    shutil.copytree(lab / "out", lab / "copy")
    Output(lab / "out").save(step=20)
    model = add("out")
    models.sync_model(*at(parts), model)
    (lab / "out").rename(lab / "lost")
    (lab / "copy").rename(lab / "out")
    output = Output(lab / "out")
    for number in range(more):
        output.save(step=30 + number)
    models.sync_model(*at(parts), model)
    with parts.database.read() as session:
        rows = set(session.scalars(select(Checkpoint.checkpoint)))
    assert rows == output.repository.history.commits.keys()


def test_two_that_bring_a_model_up_to_date_at_once_add_its_checkpoints_once(
    parts: Parts, lab: Path, add: AddModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second finds its work done, and no server error."""
    output = Output(lab / "out")
    output.save(step=10)
    model = add("out")
    models.sync_model(*at(parts), model)
    output.save(step=20)
    rows = syncing._rows
    others: list[Model] = []

    def overtaken(*given: Any) -> list[dict[str, Any]]:
        found = rows(*given)
        monkeypatch.setattr(syncing, "_rows", rows)
        others.append(syncing.sync_from(parts.database, model, output.repository))
        return found

    monkeypatch.setattr(syncing, "_rows", overtaken)
    row = syncing.sync_from(parts.database, model, output.repository)
    assert (row.seq, row.latest) == (others[0].seq, others[0].latest)
    assert len(models.checkpoints_page(*at(parts), model)["items"]) == 2


def test_outputs_of_jobs_become_models(parts: Parts, lab: Path) -> None:
    """Also before anything is in them; then they say so."""
    request = JobRequest.model_validate(
        {
            "name": "one", "command": ["train.py"], "code": {"digest": "0" * 64},
            "output": {"location": "lab:fresh"},
        }
    )  # fmt: skip
    with parts.database.write() as session:
        requests.submit(session, request, by="test")
    (model,) = models.sync_outputs(*at(parts))
    found = models.model_document(*at(parts), model)
    assert (found["name"], found["latest"], found["lineage"]["nodes"]) == ("fresh", None, [])
    assert found["problem"]
    output = Output(lab / "fresh")
    output.save()
    assert models.sync_outputs(*at(parts)) == [model]
    found = models.model_document(*at(parts), model)
    assert (found["problem"], found["checkpoints"]) == ("", 1)


def test_the_librarian_sees_what_jobs_save(parts: Parts, lab: Path) -> None:
    """Without anybody opening a page."""
    output = Output(lab / "out")
    output.save(step=10)
    request = JobRequest.model_validate(
        {
            "name": "one", "command": ["train.py"], "code": {"digest": "0" * 64},
            "output": {"location": "lab:out"},
        }
    )  # fmt: skip
    with parts.database.write() as session:
        requests.submit(session, request, by="test")
    keeper = librarian.Librarian(*at(parts))
    keeper.look()
    output.save(step=20, parent=output.repository.history.live()[-1].checkpoint)
    keeper.look()
    with parts.database.read() as session:
        assert [m["latest"]["step"] for m in models.list_models(session)[0]] == [20]


def test_a_store_that_does_not_answer_is_not_asked_by_every_page(
    parts: Parts, lab: Path, add: AddModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its problem is told at once for some seconds, then it is asked again."""
    Output(lab / "out").save()
    model = add("out")
    asked: list[str] = []
    opening = outputs.open_repository

    def silent(store: Any) -> Any:
        asked.append(store.url)
        raise Unreachable("the store does not answer")

    monkeypatch.setattr(outputs, "open_repository", silent)
    for _ in range(3):
        assert "does not answer" in models.model_document(*at(parts), model)["problem"]
    assert len(asked) == 1
    monkeypatch.setattr(outputs, "_SILENCE_S", 0.0)
    monkeypatch.setattr(outputs, "open_repository", opening)
    assert models.model_document(*at(parts), model)["problem"] == ""


def _broken_log(folder: Path) -> None:
    record = sorted((folder / "onward" / "log").iterdir())[2]
    record.write_bytes(record.read_bytes()[:-9])


def _no_log(folder: Path) -> None:
    for record in (folder / "onward" / "log").iterdir():
        record.unlink()


def _links_out(folder: Path) -> None:
    record = folder / "onward" / "log" / ("0" * 20 + ".json")
    record.unlink()
    record.symlink_to("/etc/passwd")


def _deep(folder: Path) -> None:
    (folder / "onward" / "log" / ("0" * 20 + ".json")).write_text("[" * 100_000)


def _fifo(folder: Path) -> None:
    record = folder / "onward" / "log" / ("0" * 20 + ".json")
    record.unlink()
    record.mkdir()


def _no_manifests(folder: Path) -> None:
    for manifest in (folder / "onward" / "manifests").iterdir():
        manifest.write_text('{"format": 1}')


@pytest.mark.parametrize("damage", [_broken_log, _no_log, _links_out, _deep, _fifo, _no_manifests])
def test_a_damaged_or_hostile_output_is_a_typed_problem(
    parts: Parts, lab: Path, add: AddModel, damage: Any
) -> None:
    """Of that model; every question is answered or refused, and the others stay as they are."""
    Output(lab / "fine").chain(2)
    Output(lab / "out").chain(3)
    damage(lab / "out")
    fine, model = add("fine"), add("out")
    models.sync_model(*at(parts), model)
    document = models.model_document(*at(parts), model)
    assert document["problem"] or damage is _no_manifests
    assert "root:" not in json.dumps(document)
    for ask in (
        lambda: models.checkpoint_document(*at(parts), model, "latest"),
        lambda: models.learning_document(*at(parts), model),
        lambda: models.data_document(*at(parts), model),
        lambda: models.savings_document(*at(parts), model),
        lambda: models.data_difference(*at(parts), model, "v1", "v2"),
        lambda: models.data_seen(*at(parts), model, "x"),
    ):
        try:
            ask()
        except OnwardError:
            continue
    assert models.model_document(*at(parts), fine)["checkpoints"] == 2
    with parts.database.read() as session:
        assert len(models.list_models(session)[0]) == 2


def test_texts_of_an_output_are_stored_whatever_they_hold(
    parts: Parts, lab: Path, add: AddModel
) -> None:
    """NUL, which PostgreSQL does not take, numbers beyond 32 bits, and long times."""
    output = Output(lab / "out")
    output.save(
        {"model": {"w": floats(1)}}, step=2**40, epoch=2**33, reason="a\0b\u202ec",
        metrics={"x\0y": 0.5},
    )  # fmt: skip
    model = add("out")
    models.sync_model(*at(parts), model)
    (found,) = models.checkpoints_page(*at(parts), model)["items"]
    assert found["step"] == 2**40
    assert "\0" not in json.dumps(found["metrics"]) + found["reason"]


def test_the_list_is_paged_and_searched(parts: Parts, add: AddModel) -> None:
    """Each once, by name; text is text, not a pattern."""
    for name in ("b", "a", "c_1", "c%1", "team/a"):
        if name != "c%1":  # no location has such a name
            add(name)
    with parts.database.read() as session:
        seen, cursor = [], ""
        while True:
            items, following = models.list_models(session, limit=2, cursor=cursor)
            seen += [item["location"] for item in items]
            if following is None:
                break
            cursor = following
        assert sorted(seen) == ["lab:a", "lab:b", "lab:c_1", "lab:team/a"]
        assert [m["name"] for m in models.list_models(session, text="c_")[0]] == ["c_1"]
        assert models.list_models(session, text="%")[0] == []


def test_the_api_shows_models(client: TestClient, digits: Scored, add: AddModel) -> None:
    """Every document passes its declared shape."""
    model = add("digits")
    for path in (
        "", "/checkpoints", "/checkpoints/v1", "/learning", "/data", "/savings",
    ):  # fmt: skip
        answer = client.get(f"/api/v1/models/{model}{path}")
        assert answer.status_code == 200, answer.text
    picture = client.get(f"/api/v1/models/{model}/learning.svg")
    assert picture.headers["content-type"] == "image/svg+xml"
    assert picture.text.startswith("<svg")
    assert client.get("/api/v1/models").json()["items"][0]["id"] == model
    assert client.get("/api/v1/savings").json()["models"] == 1
    checked = client.post(f"/api/v1/models/{model}/checkpoints/latest/verify", json={})
    assert checked.json()["intact"] is True
    assert client.get("/api/v1/models/mdl-" + "0" * 20).status_code == 404
    for path in ("/data/diff?first=v1&second=v2", "/data/seen?item=x", "/checkpoints/v9"):
        answer = client.get(f"/api/v1/models/{model}{path}")
        assert answer.status_code in (404, 409), answer.text  # its data came without a ledger
        assert answer.headers["content-type"] == "application/problem+json"
    assert client.post("/api/v1/models", json={"location": "lab:other"}).status_code == 201
    assert client.post("/api/v1/models", json={"location": "/etc"}).status_code == 422


def test_a_model_of_a_storage_that_is_gone_says_so(
    parts: Parts, digits: Scored, add: AddModel, client: TestClient
) -> None:
    """What was seen of it stays, with the problem."""
    model = add("digits")
    models.sync_model(*at(parts), model)
    assert client.delete("/api/v1/storages/lab").status_code == 200
    found = client.get(f"/api/v1/models/{model}").json()
    assert "lab" in found["problem"]
    assert found["checkpoints"] == 3
    with pytest.raises(NotFound):
        models.learning_document(*at(parts), model)
    with parts.database.read() as session:
        assert session.get_one(Model, model).latest


def test_reading_needs_no_right_to_write(parts: Parts, digits: Scored, add: AddModel) -> None:
    """Looking at an output leaves every file of it as it was."""
    before = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in digits.folder.rglob("*")}
    model = add("digits")
    models.model_document(*at(parts), model)
    models.savings_document(*at(parts), model)
    after = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in digits.folder.rglob("*")}
    assert before == after
    assert os.path.isdir(digits.folder)


@pytest.mark.parametrize("command", [[], ["train.py"], ["train.py", "--seed"], "train.py", None])
def test_a_command_without_a_seed_has_none(
    parts: Parts, lab: Path, add: AddModel, command: Any
) -> None:
    """Also an empty one, which a script without arguments of its own may tell."""
    Output(lab / "plain").save(step=10, about={"command": command})
    found = models.checkpoint_document(*at(parts), add("plain"), "v1")
    assert found["trained_by"]["seed"] is None
