"""Schedules in the console: made and changed by the form of a job, paused, run, deleted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from onward.server.database.tables import Audit, Job, Schedule, Storage
from onward.server.jobs import schedules
from onward.server.security.tokens import make_token
from onward.server.spec import JobRequest
from tests.server.console.conftest import Browser
from tests.server.places import name_storage

HOSTILE = '<script>alert(1)</script>"><img src=x onerror=alert(2)>'


def audited(browser: Browser) -> list[str]:
    with browser.database.read() as session:
        return [row.action for row in session.scalars(select(Audit).order_by(Audit.id))]


def rows(browser: Browser) -> list[Schedule]:
    with browser.database.read() as session:
        return list(session.scalars(select(Schedule).order_by(Schedule.created_at)))


def a_schedule(browser: Browser) -> str:
    """Made by the API, with a hostile name."""
    name_storage(browser.database, "lab")
    request = JobRequest.model_validate(
        {
            "name": "nightly", "command": ["train.py"], "code": {"folder": "lab:code"},
            "output": {"location": "lab:out"},
        }
    )  # fmt: skip
    with browser.database.write() as session:
        return schedules.create(session, HOSTILE, "cron", request, by="ada", cron="0 3 * * *").id


@pytest.fixture
def typed(browser: Browser, tmp_path: Path) -> dict[str, Any]:
    """A form that only lacks when it starts, over a storage with code and data."""
    for name in ("code", "data"):
        (tmp_path / "lab" / name).mkdir(parents=True)
    (tmp_path / "lab" / "code" / "train.py").touch()
    with browser.database.write() as session:
        session.add(
            Storage(
                alias="lab", url=str(tmp_path / "lab"), single_writer=False, environment={},
                created_at=0.0, created_by="test",
            )
        )  # fmt: skip
    form = browser.get("/jobs/new").form("/jobs/new")
    return {
        **form, "name": "digits", "code": "lab:code", "output_location": "lab:out",
        "input_location_1": "lab:data",
    }  # fmt: skip


def test_a_schedule_is_made_by_the_form_of_a_job_and_once(
    browser: Browser, typed: dict[str, Any]
) -> None:
    """By the clock of a zone; sent twice, there is one, and no job yet."""
    sent = {**typed, "start": "cron", "cron": "30 2 * * mon-fri", "timezone": "Asia/Shanghai"}
    answers = [browser.post("/jobs/new", sent) for _ in range(2)]
    (made,) = rows(browser)
    assert [a.location for a in answers] == [f"/schedules?done=made#{made.id}"] * 2
    assert (made.name, made.kind, made.cron, made.timezone) == (
        "digits", "cron", "30 2 * * mon-fri", "Asia/Shanghai",
    )  # fmt: skip
    assert len(made.spec["code"]["digest"]) == 64
    with browser.database.read() as session:
        assert session.scalars(select(Job)).all() == []
    page = browser.get("/schedules?done=made")
    assert "The schedule was made." in page.text
    assert "30 2 * * mon-fri Asia/Shanghai" in page.one("tr", id=made.id).text
    assert audited(browser) == ["schedule.create"]


def test_a_schedule_is_changed_in_the_form_that_made_it(
    browser: Browser, typed: dict[str, Any]
) -> None:
    """It shows what the schedule is; what is sent is what it becomes, paused as it was."""
    sent = {**typed, "start": "cron", "cron": "@daily", "schedule_name": "nightly"}
    browser.post("/jobs/new", sent)
    (made,) = rows(browser)
    page = browser.get("/schedules")
    assert browser.submit(page, f"/schedules/{made.id}/disable").status == 303
    page = browser.get(f"/jobs/new?schedule={made.id}")
    form = page.form("/jobs/new")
    shown = {name: form[name] for name in ("start", "cron", "timezone", "schedule_name", "name")}
    assert shown == {
        "start": "cron", "cron": "0 0 * * *", "timezone": "UTC", "schedule_name": "nightly",
        "name": "digits",
    }  # fmt: skip
    assert form["code"] == made.spec["code"]["digest"]
    answer = browser.post("/jobs/new", {**form, "start": "watch", "budget": "2 epochs"})
    assert answer.location == f"/schedules?done=changed#{made.id}"
    (changed,) = rows(browser)
    assert (changed.kind, changed.cron, changed.next_at, changed.enabled) == ("watch", "", None, 0)
    assert changed.spec == {**made.spec, "increment": {"budget": "2 epochs"}}
    assert audited(browser) == ["schedule.create", "schedule.disable", "schedule.change"]
    assert browser.get("/jobs/new?schedule=sch-none").status == 404
    assert browser.post("/jobs/new", {**form, "schedule": "sch-none", "key": "n"}).status == 404


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"start": "cron"}, "cron"), ({"start": "cron", "cron": "soon"}, "cron"),
        ({"start": "cron", "cron": "0 0 31 2 *"}, ""), ({"start": "cron", "cron": "<b>"}, "cron"),
        ({"start": "cron", "cron": "@daily", "timezone": "Nowhere"}, "timezone"),
        ({"start": "watch", "input_location_1": ""}, "input_location_1"),
        ({"start": "watch", "schedule_name": "a" * 201}, "schedule_name"),
        ({"start": "watch", "verb": "resume"}, ""),
        ({"start": "watch", "predownload": "checkpoint", "predownload_checkpoint": "v3"}, ""),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_schedule_is_said_in_the_form(
    browser: Browser, typed: dict[str, Any], fields: dict[str, str], wrong: str
) -> None:
    """At its field where there is one; nothing is kept, and what was typed stays."""
    page = browser.post("/jobs/new", {**typed, **fields})
    assert page.status == 422
    found = [e.attributes["name"] for e in page.elements if e.attributes.get("aria-invalid")]
    assert found == ([wrong] if wrong else [])
    assert page.one("p", id=f"s-{wrong}").text if wrong else page.one("div", role="alert").text
    assert page.form("/jobs/new")["start"] == fields["start"]
    assert rows(browser) == []
    assert audited(browser) == []


def test_the_next_three_times_are_shown_before_anything_is_saved(browser: Browser) -> None:
    """On the clock of its zone, and as a moment that the browser shows in its own."""
    page = browser.get("/schedules/times?cron=30+2+*+*+*&timezone=Asia/Shanghai")
    told = [e.text for e in page.all("li")]
    assert len(told) == 3
    assert all("02:30 Asia/Shanghai" in text for text in told)
    moments = [e.attributes["datetime"][11:16] for e in page.all("time")]
    assert moments == ["18:30"] * 3
    for query in ("cron=soon", "cron=@daily&timezone=No", f"cron={HOSTILE}", "cron=0+0+31+2+*"):
        page = browser.get(f"/schedules/times?{query}")
        assert (page.status, len(page.all("p", class_="wrong small")), page.all("img")) == (
            200,
            1,
            [],
        )
    assert browser.get("/schedules/times").all("li") == []


def test_a_schedule_is_paused_resumed_run_and_deleted(browser: Browser) -> None:
    """`Run now` leads to its job; while that is going, the page says so."""
    at = f"/schedules/{a_schedule(browser)}"
    page = browser.get("/schedules")
    assert HOSTILE in page.text
    assert not page.all("img")
    assert browser.submit(page, f"{at}/disable").location == "/schedules?done=done"
    page = browser.get("/schedules")
    assert browser.submit(page, f"{at}/enable").status == 303
    ran = browser.submit(page, f"{at}/run")
    with browser.database.read() as session:
        job = session.scalars(select(Job)).one()
    assert ran.location == f"/jobs/{job.id}"
    again = browser.submit(page, f"{at}/run", key="another")
    assert again.status == 409
    assert job.id in again.one("div", role="alert").text
    page = browser.get("/schedules")
    assert browser.submit(page, f"{at}/delete").status == 303
    assert rows(browser) == []
    assert browser.post(f"{at}/drop").status == 404
    assert audited(browser) == [
        f"schedule.{each}" for each in ("disable", "enable", "run", "delete")
    ]


def test_readers_see_schedules_and_steer_none(browser: Browser, typed: dict[str, Any]) -> None:
    """Neither buttons nor effects."""
    schedule_id = a_schedule(browser)
    with browser.database.write() as session:
        _, text = make_token(session, "reader", "read", by="test")
    browser.headers = {"authorization": f"Bearer {text}"}
    page = browser.get("/schedules")
    assert HOSTILE in page.text
    assert not [f for f in page.all("form") if "schedules" in f.attributes.get("action", "")]
    assert not [link for link in page.links() if link.startswith("/jobs/new")]
    for action in ("enable", "disable", "run", "delete"):
        assert browser.post(f"/schedules/{schedule_id}/{action}").status == 403
    sent = {**typed, "start": "watch", "schedule": schedule_id}
    assert browser.post("/jobs/new", sent).status == 403
    assert len(rows(browser)) == 1


@pytest.mark.parametrize("code", ["en", "zh"])
def test_an_empty_list_leads_to_the_first_schedule(browser: Browser, code: str) -> None:
    """To the form, with `by the clock` chosen."""
    page = browser.get("/schedules", cookie=f"language={code}")
    assert "/jobs/new?start=cron" in page.links()
    form = browser.get("/jobs/new?start=cron", cookie=f"language={code}").form("/jobs/new")
    assert form["start"] == "cron"
