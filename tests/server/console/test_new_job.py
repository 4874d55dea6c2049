"""The form of a new job: what is typed is what is submitted, and errors stand at their fields."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from onward.server.console.forms import Form
from onward.server.console.job_form import JobForm
from onward.server.console.languages import language
from onward.server.database.tables import Job, Storage
from onward.server.jobs import requests
from onward.server.jobs.writing import as_toml
from onward.server.spec import JobRequest
from tests.server.console.conftest import Browser

FULL: dict[str, Any] = {
    "name": 'a "quoted" \\ name ✓', "command": ["train.py", "--note", "two words", "--x='"],
    "code": {"git": "https://example.org/repo.git", "revision": "v1"},
    "inputs": {"data_url": {"location": "data:a"},
               "labels": {"location": "data:b", "pass_as": "env"}},
    "output": {"location": "lab:out", "name": "to", "pass_as": "env", "predownload": "v3"},
    "verb": "branch", "branch_from": "lab:other@v1",
    "increment": {"strategy": "er:200", "budget": "2 epochs", "margin": 0.02, "promote": False},
    "save": {"every_steps": 5, "every_seconds": 2.5, "keep_last": 3},
    "environment": {"LEVEL": "a=b"}, "secrets": {"KEY": "wandb"},
    "resources": {"memory_bytes": 2 << 30, "cpus": 1.5},
    "retries": {"crash": 4, "out_of_memory": 1, "hang": 0, "timeout": 2, "infrastructure": 1,
                "preemption": 0},
    "timeout_s": 90.0, "hang_minutes": 5.0, "grace_s": 10.0, "notify": ["team"],
}  # fmt: skip


def test_a_job_read_into_the_form_and_sent_again_is_the_same_job() -> None:
    """Nothing is lost or changed on the way through the form."""
    spoken = language("en")
    spec = JobRequest.model_validate(FULL).document()
    form = JobForm.of(spoken, spec)
    fields = [*form.values.items(), *(("notify", name) for name in form.chosen)]
    again = JobForm.sent(spoken, Form(tuple(fields)))
    request = again.request()
    assert again.errors == {}
    assert request is not None
    assert request.document() == spec


def test_what_the_form_has_no_field_for_is_kept_and_numbers_are_exact() -> None:
    """Rules of keeping, limits and further inputs; no number is rounded on its way."""
    spoken = language("en")
    inputs = {f"input_{n}": {"location": f"data:{n}", "pass_as": "env"} for n in range(16)}
    rest = {
        "save": {"every_steps": 1234567, "keep_every": 10**7, "keep_best": ["loss"]},
        "resources": {"memory_bytes": 16_000_000_001, "cpus": 0.123456789, "cpu_seconds": 3600,
                      "open_files": 64, "processes": 9, "file_bytes": 10**9},
        "inputs": inputs, "timeout_s": 1234567.0, "hang_minutes": 12345678.5 / 100,
    }  # fmt: skip
    spec = JobRequest.model_validate({**FULL, **rest}).document()
    form = JobForm.of(spoken, spec)
    fields = [*form.values.items(), *(("notify", name) for name in form.chosen)]
    request = JobForm.sent(spoken, Form(tuple(fields))).request()
    assert request is not None
    assert request.document() == spec


def test_a_number_beyond_all_bounds_is_said_at_its_field() -> None:
    """Bytes of so many GiB are no number any more."""
    form = JobForm.of(language("en"), JobRequest.model_validate(FULL).document())
    form.values["memory_gib"] = "1e308"
    assert form.request() is None
    assert set(form.errors) == {"memory_gib"}


@pytest.mark.parametrize("kept", ["{", "[1]", '{"save": 1}', '{"save": {"x": 1}}', '{"a": {}}'])
def test_what_a_form_keeps_is_looked_at_like_what_is_typed(kept: str) -> None:
    """A hidden field is no way around the rules of a job."""
    spoken = language("en")
    form = JobForm.of(spoken, JobRequest.model_validate(FULL).document())
    form.values["kept"] = kept
    assert form.request() is None
    assert form.errors


def test_the_toml_of_a_job_reads_back_as_the_job() -> None:
    """What is copied from the page can be submitted."""
    request = JobRequest.model_validate(FULL)
    read = tomllib.loads(as_toml(request.document()))
    assert JobRequest.model_validate(read) == request


@pytest.mark.parametrize("code", ["en", "zh"])
def test_the_empty_form_says_what_is_needed_when_it_is_sent(browser: Browser, code: str) -> None:
    """All that is missing at once, beside its field, and what was typed stays."""
    cookie = f"language={code}"
    page = browser.get("/jobs/new", cookie=cookie)
    assert page.status == 200
    sent = {**page.form("/jobs/new"), "name": "digits", "cpus": "many", "retries_hang": "1.5"}
    again = browser.post("/jobs/new", sent, cookie=cookie)
    assert again.status == 422
    wrong = {e.attributes["name"] for e in again.elements if e.attributes.get("aria-invalid")}
    assert wrong == {"code", "output_location", "cpus", "retries_hang"}
    for name in wrong:
        below = again.one("p", id=f"s-{name}")
        assert below.attributes["class"] == "wrong"
        assert below.text
    assert again.one("input", name="name").attributes["value"] == "digits"
    assert again.one("input", name="cpus").attributes["value"] == "many"


WRONG = [
    ({"arguments": "'open"}, "arguments"), ({"environment": "no equals"}, "environment"),
    ({"environment": "PATH=x"}, "environment"), ({"secrets": "1X=a"}, "secrets"),
    ({"verb": "branch"}, "branch_from"), ({"predownload": "checkpoint"}, "predownload_checkpoint"),
    ({"script": "../up.py"}, ""), ({"output_name": "1"}, "output_name"),
    ({"input_location_1": "data:a", "input_name_1": "bad name"}, "input_name_1"),
    ({"input_location_1": "data:a", "input_location_2": "data:b", "input_name_2": "data_url"},
     "input_name_2"),
    ({"margin": "2"}, "margin"), ({"memory_gib": "nan"}, "memory_gib"),
    ({"memory_gib": "-1"}, "memory_gib"), ({"timeout_minutes": "1e12"}, "timeout_minutes"),
    ({"strategy": "Re Play"}, "strategy"), ({"name": "a" * 201}, "name"),
]  # fmt: skip


@pytest.mark.parametrize(("typed", "field"), WRONG)
def test_each_error_stands_at_its_field(typed: dict[str, str], field: str) -> None:
    """Whatever part of the document is refused, the form knows which field made it."""
    values = {**JobForm.empty(language("en")).values, "name": "a", "code": "c:d",
              "output_location": "o:p", **typed}  # fmt: skip
    form = JobForm(language("en"), values)
    assert form.request() is None
    assert list(form.errors) == [field]


@pytest.fixture
def lab(browser: Browser, tmp_path: Path) -> Path:
    """A storage with code and data, and room for an output."""
    folder = tmp_path / "lab"
    for name in ("code", "data"):
        (folder / name).mkdir(parents=True)
    (folder / "code" / "train.py").write_text("print(1)\n")
    (folder / "data" / "a.txt").write_text("a")
    with browser.database.write() as session:
        session.add(
            Storage(
                alias="lab", url=str(folder), single_writer=False, environment={}, created_at=0.0,
                created_by="test",
            )
        )  # fmt: skip
    return folder


def test_a_form_sent_twice_makes_one_job(browser: Browser, lab: Path) -> None:
    """A double click, or a reload after it. Its code is pinned as it was the first time."""
    page = browser.get("/jobs/new?output=lab:out&data=lab:data")
    sent = {**page.form("/jobs/new"), "name": "digits", "code": "lab:code"}
    assert sent["output_location"] == "lab:out"
    first = browser.post("/jobs/new", sent)
    (lab / "code" / "train.py").write_text("print(2)\n")
    second = browser.post("/jobs/new", sent)
    assert first.status == second.status == 303
    assert first.location == second.location
    with browser.database.read() as session:
        (job,) = session.query(Job).all()
    assert job.spec["inputs"] == {"data_url": {"location": "lab:data"}}
    assert len(job.spec["code"]["digest"]) == 64
    like = browser.get(f"/jobs/new?like={job.id}")
    assert "kept" not in like.form("/jobs/new")
    assert like.one("input", name="name").attributes["value"] == "digits"


def test_a_job_like_another_keeps_what_no_field_shows(browser: Browser, lab: Path) -> None:
    """Through the page and back: its checkpoints are kept by the same rules."""
    save = {"keep_every": 1000, "keep_best": ["loss"]}
    spec = {
        "name": "digits", "command": ["train.py"], "code": {"folder": "lab:code"},
        "output": {"location": "lab:out"}, "save": save,
    }  # fmt: skip
    with browser.database.write() as session:
        job = requests.submit(session, JobRequest.model_validate(spec), by="ada").id
    page = browser.get(f"/jobs/new?like={job}")
    sent = browser.post("/jobs/new", page.form("/jobs/new"))
    assert sent.status == 303, sent.text
    with browser.database.read() as session:
        new = requests.find_job(session, sent.location.removeprefix("/jobs/"))
    assert new.spec["save"] == save


def test_the_plan_shows_what_would_happen_and_the_same_job_as_text(
    browser: Browser, lab: Path
) -> None:
    """Live, from a dry run; while the form is incomplete it counts what is missing."""
    page = browser.get("/jobs/new")
    sent = page.form("/jobs/new")
    assert "3 fields are still to be filled in." in browser.post("/jobs/new/plan", sent).text
    sent |= {"name": "digits", "code": "lab:code", "output_location": "lab:out",
             "input_location_1": "lab:data"}  # fmt: skip
    shown = browser.post("/jobs/new/plan", sent)
    assert "fresh" in shown.text
    assert "1 file, 1 B" in shown.text
    toml = shown.one("pre", id="as-toml")
    text = "".join(part for part in toml.children if isinstance(part, str))
    assert tomllib.loads(text)["output"]["location"] == "lab:out"
    assert "Idempotency-Key" in shown.text
    assert not (lab / "out").exists()
    wrong = browser.post("/jobs/new/plan", {**sent, "output_location": "other:out"})
    assert "other" in wrong.one("div", role="alert").text


def test_locations_are_browsed_from_storages_down(browser: Browser, lab: Path) -> None:
    """Storages, then folders; a place that is not there says so and shows the storages again."""
    assert browser.get("/browse").one("button", data_place="lab:")
    top = browser.get("/browse?location=lab:")
    assert {e.attributes["data-choose"] for e in top.all("button") if "data-choose" in e.attributes}
    inner = browser.get("/browse?location=lab:data")
    assert inner.one("button", data_choose="lab:data/a.txt")
    for location in ("lab:nowhere", "nobody:", "lab:../..", "lab:data/../../etc"):
        missing = browser.get(f"/browse?location={location}")
        assert missing.one("div", role="alert")
        assert missing.one("button", data_place="lab:")
